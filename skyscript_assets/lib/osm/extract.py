"""A region's OSM extract as it is staged: whole, checked, and with the facts of its header and the ground to use.

Which ground a region covers is settled here, once: the polygon or box of the settings, else the box in the extract's
header.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import osmium
import shapely

from skyscript_assets.lib.errors import (
    CorruptInputError,
    DigestMismatchError,
    NotCoveredError,
    SettingsError,
    UpstreamMissingError,
)
from skyscript_assets.lib.files import write_text
from skyscript_assets.lib.geometry import Bounds
from skyscript_assets.lib.osm.header import ExtractHeader, read_header
from skyscript_assets.lib.osm.origin import Earlier, Origin, bring, locate, suffix_of, version_note
from skyscript_assets.lib.osm.polygons import Ground, polygon_json, read_polygon
from skyscript_assets.lib.progress import Progress, silent
from skyscript_assets.lib.settings.load import Settings
from skyscript_assets.lib.settings.regions import Region

FACTS_FILE = "extract.json"


@dataclass(frozen=True)
class ExtractSummary:
    """A staged extract.

    Attributes:
        file: Name of the extract in its folder.
        bbox: Box of the ground to use: (west, south, east, north) in degrees.
        polygon: The ground itself where the settings name a polygon, EPSG:4326.
        header: What the extract says about itself.
        origin: Where it came from.
        size_bytes: Its size.
    """

    file: str
    bbox: Bounds
    polygon: Ground | None
    header: ExtractHeader
    origin: Origin
    size_bytes: int

    def facts(self) -> dict[str, Any]:
        """What `extract.json` holds: content alone, so that an equal extract from elsewhere changes nothing."""
        header = dataclasses.asdict(self.header)
        facts = {
            "file": self.file,
            "bbox": list(self.bbox),
            "header_bbox": header.pop("bbox"),
            **header,
            "sorted": self.header.sorted,
            "sha256": self.origin.sha256,
            "size_bytes": self.size_bytes,
        }
        return facts if self.polygon is None else facts | {"polygon": polygon_json(self.polygon)}

    def counts(self) -> dict[str, Any]:
        """The facts and how the extract was come by, for the manifest; of a polygon the number of its vertices."""
        vertices = None if self.polygon is None else int(shapely.get_num_coordinates(self.polygon))
        return self.facts() | {
            "polygon": vertices,
            "origin": self.origin.name,
            "checksum": self.origin.checksum,
            "etag": self.origin.version.etag,
            "last_modified": self.origin.version.last_modified,
            "not_modified": self.origin.not_modified,
        }


def stage_extract(
    key: str,
    region: Region,
    settings: Settings,
    out: Path,
    progress: Progress = silent,
    earlier: Earlier | None = None,
) -> ExtractSummary:
    """Bring a region's extract into `out` as `extract{suffix}` and write `extract.json`.

    Files are copied, so that the staged extract stays what it was when the original is overwritten. A download that was
    cut continues when the function is called again with the same `out`; one that the earlier output holds in the state
    that the server still has is taken from there.

    Args:
        key: The region's key, for messages.
        region: Where the extract comes from, its digest, the ground wanted.
        settings: The profile; relative paths start at its folder.
        out: Existing folder.
        progress: Told the bytes downloaded or copied.
        earlier: The region's output so far.

    Raises:
        MissingInputError: the file, package or address is not there, or the polygon is not.
        DigestMismatchError: the file is not the one that the settings or its publisher promise.
        CorruptInputError: the file is empty, truncated or of another format, or the polygon is.
        SettingsError: the name's ending is not known, or neither settings nor header state a box.
        NotCoveredError: the ground of the settings and the box of the header share nothing.
        NoSpaceError: the disk has no room for it.
    """
    polygon = read_polygon(settings.resolve(region.polygon)) if region.polygon is not None else None
    source = locate(key, region, settings)
    target = out / f"extract{suffix_of(key, source)}"
    try:
        origin = bring(key, region, source, target, progress, earlier)
        summary = _examine(key, region, polygon, origin, target)
    except (DigestMismatchError, CorruptInputError, NotCoveredError, SettingsError):
        target.unlink(missing_ok=True)
        version_note(target).unlink(missing_ok=True)
        raise
    write_text(out / FACTS_FILE, json.dumps(summary.facts(), indent=2) + "\n")
    version_note(target).unlink(missing_ok=True)
    return summary


def read_staged(folder: Path) -> tuple[Path, Bounds, Ground | None]:
    """A staged extract: its path, the box of the ground to use in degrees, and the ground's polygon where there is one.

    Args:
        folder: Output of `stage_extract`.

    Raises:
        UpstreamMissingError: `extract.json` or the extract is missing.
        CorruptInputError: `extract.json` cannot be read.
    """
    facts_path = folder / FACTS_FILE
    try:
        facts = json.loads(facts_path.read_text(encoding="utf-8"))
        path, (west, south, east, north) = folder / facts["file"], map(float, facts["bbox"])
        polygon = shapely.from_geojson(json.dumps(facts["polygon"])) if facts.get("polygon") else None
    except FileNotFoundError:
        raise UpstreamMissingError(f"{facts_path} does not exist: materialize osm_extract first") from None
    except (ValueError, KeyError, TypeError, shapely.GEOSException) as error:
        raise CorruptInputError(f"{facts_path} cannot be read ({error!r}); materialize osm_extract again") from error
    if not path.is_file():
        raise UpstreamMissingError(f"{path} does not exist: materialize osm_extract first")
    return path, (west, south, east, north), polygon


def _examine(key: str, region: Region, polygon: Ground | None, origin: Origin, path: Path) -> ExtractSummary:
    """Check a staged extract from its header to its ground."""
    size = path.stat().st_size
    if size == 0:
        raise CorruptInputError(f"region {key}: {origin.name} is empty; get the extract again")
    try:
        header = read_header(path)
        holds_objects = _read_through(path)
    except RuntimeError as error:
        raise CorruptInputError(f"region {key}: {origin.name} is not whole ({error}); get the extract again") from error
    except CorruptInputError as error:
        problem = str(error).replace(str(path), origin.name)
        raise CorruptInputError(f"region {key}: {problem}") from error
    if not holds_objects:
        # A PBF has no mark of its end: cut after its header it looks whole.
        raise CorruptInputError(f"region {key}: {origin.name} holds no object; get the extract again")
    bbox = _box_of_ground(key, region, polygon, header, origin.name)
    return ExtractSummary(path.name, bbox, polygon, header, origin, size)


def _read_through(path: Path) -> bool:
    """Decompress and parse every block; whether they hold any object.

    Raises:
        RuntimeError: the file is not whole.
    """
    with osmium.io.Reader(path) as reader:
        if next(iter(osmium.OsmFileIterator(reader)), None) is None:
            return False
        # The iterator has taken the first objects; none of the rest leaves osmium.
        osmium.apply(reader, osmium.filter.EntityFilter(osmium.osm.NOTHING))
    return True


def _box_of_ground(key: str, region: Region, polygon: Ground | None, header: ExtractHeader, origin: str) -> Bounds:
    """The box to use: that of the settings' polygon, that of the settings, else that of the header."""
    wanted, what = polygon, f"polygon {region.polygon}"
    if region.bbox is not None:
        wanted, what = shapely.box(*region.bbox.bounds), f"box {region.bbox.bounds}"
    if wanted is None:
        if header.bbox is None:
            raise SettingsError(
                f"region {key}: the header of {origin} states no box; "
                f"give regions.{key}.bbox (west, south, east, north) in regions.yaml"
            )
        return header.bbox
    if header.bbox is not None and shapely.intersection(wanted, shapely.box(*header.bbox)).area == 0:
        raise NotCoveredError(
            f"region {key}: the {what} of regions.yaml shares no ground with {origin}, which covers {header.bbox}"
        )
    west, south, east, north = map(float, wanted.bounds)
    return west, south, east, north
