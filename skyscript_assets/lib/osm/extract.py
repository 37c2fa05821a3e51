"""A region's OSM extract: found or downloaded, checked to be whole, and staged with the facts of its header.

Which ground a region covers is settled here, once: the polygon or box of the settings, else the box in the extract's
header.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import osmium
import shapely

from skyscript_assets.lib.errors import (
    CorruptInputError,
    DigestMismatchError,
    MissingInputError,
    NoSpaceError,
    NotCoveredError,
    RefusedError,
    SettingsError,
)
from skyscript_assets.lib.files import file_sha256, write_text
from skyscript_assets.lib.geometry import Bounds
from skyscript_assets.lib.osm.download import UNKNOWN, Version, download, read_small
from skyscript_assets.lib.osm.pbf.file import SORTED, PbfFile
from skyscript_assets.lib.osm.polygons import polygon_json, read_polygon
from skyscript_assets.lib.progress import Progress, silent
from skyscript_assets.lib.secrets import shown, without_secrets
from skyscript_assets.lib.settings.load import Settings
from skyscript_assets.lib.settings.regions import PackageFile, Region

SUFFIXES = {".osm.pbf": ".osm.pbf", ".pbf": ".osm.pbf", ".osm.bz2": ".osm.bz2", ".osm.gz": ".osm.gz", ".osm": ".osm"}
"""Endings of file names that are read, and the suffix that the staged extract gets."""

CHUNK_BYTES = 1 << 20

STAMPED_WHOLE_BYTES = 1 << 24
"""Extracts up to this size are stamped with the digest of all they hold, larger ones with that of their two ends."""

MD5_FILE_BYTES = 4096
"""What is read of an .md5 file: more than a digest and a file name need."""

_MEANINGLESS_BOXES = frozenset({(0.0, 0.0, 180.0, 90.0), (-180.0, -90.0, 180.0, 90.0)})
"""Boxes that some programs write into the header where they know none."""


@dataclass(frozen=True)
class ExtractHeader:
    """What an extract says about itself."""

    bbox: Bounds | None = None
    """(west, south, east, north) in degrees, None where the header states no box of use."""
    timestamp: str | None = None
    """Time of the data (replication timestamp), ISO 8601."""
    replication_url: str | None = None
    """Where the changes since then are published."""
    replication_sequence: int | None = None
    """Number of the last change that the data holds."""
    generator: str | None = None
    required_features: tuple[str, ...] = ()
    """Features of a PBF that its readers must know."""
    optional_features: tuple[str, ...] = ()
    """Features of a PBF that its readers may pass over."""

    @property
    def sorted(self) -> bool:
        """Whether the header promises nodes first, then ways, then relations, each by id."""
        return SORTED in self.optional_features


@dataclass(frozen=True)
class Origin:
    """Where a staged extract came from, and how far it was checked on the way.

    Attributes:
        name: Path or address.
        sha256: Digest of the extract.
        checksum: The promise that it kept: `sha256` of the settings, a publisher's `md5`, or `none`.
        version: The server's names for this state of a download.
        not_modified: Whether a download was spared because the server still had what the earlier output holds.
    """

    name: str
    sha256: str
    checksum: str
    version: Version = UNKNOWN
    not_modified: bool = False


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
    polygon: shapely.Polygon | shapely.MultiPolygon | None
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


@dataclass(frozen=True)
class Earlier:
    """The output that a staged extract replaces: the counts of its manifest, and a function that finds its folder."""

    counts: Mapping[str, Any]
    folder: Callable[[], Path]

    def version(self, address: str) -> Version:
        """The version that was downloaded from an address, unknown where it came from elsewhere."""
        if self.counts.get("origin") != address:
            return UNKNOWN
        return Version(self.counts.get("etag"), self.counts.get("last_modified"))


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
    # osmium tells nothing of a PBF's features, and takes up to three odd bytes for its end.
    pbf = PbfFile(path) if path.suffix == ".pbf" else None
    sequence = header.get("osmosis_replication_sequence_number")
    return ExtractHeader(
        bbox=_usable_box(header.box()),
        timestamp=header.get("osmosis_replication_timestamp") or header.get("timestamp") or None,
        replication_url=header.get("osmosis_replication_base_url") or None,
        replication_sequence=int(sequence) if sequence.isdecimal() else None,
        generator=header.get("generator") or None,
        required_features=pbf.required if pbf else (),
        optional_features=pbf.optional if pbf else (),
    )


def read_of_region(region: Region, settings: Settings) -> dict[str, Any]:
    """Everything outside the store that shapes a region's staged extract, digests of the user's files among it."""
    try:
        polygon = file_sha256(settings.resolve(region.polygon)) if region.polygon is not None else None
    except OSError:
        polygon = None
    return {
        "region": region.model_dump(mode="json", exclude={"title"}),
        "file": extract_stamp(region, settings),
        "address": _address(region, settings),
        "polygon": polygon,
    }


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
        MissingInputError: the file or package is not there, or the polygon is not.
        RefusedError: the server has no such file, or does not give it.
        UnreachableError: the server or the network failed on every try.
        DigestMismatchError: the file is not the one that the settings or its publisher promise.
        CorruptInputError: the file is empty, truncated or of another format, or the polygon is.
        SettingsError: the name's ending is not known, or neither settings nor header state a box.
        NotCoveredError: the ground of the settings and the box of the header share nothing.
        NoSpaceError: the disk has no room for it.
    """
    polygon = read_polygon(settings.resolve(region.polygon)) if region.polygon is not None else None
    source = _local_file(key, region, settings)
    name = str(source or _address(region, settings))
    target = out / f"extract{_suffix(key, source.name if source is not None else urlsplit(name).path)}"
    note = out / "extract.version.json"
    try:
        if source is not None:
            _copy(key, source, target, progress)
            origin = _checked(region, Origin(name, file_sha256(target), "none"), target, region.md5_url)
        else:
            origin = _fetch(region, name, target, note, progress, earlier)
        summary = _examine(key, region, polygon, origin, target)
    except RefusedError:  # of the .md5 file: what was downloaded is kept
        raise
    except (DigestMismatchError, CorruptInputError, NotCoveredError, SettingsError):
        target.unlink(missing_ok=True)
        note.unlink(missing_ok=True)
        raise
    write_text(out / "extract.json", json.dumps(summary.facts(), indent=2) + "\n")
    note.unlink(missing_ok=True)
    return summary


# ---------------------------------------------------------------------------------------------------------- where it is


def _suffix(key: str, name: str) -> str:
    for ending, suffix in SUFFIXES.items():
        if name.lower().endswith(ending):
            return suffix
    raise SettingsError(f"regions.yaml: regions.{key}: {name} is none of {', '.join(SUFFIXES)}")


def _address(region: Region, settings: Settings) -> str | None:
    """Where the extract is downloaded, None where it lies on this machine."""
    if region.geofabrik is not None:
        return f"{settings.geofabrik_mirror.rstrip('/')}/{region.geofabrik}-latest.osm.pbf"
    return region.url


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


# ------------------------------------------------------------------------------------------------- downloads, checksums


def _fetch(
    region: Region, address: str, target: Path, note: Path, progress: Progress, earlier: Earlier | None
) -> Origin:
    """Download an extract, or take the earlier one, and check it; what does not match its MD5 is fetched afresh once.

    Between a publisher's new extract and its new .md5 file some time passes, and what was read in between matches
    neither.
    """
    origin = _brought(address, target, note, progress, earlier)
    md5_url = region.md5_url
    if md5_url is None and region.sha256 is None:
        md5_url = _beside(address)
    try:
        return _checked(region, origin, target, md5_url)
    except DigestMismatchError:
        if md5_url is None:
            raise
    target.unlink()
    note.unlink(missing_ok=True)
    return _checked(region, _brought(address, target, note, progress, None), target, md5_url)


def _brought(address: str, target: Path, note: Path, progress: Progress, earlier: Earlier | None) -> Origin:
    """A download or the earlier output's, under the target's name."""
    name = without_secrets(address)
    if target.exists():
        # It has its name only when it is whole: a run that was killed while it was examined left it here.
        version = Version(**json.loads(note.read_text(encoding="utf-8"))) if note.is_file() else UNKNOWN
        return Origin(name, file_sha256(target), "none", version)
    known = UNKNOWN if earlier is None else earlier.version(name)
    found = download(address, target, progress, known=known)
    if found is None and earlier is not None:
        _link(earlier.folder() / target.name, target)
        sha256 = file_sha256(target) if target.exists() else None
        if sha256 == earlier.counts.get("sha256"):
            return Origin(name, str(sha256), "none", known, not_modified=True)
        # Something has happened to the earlier output: it is no longer what was downloaded.
        target.unlink(missing_ok=True)
        found = download(address, target, progress)
    version = found or UNKNOWN
    note.write_text(json.dumps(dataclasses.asdict(version)), encoding="utf-8")
    return Origin(name, file_sha256(target), "none", version)


def _link(source: Path, target: Path) -> None:
    """Give a file a second name; copy it where the file system has no hard links. Nothing where it is missing."""
    try:
        os.link(source, target)
    except FileNotFoundError:
        return
    except OSError:
        shutil.copyfile(source, target)


def _beside(address: str) -> str:
    """Address of the .md5 file beside a download."""
    parts = urlsplit(address)
    return urlunsplit(parts._replace(path=f"{parts.path}.md5"))


def _checked(region: Region, origin: Origin, path: Path, md5_url: str | None) -> Origin:
    """The origin with the promise that the file has kept.

    Raises:
        DigestMismatchError: it has broken one.
    """
    checksum = "none"
    promised = _promised_md5(md5_url, required=region.md5_url is not None) if md5_url is not None else None
    if promised is not None:
        with path.open("rb") as file:
            # Publishers of extracts state MD5; it guards against a bad transfer and nothing else.
            md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        if promised != md5:
            raise DigestMismatchError(
                f"{origin.name} has md5 {md5}, {shown(str(md5_url))} promises {promised or 'nothing'}; run again "
                "later: a new extract may just be published"
            )
        checksum = "md5"
    if region.sha256 is not None:
        if origin.sha256 != region.sha256:
            raise DigestMismatchError(
                f"{origin.name} has sha256 {origin.sha256}, the settings promise {region.sha256}; get the extract "
                "again, or correct sha256 in regions.yaml"
            )
        checksum = "sha256"
    return dataclasses.replace(origin, checksum=checksum)


def _promised_md5(md5_url: str, *, required: bool) -> str | None:
    """The digest that an .md5 file states; None where it is not required and there is none."""
    data = read_small(md5_url, MD5_FILE_BYTES)
    if data is None and required:
        raise MissingInputError(f"{shown(md5_url)} does not exist; correct md5_url in regions.yaml, or take it out")
    stated = re.match(rb"[0-9a-fA-F]{32}(?=\s|$)", (data or b"").strip())
    if stated is None:
        return "" if required else None
    return stated[0].decode().lower()


# ------------------------------------------------------------------------------------------------- wholeness and ground


def _examine(
    key: str, region: Region, polygon: shapely.Polygon | shapely.MultiPolygon | None, origin: Origin, path: Path
) -> ExtractSummary:
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
    bbox = _ground(key, region, polygon, header, origin.name)
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


def _ground(
    key: str,
    region: Region,
    polygon: shapely.Polygon | shapely.MultiPolygon | None,
    header: ExtractHeader,
    origin: str,
) -> Bounds:
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


def _usable_box(box: osmium.osm.Box) -> Bounds | None:
    if not box.valid():
        return None
    bounds = (box.bottom_left.lon, box.bottom_left.lat, box.top_right.lon, box.top_right.lat)
    if bounds in _MEANINGLESS_BOXES or bounds[0] >= bounds[2] or bounds[1] >= bounds[3]:
        return None
    return bounds
