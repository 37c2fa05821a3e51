"""A region's OSM extract: found or downloaded, checked to be whole, and staged with the facts of its header.

Which ground a region covers is settled here, once: the box of the settings, else the box in the extract's header.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import osmium

from skyscript_assets.lib.errors import (
    CorruptInputError,
    DigestMismatchError,
    MissingInputError,
    NoSpaceError,
    NotCoveredError,
    SettingsError,
    SkyScriptError,
)
from skyscript_assets.lib.geometry import Bounds
from skyscript_assets.lib.osm.download import download
from skyscript_assets.lib.progress import Progress, silent
from skyscript_assets.lib.settings import BBox, PackageFile, Region, Settings

SUFFIXES = {".osm.pbf": ".osm.pbf", ".pbf": ".osm.pbf", ".osm.bz2": ".osm.bz2", ".osm.gz": ".osm.gz", ".osm": ".osm"}
"""Endings of file names that are read, and the suffix that the staged extract gets."""

CHUNK_BYTES = 1 << 20

STAMPED_WHOLE_BYTES = 1 << 24
"""Extracts up to this size are stamped with the digest of all they hold, larger ones with that of their two ends."""

_MEANINGLESS_BOXES = frozenset({(0.0, 0.0, 180.0, 90.0), (-180.0, -90.0, 180.0, 90.0)})
"""Boxes that some programs write into the header where they know none."""


@dataclass(frozen=True)
class ExtractHeader:
    """What an extract says about itself."""

    bbox: Bounds | None
    """(west, south, east, north) in degrees, None where the header states no box of use."""
    timestamp: str | None
    """Time of the data (replication timestamp), ISO 8601."""
    generator: str | None


@dataclass(frozen=True)
class ExtractSummary:
    """A staged extract: what `extract.json` holds."""

    file: str
    bbox: Bounds
    header_bbox: Bounds | None
    timestamp: str | None
    generator: str | None
    sha256: str
    size_bytes: int


def read_header(path: Path) -> ExtractHeader:
    """The header of an extract (PBF, or XML: plain, bzip2 or gzip), without reading its objects.

    Raises:
        MissingInputError: the file does not exist.
        CorruptInputError: it is not an OSM file of the kind its name says, or holds the history of objects.
    """
    if not path.is_file():
        raise MissingInputError(f"{path} does not exist or is not a file")
    try:
        with osmium.io.Reader(path, osmium.osm.NOTHING) as reader:
            header = reader.header()
    except RuntimeError as error:
        raise CorruptInputError(f"{path} is no OSM extract ({error}); get the extract again") from error
    if header.has_multiple_object_versions:
        raise CorruptInputError(f"{path} holds several versions of objects; give an extract without history")
    timestamp = header.get("osmosis_replication_timestamp") or header.get("timestamp")
    return ExtractHeader(_usable_box(header.box()), timestamp or None, header.get("generator") or None)


def extract_stamp(region: Region, settings: Settings) -> str | None:
    """A short text that changes when a local extract does, None where there is no local file.

    Of large files only the size and the first and last 8 MiB count: another state of a PBF differs there, as its header
    holds the time of the data and its blocks change their sizes.
    """
    try:
        path = _local_file("", region, settings)
        if path is None:
            return None
        size = path.stat().st_size
        with path.open("rb") as file:
            if size <= STAMPED_WHOLE_BYTES:
                data = file.read()
            else:
                data = file.read(STAMPED_WHOLE_BYTES // 2)
                file.seek(-STAMPED_WHOLE_BYTES // 2, 2)
                data += file.read()
    except (OSError, MissingInputError):
        return None
    return f"{size}-{hashlib.sha256(data).hexdigest()}"


def stage_extract(
    key: str, region: Region, settings: Settings, out: Path, progress: Progress = silent
) -> ExtractSummary:
    """Bring a region's extract into `out` as `extract{suffix}` and write `extract.json`.

    Files are copied, so that the staged extract stays what it was when the original is overwritten. A download that was
    cut continues when the function is called again with the same `out`.

    Args:
        key: The region's key, for messages.
        region: Where the extract comes from, its digest, the ground wanted.
        settings: The profile; relative paths start at its folder.
        out: Existing folder.
        progress: Told the bytes downloaded or copied.

    Raises:
        MissingInputError: the file, package or address is not there.
        DigestMismatchError: the file is not the one the settings promise.
        CorruptInputError: the file is empty, truncated or of another format.
        SettingsError: the name's ending is not known, or neither settings nor header state a box.
        NotCoveredError: the box of the settings and that of the header share no ground.
        NoSpaceError: the disk has no room for it.
    """
    source = _local_file(key, region, settings)
    if source is not None:
        origin = str(source)
        target = out / f"extract{_suffix(key, source.name)}"
        _copy(key, source, target, progress)
    else:
        origin = str(region.url)
        target = out / f"extract{_suffix(key, urlsplit(origin).path)}"
        # It has its name only when it is whole: a run that was killed while it was examined left it here.
        if not target.exists():
            download(origin, target, progress)
    try:
        summary = _examine(key, region, origin, target)
    except SkyScriptError:
        target.unlink()
        raise
    facts = {name: list(value) if isinstance(value, tuple) else value for name, value in vars(summary).items()}
    (out / "extract.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return summary


def _suffix(key: str, name: str) -> str:
    for ending, suffix in SUFFIXES.items():
        if name.lower().endswith(ending):
            return suffix
    raise SettingsError(f"regions.yaml: regions.{key}: {name} is none of {', '.join(SUFFIXES)}")


def _local_file(key: str, region: Region, settings: Settings) -> Path | None:
    """Where the extract lies on this machine, None where it is to be downloaded."""
    if region.package is not None:
        return _package_file(key, region.package)
    return settings.resolve(region.path) if region.path is not None else None


def _package_file(key: str, wanted: PackageFile) -> Path:
    """A file inside an installed package; the package is located and not imported."""
    top, *below = wanted.package.split(".")
    spec = importlib.util.find_spec(top)
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    if not folders:
        raise MissingInputError(
            f"region {key}: the Python package {top} is not installed; "
            "the packages of the demo come with: pip install 'skyscript-assets[demo]'"
        )
    path = Path(folders[0], *below, wanted.file)
    if not path.is_file():
        raise MissingInputError(
            f"region {key}: the installed package {top} has no file {wanted.file}; install the version that carries it"
        )
    return path


def _copy(key: str, source: Path, target: Path, progress: Progress) -> None:
    if not source.is_file():
        raise MissingInputError(
            f"region {key}: {source} does not exist or is not a file; correct regions.{key}.path in regions.yaml"
        )
    total = source.stat().st_size
    free = shutil.disk_usage(target.parent).free
    if total > free:
        raise NoSpaceError(f"{target.parent}: {total} bytes are to be copied from {source}, {free} are free")
    try:
        with source.open("rb") as reader, target.open("wb") as writer:
            done = 0
            while chunk := reader.read(CHUNK_BYTES):
                writer.write(chunk)
                done += len(chunk)
                progress(done, total, "bytes")
    except PermissionError as error:
        raise MissingInputError(f"region {key}: {source} cannot be opened ({error.strerror})") from error


def _examine(key: str, region: Region, origin: str, path: Path) -> ExtractSummary:
    """Check a staged extract from its digest to its ground."""
    size = path.stat().st_size
    if size == 0:
        raise CorruptInputError(f"region {key}: {origin} is empty; get the extract again")
    sha256 = _check_digests(region, origin, path)
    try:
        header = read_header(path)
        with osmium.io.Reader(path) as reader:
            # Every block is decompressed and parsed, and no object leaves osmium.
            osmium.apply(reader, osmium.filter.EntityFilter(osmium.osm.NOTHING))
    except RuntimeError as error:
        raise CorruptInputError(f"region {key}: {origin} is not whole ({error}); get the extract again") from error
    except CorruptInputError as error:
        problem = str(error).replace(str(path), origin)
        raise CorruptInputError(f"region {key}: {problem}") from error
    if next(iter(osmium.FileProcessor(path)), None) is None:
        # A PBF has no mark of its end: cut after its header it looks whole.
        raise CorruptInputError(f"region {key}: {origin} holds no object; get the extract again")
    return ExtractSummary(
        file=path.name,
        bbox=_ground(key, region, header, origin),
        header_bbox=header.bbox,
        timestamp=header.timestamp,
        generator=header.generator,
        sha256=sha256,
        size_bytes=size,
    )


def _check_digests(region: Region, origin: str, path: Path) -> str:
    """SHA-256 of a file, after it and, where the settings name one, the MD5 file have agreed."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if region.sha256 is not None and sha256 != region.sha256:
        raise DigestMismatchError(f"{origin} has sha256 {sha256}, the settings promise {region.sha256}")
    if region.md5_url is not None:
        listing = path.with_name("extract.md5")
        download(region.md5_url, listing)
        promised = listing.read_text(encoding="utf-8", errors="replace").split()[:1]
        listing.unlink()
        with path.open("rb") as file:
            # Publishers of extracts state MD5; it guards against a bad transfer and nothing else.
            md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        if promised != [md5]:
            raise DigestMismatchError(
                f"{origin} has md5 {md5}, {region.md5_url} promises {' '.join(promised) or 'nothing'}"
            )
    return sha256


def _ground(key: str, region: Region, header: ExtractHeader, origin: str) -> Bounds:
    """The box to use: that of the settings, else that of the header."""
    if region.bbox is None:
        if header.bbox is None:
            raise SettingsError(
                f"region {key}: the header of {origin} states no box; "
                f"give regions.{key}.bbox (west, south, east, north) in regions.yaml"
            )
        return header.bbox
    if header.bbox is not None:
        west, south, east, north = header.bbox
        if not region.bbox.intersects(BBox(west=west, south=south, east=east, north=north)):
            raise NotCoveredError(
                f"region {key}: the box {region.bbox.bounds} of regions.yaml shares no ground with {origin}, "
                f"which covers {header.bbox}"
            )
    return region.bbox.bounds


def _usable_box(box: osmium.osm.Box) -> Bounds | None:
    if not box.valid():
        return None
    bounds = (box.bottom_left.lon, box.bottom_left.lat, box.top_right.lon, box.top_right.lat)
    if bounds in _MEANINGLESS_BOXES or bounds[0] >= bounds[2] or bounds[1] >= bounds[3]:
        return None
    return bounds
