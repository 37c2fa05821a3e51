"""A region's OSM extract, staged: seen to be whole, with the facts of its header and the ground to use.

Which ground a region covers is settled here, once: the polygon or box of the settings, else the box in the extract's
header.
"""

import json
import re
from pathlib import Path
from typing import Any

import osmium
import pyarrow as pa
import shapely

from skyscript_assets.lib.errors import (
    CorruptInputError,
    DigestMismatchError,
    MissingInputError,
    NotCoveredError,
    RefusedError,
    SettingsError,
    UpstreamMissingError,
)
from skyscript_assets.lib.files import inside, write_text
from skyscript_assets.lib.geometry import TURNS, Bounds, across_180, holds_ground
from skyscript_assets.lib.osm.origin import Earlier, Origin, bring, locate, suffix_of, version_note
from skyscript_assets.lib.osm.pbf.file import SORTED, PbfFile
from skyscript_assets.lib.osm.polygons import Ground, read_polygon
from skyscript_assets.lib.progress import Progress, silent
from skyscript_assets.lib.settings.base import Shared
from skyscript_assets.lib.settings.regions import Region

FACTS_FILE = "extract.json"

_MEANINGLESS_BOXES = frozenset({(0.0, 0.0, 180.0, 90.0), (-180.0, -90.0, 180.0, 90.0)})
"""Boxes that some programs write into the header where they know none."""

_XML_HEADER_BYTES, _SIDES = 1 << 16, (b"minlon", b"minlat", b"maxlon", b"maxlat")


def stage_extract(
    key: str, region: Region, shared: Shared, out: Path, progress: Progress = silent, earlier: Earlier | None = None
) -> dict[str, Any]:
    """Bring a region's extract into `out` as `extract{suffix}` and write `extract.json`.

    Files are copied, so that the staged extract stays what it was when the original is overwritten. A download that was
    cut continues when the function is called again with the same `out`; one that the region's `earlier` output holds in
    the state that the server still has is taken from there.

    Returns:
        What `extract.json` holds (of a polygon the number of its vertices), and how the extract was come by.

    Raises:
        MissingInputError: the file or package is not there, or the polygon is not.
        RefusedError: the server has no such file, or does not give it.
        UnreachableError: the server or the network failed on every try.
        DigestMismatchError: the file is not the one that the settings or its publisher promise.
        CorruptInputError: the file is empty, truncated or of another format, or the polygon is.
        SettingsError: the name's ending is not known, or neither settings nor header state a box.
        NotCoveredError: the ground of the settings and the box of the header share nothing.
        NoSpaceError: the disk has no room for it.
    """
    polygon = read_polygon(shared.resolve(region.polygon)) if region.polygon is not None else None
    source = locate(key, region, shared)
    target = out / f"extract{suffix_of(key, source)}"
    try:
        origin = bring(key, region, source, target, progress, earlier)
        facts = _examine(key, region, polygon, origin, target)
    except RefusedError:  # of the .md5 file: what was downloaded is kept
        raise
    except (DigestMismatchError, CorruptInputError, NotCoveredError, SettingsError):
        target.unlink(missing_ok=True)
        version_note(target).unlink(missing_ok=True)
        raise
    # Content alone, so that an equal extract from elsewhere changes nothing.
    ground = {} if polygon is None else {"polygon": json.loads(shapely.to_geojson(polygon))}
    write_text(out / FACTS_FILE, json.dumps(facts | ground, indent=2) + "\n")
    version_note(target).unlink(missing_ok=True)
    vertices = None if polygon is None else int(shapely.get_num_coordinates(polygon))
    return facts | {"polygon": vertices} | origin.facts()


def read_staged(folder: Path) -> tuple[Path, Bounds, Ground | None]:
    """The path of a staged extract, the box of the ground to use in degrees, and the ground's polygon if it has one.

    Raises:
        UpstreamMissingError: `extract.json` or the extract is missing.
        CorruptInputError: `extract.json` cannot be read.
    """
    facts_path = folder / FACTS_FILE
    try:
        facts = json.loads(facts_path.read_text(encoding="utf-8"))
        path, (west, south, east, north) = inside(folder, facts["file"]), map(float, facts["bbox"])
        polygon = shapely.from_geojson(json.dumps(facts["polygon"])) if facts.get("polygon") else None
    except FileNotFoundError:
        raise UpstreamMissingError(f"{facts_path} does not exist: materialize osm_extract first") from None
    except (ValueError, KeyError, TypeError, shapely.GEOSException) as error:
        raise CorruptInputError(f"{facts_path} cannot be read ({error!r}); materialize osm_extract again") from error
    if not path.is_file():
        raise UpstreamMissingError(f"{path} does not exist: materialize osm_extract first")
    return path, (west, south, east, north), polygon


def read_header(path: Path) -> dict[str, Any]:
    """What an extract (PBF, or XML: plain, bzip2 or gzip) says about itself; its objects are not read.

    Returns:
        header_bbox: (west, south, east, north) in degrees, as stated, None where there is none; timestamp of the data,
        ISO 8601; replication_url, where later changes are published, and replication_sequence, the number of the last
        change that is in; generator; required_features and optional_features of a PBF, which its readers must know
        and may pass over; sorted: whether it promises nodes first, then ways, then relations, each by id.

    Raises:
        MissingInputError: the file does not exist.
        CorruptInputError: it is not an OSM file of the kind its name says, or holds the history of objects.
    """
    if not path.is_file():
        raise MissingInputError(f"{path} does not exist or is not a file")
    try:
        with osmium.io.Reader(path, osmium.osm.NOTHING) as reader:
            header = reader.header()
        # osmium tells nothing of a PBF's features, and takes up to three odd bytes for its end.
        pbf = PbfFile(path) if path.suffix == ".pbf" else None
        box = pbf.box if pbf else _box_of_xml(path)
    except (RuntimeError, OSError) as error:
        raise CorruptInputError(f"{path} is no OSM extract ({error}); get the extract again") from error
    if header.has_multiple_object_versions:
        raise CorruptInputError(f"{path} holds several versions of objects; give an extract without history")
    sequence = header.get("osmosis_replication_sequence_number")
    return {
        "header_bbox": box,
        "timestamp": header.get("osmosis_replication_timestamp") or header.get("timestamp") or None,
        "replication_url": header.get("osmosis_replication_base_url") or None,
        "replication_sequence": int(sequence) if sequence.isdecimal() else None,
        "generator": header.get("generator") or None,
        "required_features": pbf.required if pbf else (),
        "optional_features": pbf.optional if pbf else (),
        "sorted": pbf is not None and SORTED in pbf.optional,
    }


def _box_of_xml(path: Path) -> Bounds | None:
    """The box that the beginning of an XML file states: osmium takes its lesser longitude for the western one."""
    with pa.input_stream(path) as file:
        _, _, bounds = file.read(_XML_HEADER_BYTES).partition(b"<bounds ")
    found = [re.search(rb"^[^<>]*\b%s\s*=\s*.\s*([-+]?\d+(\.\d*)?)" % side, bounds) for side in _SIDES]
    sides = [float(side[1]) for side in found if side]
    return (sides[0], sides[1], sides[2], sides[3]) if len(sides) == 4 else None


def _examine(key: str, region: Region, polygon: Ground | None, origin: Origin, path: Path) -> dict[str, Any]:
    """Check a staged extract from its header to its ground; what is to be told of it."""
    size = path.stat().st_size
    if size == 0:
        raise CorruptInputError(f"region {key}: {origin.name} is empty; get the extract again")
    try:
        header = read_header(path)
        with osmium.io.Reader(path) as reader:
            # The iterator takes the first objects; every block is unpacked and parsed, and nothing leaves osmium.
            holds_objects = next(iter(osmium.OsmFileIterator(reader)), None) is not None
            if holds_objects:
                osmium.apply(reader, osmium.filter.EntityFilter(osmium.osm.NOTHING))
    except RuntimeError as error:
        raise CorruptInputError(f"region {key}: {origin.name} is not whole ({error}); get the extract again") from error
    except CorruptInputError as error:
        problem = str(error).replace(str(path), origin.name)
        raise CorruptInputError(f"region {key}: {problem}") from error
    if not holds_objects:
        # A PBF has no mark of its end: cut after its header it looks whole.
        raise CorruptInputError(f"region {key}: {origin.name} holds no object; get the extract again")
    bbox = _box_of_ground(key, region, polygon, header["header_bbox"], origin.name)
    return {"file": path.name, "bbox": list(bbox), **header, "sha256": origin.sha256, "size_bytes": size}


def _box_of_ground(key: str, region: Region, polygon: Ground | None, stated: Bounds | None, origin: str) -> Bounds:
    """The box to use: that of the settings' polygon, that of the settings, else that of the header."""
    wanted, what = polygon, f"polygon {region.polygon}"
    if region.bbox is not None:
        wanted, what = shapely.box(*region.bbox.bounds), f"box {region.bbox.bounds}"
    usable = None if stated is None or stated in _MEANINGLESS_BOXES else across_180(*stated)
    usable = usable if usable is not None and holds_ground(usable) else None
    if wanted is None:
        if usable is None:
            states = "no box" if stated is None else f"the box {stated}, which does not tell the ground of the extract"
            raise SettingsError(
                f"region {key}: the header of {origin} states {states}; "
                f"give regions.{key}.bbox (west, south, east, north) in regions.yaml"
            )
        return usable
    there = [shapely.box(usable[0] + turn, usable[1], usable[2] + turn, usable[3]) for turn in TURNS] if usable else []
    if there and shapely.intersection(wanted, shapely.union_all(there)).area == 0:
        raise NotCoveredError(
            f"region {key}: the {what} of regions.yaml shares no ground with {origin}, which covers {stated}"
        )
    west, south, east, north = map(float, wanted.bounds)
    return west, south, east, north
