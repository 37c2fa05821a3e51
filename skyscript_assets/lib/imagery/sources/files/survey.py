"""From rasters on this machine to a profile: what they say of themselves, written as settings that are true of them."""

import datetime as dt
import glob
import json
import math
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import shapely
from pydantic import ValidationError

from skyscript_assets.lib.errors import MissingInputError, SettingsError, SkyScriptError
from skyscript_assets.lib.geometry import WGS84_RADIUS_M
from skyscript_assets.lib.imagery.geotiff.describe import Stated, describe, unwarned
from skyscript_assets.lib.imagery.geotiff.raster import OpenImage, open_raster, read_raw
from skyscript_assets.lib.imagery.sources.files.index import matching, tagged_time
from skyscript_assets.lib.osm.extract import read_header
from skyscript_assets.lib.progress import Progress
from skyscript_assets.lib.settings.base import BBox
from skyscript_assets.lib.settings.load import PACKAGED_PROFILES, load_settings
from skyscript_assets.lib.settings.regions import GEOFABRIK, Region
from skyscript_assets.lib.settings.sources import Scaling

SAME_GSD = 1.25
"""Greatest ratio of the GSDs of files of one source."""

CELL_PX = 600
"""Least width in pixels of the tiles that the split never divides: chips that touch two splits are dropped."""


class Raster(NamedTuple):
    """A raster by its header, its frame in EPSG:4326; files of one source have the last three in common."""

    path: Path
    gsd_m: float
    outline: shapely.Geometry
    bands: tuple[int, ...]
    kind: str
    has_date: bool


def survey(patterns: Sequence[str], progress: Progress) -> tuple[dict[str, list[Raster]], dict[Path, str]]:
    """The rasters that files or globs name: by keys of sources, the finest first; and why others cannot be used.

    Raises:
        MissingInputError: none can be used; the message has the first reason.
    """
    paths = dict.fromkeys(path for pattern in patterns for path in matching(pattern, Path.cwd()))
    rasters, unusable = [], {}
    for done, path in enumerate(paths, start=1):
        try:
            rasters.append(_look(path))
        except SkyScriptError as error:
            unusable[path] = str(error)
        progress(done, len(paths), "files")
    if not rasters:
        reason = next(iter(unusable.values()), f"{' '.join(patterns)} matches no file")
        raise MissingInputError(f"none of {len(paths)} images can be used: {reason}")
    groups: dict[str, list[Raster]] = {}
    for group in sorted(_alike(rasters), key=gsd_of):
        name = f"OWN-{gsd_of(group):g}M".replace(".", "-")
        groups[name if name not in groups else f"{name}-{len(groups) + 1}"] = group
    return groups, unusable


def _look(path: Path) -> Raster:
    from rasterio.windows import Window

    with unwarned(), open_raster(path) as dataset:
        meanings = [kind.name for kind in dataset.colorinterp]
        bands = (1, 2, 3) if dataset.count > 2 else (1, 1, 1)
        if {"red", "green", "blue"} <= set(meanings):
            bands = (meanings.index("red") + 1, meanings.index("green") + 1, meanings.index("blue") + 1)
        image = OpenImage(str(path), (dataset,), bands)
        found = describe(image, Stated("(new)", None, Scaling(low=0, high=255), None), lambda: None)
        assert found is not None  # no pixel was looked at
        read_raw(image, None, Window(dataset.width - 1, dataset.height - 1, 1, 1))  # which a file that was cut has not
        has_date = tagged_time(dataset) is not None
        return Raster(path, found.columns["gsd_m"], found.outline, bands, dataset.dtypes[0], has_date)


def _alike(rasters: Sequence[Raster]) -> Iterator[list[Raster]]:
    group: list[Raster] = []
    for raster in sorted(rasters, key=lambda raster: (raster[3:], raster.gsd_m, raster.path)):
        if group and (raster[3:] != group[0][3:] or raster.gsd_m > SAME_GSD * group[0].gsd_m):
            yield group
            group = []
        group.append(raster)
    yield group


def gsd_of(group: Sequence[Raster]) -> float:
    """The median GSD of rasters in metres, two digits of it."""
    return float(f"{sorted(raster.gsd_m for raster in group)[len(group) // 2]:.2g}")


def box_of(rasters: Sequence[Raster]) -> BBox:
    """The box around rasters, rounded outwards to a metre; SettingsError where it would go round half of the globe."""
    west, south, east, north = shapely.total_bounds([one.outline for one in rasters]) * 1e5
    if east - west > 180e5:
        raise SettingsError(
            "the images lie on both sides of 180 degrees, or far apart: name those of one side or place"
        )
    sides = {"west": math.floor(west), "south": math.floor(south), "east": math.ceil(east), "north": math.ceil(north)}
    return BBox(**{name: side / 1e5 for name, side in sides.items()})


def extract_named(osm: str | None, box: BBox) -> dict[str, str]:
    """Where the extract over a box comes from, as `regions.yaml` has it: a file, or a name at Geofabrik.

    Raises:
        SettingsError: nothing is named, or a file that lies elsewhere; the message says what would do.
        MissingInputError: it is neither a file nor such a name.
        CorruptInputError: the file is no extract.
    """
    around = shapely.box(*box.bounds)
    if osm is None:
        packaged = load_settings(PACKAGED_PROFILES / "skyscript").regions.values()
        names = [one.geofabrik for one in packaged if one.bbox and shapely.box(*one.bbox.bounds).contains(around)]
        raise SettingsError(
            f"say with --osm which extract covers {box.bounds} (west, south, east, north): the name of the smallest at "
            f"{GEOFABRIK} that does ({names[0] if names else 'such as europe/monaco'}), or a file, such as "
            "https://www.openstreetmap.org/export gives for some km²"
        )
    if (path := Path(osm).expanduser().absolute()).is_file():
        ground = read_header(path)["header_bbox"]
        if ground is not None and not shapely.box(*ground).intersects(around):
            raise SettingsError(
                f"--osm {osm} covers {ground}, and the images lie in {box.bounds}: name another extract"
            )
        return {"path": str(path)}
    try:
        Region(title=osm, geofabrik=osm)
    except ValidationError:
        raise MissingInputError(f"--osm {osm} is neither a file nor a name at Geofabrik like europe/monaco") from None
    return {"geofabrik": osm}


def write_profile(
    folder: Path, groups: Mapping[str, list[Raster]], extract: dict[str, str], stated: Mapping[str, str | None]
) -> None:
    """Write a profile of one region and a source for each group of rasters; what else it has is the template's.

    `stated` are `licence`, `attribution`, and the `datetime` of those rasters that have none, or None.

    Raises:
        SettingsError: the folder holds something, or what is stated cannot stand in a profile.
    """
    texts = {path.name: path.read_text(encoding="utf-8") for path in (PACKAGED_PROFILES / "template").glob("*.yaml")}
    box = box_of([raster for group in groups.values() for raster in group])
    round_m = 2 * math.pi * WGS84_RADIUS_M * math.cos(math.radians((box.south + box.north) / 2))
    zoom = int(math.log2(max(16.0, round_m / CELL_PX / max(map(gsd_of, groups.values())))))
    texts["plant.yaml"] = _filled(texts["plant.yaml"], {"title": folder.name, "zoom": min(16, zoom)})
    region = {"title": folder.name, "path": None, **extract, "bbox": box.model_dump()}
    texts["regions.yaml"] = _filled(texts["regions.yaml"], region)
    head, key, block = texts["sources.yaml"].partition("  OWN:\n")
    sources = (key.replace("OWN", name) + _filled(block, _facts(group, stated)) for name, group in groups.items())
    texts["sources.yaml"] = head + "".join(sources)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".new-") as made:
        (new := Path(made, folder.name)).mkdir()
        for name, text in texts.items():
            (new / name).write_text(text, encoding="utf-8")
        load_settings(new)
        try:
            new.rename(folder)  # it replaces no folder that holds anything
        except OSError as error:
            raise SettingsError(f"{folder} is there already ({error.strerror}): name another folder") from None


def _facts(group: Sequence[Raster], stated: Mapping[str, str | None]) -> dict[str, Any]:
    """What a source states, None what it leaves to the files."""
    first, paths = group[0], sorted(str(raster.path) for raster in group)
    every = f"{glob.escape(str(first.path.parent))}/*{first.path.suffix}"
    if len(paths) > 1 and paths == sorted(map(str, matching(every, first.path.parent))):
        paths = [every]
    written = dt.datetime.fromtimestamp(first.path.stat().st_mtime, dt.UTC).date().isoformat()
    return {
        "title": f"{gsd_of(group):g} m, {first.path.parent.name}",
        "gsd_m": gsd_of(group),
        "paths": paths,
        "bands": first.bands,
        "scaling": None if first.kind == "uint8" else {"percentiles": [2, 98]},
        **stated,
        "datetime": None if first.has_date else stated["datetime"] or written,
        "date_is": None if first.has_date or stated["datetime"] else "guess",
        "extent": box_of(group).model_dump(),
    }


def _filled(text: str, values: Mapping[str, Any]) -> str:
    """A YAML text with other values of some keys, comments kept; what has the value None becomes a comment itself."""
    for key, value in values.items():
        if value is None:
            text = re.sub(rf"(?m)^( *)({key}: )", r"\1# \2", text)
        else:
            line = f"{key}: {json.dumps(value, ensure_ascii=False)}".replace("\\", r"\\")
            text = re.sub(rf"(?m)^( *)(?:# )?{key}: [^#\n]*?(?= *(?:#|$))", rf"\g<1>{line}", text)
    return text
