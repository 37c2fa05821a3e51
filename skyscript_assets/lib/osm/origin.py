"""Where a region's OSM extract comes from: found on this machine or downloaded, and held against its promises."""

import contextlib
import dataclasses
import hashlib
import importlib.util
import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from skyscript_assets.lib.download import UNKNOWN, Version, download, is_another, read_small
from skyscript_assets.lib.errors import DigestMismatchError, MissingInputError, SettingsError
from skyscript_assets.lib.files import check_room, file_sha256, link_or_copy
from skyscript_assets.lib.osm.polygons import polygon_digest
from skyscript_assets.lib.progress import Progress
from skyscript_assets.lib.secrets import shown, without_secrets
from skyscript_assets.lib.settings.base import Shared
from skyscript_assets.lib.settings.regions import PackageFile, Region

SUFFIXES = {".osm.pbf": ".osm.pbf", ".pbf": ".osm.pbf", ".osm.bz2": ".osm.bz2", ".osm.gz": ".osm.gz", ".osm": ".osm"}
"""Endings of file names that are read, and the suffix that the staged extract gets."""

STAMPED_WHOLE_BYTES = 1 << 24
"""Extracts up to this size are stamped with the digest of all they hold, larger ones with that of their two ends."""

MD5_FILE_BYTES = 4096
"""What is read of an .md5 file: more than a digest and a file name need."""


@dataclass(frozen=True)
class Origin:
    """Where a staged extract came from, and how far it was checked on the way.

    Attributes:
        checksum: The promise that it kept: `sha256` of the settings, a publisher's `md5`, or `none`.
        version: The server's names for this state of a download.
        not_modified: Whether a download was spared because the server still had what the earlier output holds.
    """

    name: str
    sha256: str
    checksum: str
    version: Version = UNKNOWN
    not_modified: bool = False

    def facts(self) -> dict[str, Any]:
        """How the extract was come by, for the record of the output."""
        facts = dataclasses.asdict(self)
        return {"origin": facts.pop("name"), **facts.pop("version"), **facts}


@dataclass(frozen=True)
class Earlier:
    """The output that a staged extract replaces: the counts of its record, and a function that finds its folder."""

    counts: Mapping[str, Any]
    folder: Callable[[], Path | None]

    def version(self, address: str) -> Version:
        """The version that was downloaded from an address, unknown where it came from elsewhere."""
        if self.counts.get("origin") != address:
            return UNKNOWN
        return Version(self.counts.get("etag"), self.counts.get("last_modified"))


def read_of_region(region: Region, shared: Shared) -> dict[str, Any]:
    """Everything outside the store that shapes a region's staged extract, digests of the user's files among it."""
    try:
        source = locate("", region, shared)
    except MissingInputError:
        source = None
    return {
        "region": region.model_dump(mode="json", exclude={"title", "allow_private_hosts"}),
        "file": _stamp(source) if isinstance(source, Path) else None,
        "address": source if isinstance(source, str) else None,
        "polygon": None if region.polygon is None else polygon_digest(shared.resolve(region.polygon)),
    }


def _stamp(path: Path) -> str | None:
    """A short text that changes when an extract does, None where it cannot be read.

    Of large files only the size and the first and last 8 MiB count: another state of a PBF differs there, as its header
    holds the time of the data and its blocks change their sizes.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            data = file.read(STAMPED_WHOLE_BYTES // 2)
            file.seek(max(len(data), size - STAMPED_WHOLE_BYTES // 2))
            data += file.read()
    except OSError:
        return None
    return f"{size}-{hashlib.sha256(data).hexdigest()}"


def locate(key: str, region: Region, shared: Shared) -> Path | str:
    """Where a region's extract is: a path on this machine, or the address that it is downloaded from.

    Raises:
        MissingInputError: a package that should carry it is not installed, or carries it not.
    """
    if region.package is not None:
        return _package_file(key, region.package)
    if region.path is not None:
        return shared.resolve(region.path)
    if region.geofabrik is not None:
        return f"{shared.geofabrik_mirror.rstrip('/')}/{region.geofabrik}-latest.osm.pbf"
    return str(region.url)


def changed_at_server(key: str, region: Region, shared: Shared, staged: Mapping[str, Any]) -> bool | None:
    """Ask a region's server whether it has another extract than the staged one, by the counts of the latter's record.

    Returns and raises what `is_another` does.
    """
    address = str(locate(key, region, shared))
    known = Earlier(staged, Path).version(without_secrets(address))
    return is_another(address, known, staged.get("size_bytes"), region.allow_private_hosts)


def suffix_of(key: str, source: Path | str) -> str:
    """The suffix that the staged extract of a region gets.

    Raises:
        SettingsError: the source's ending is not known.
    """
    name = source.name if isinstance(source, Path) else urlsplit(source).path
    for ending, suffix in SUFFIXES.items():
        if name.lower().endswith(ending):
            return suffix
    raise SettingsError(f"regions.yaml: regions.{key}: {name} is none of {', '.join(SUFFIXES)}")


def version_note(target: Path) -> Path:
    """Where a run notes which version of a download lies under the target's name, for a later one if it is killed."""
    return target.with_name("extract.version.json")


def bring(
    key: str, region: Region, source: Path | str, target: Path, progress: Progress, earlier: Earlier | None
) -> Origin:
    """Copy or download a region's extract to `target`, from where `locate` found it, and check it.

    What the server still has of the region's `earlier` output is taken from there.

    Raises:
        MissingInputError: the file or address is not there.
        DigestMismatchError: the extract is not the one that the settings or its publisher promise.
        CorruptInputError: the address answers with a web page.
        SettingsError: the address is none.
        NoSpaceError: the disk has no room for it.
    """
    if isinstance(source, str):
        return _fetch(region, source, target, progress, earlier)
    _copy(key, source, target, progress)
    return _checked(region, Origin(str(source), file_sha256(target), "none"), target, region.md5_url)


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
    check_room(target.parent, total, f"to be copied from {source}")
    try:
        shutil.copyfile(source, target)
    except PermissionError as error:
        raise MissingInputError(f"region {key}: {source} cannot be opened ({error.strerror})") from error
    progress(total, total, "bytes")


def _fetch(region: Region, address: str, target: Path, progress: Progress, earlier: Earlier | None) -> Origin:
    """Download an extract, or take the earlier one, and check it; what does not match its MD5 is fetched afresh once.

    Between a publisher's new extract and its new .md5 file some time passes, and what was read in between matches
    neither.
    """
    origin = _downloaded(region, address, target, progress, earlier)
    md5_url = region.md5_url
    if md5_url is None and region.sha256 is None:
        split = urlsplit(address)
        md5_url = urlunsplit(split._replace(path=f"{split.path}.md5"))
    try:
        return _checked(region, origin, target, md5_url)
    except DigestMismatchError:
        if md5_url is None:
            raise
    target.unlink()
    version_note(target).unlink(missing_ok=True)
    return _checked(region, _downloaded(region, address, target, progress, None), target, md5_url)


def _downloaded(region: Region, address: str, target: Path, progress: Progress, earlier: Earlier | None) -> Origin:
    """A download or the earlier output's, under the target's name."""
    note = version_note(target)
    name = without_secrets(address)
    if target.exists():
        # It has its name only when it is whole: a run that was killed while it was examined left it here.
        version = Version(**json.loads(note.read_text(encoding="utf-8"))) if note.is_file() else UNKNOWN
        return Origin(name, file_sha256(target), "none", version)
    known = UNKNOWN if earlier is None else earlier.version(name)
    found = download(address, target, progress, known=known, allowed=region.allow_private_hosts)
    if found is None and earlier is not None:
        if (folder := earlier.folder()) is not None:
            with contextlib.suppress(FileNotFoundError):
                link_or_copy(folder / target.name, target)
        sha256 = file_sha256(target) if target.exists() else None
        if sha256 == earlier.counts.get("sha256"):
            return Origin(name, str(sha256), "none", known, not_modified=True)
        # Something has happened to the earlier output: it is no longer what was downloaded.
        target.unlink(missing_ok=True)
        found = download(address, target, progress, allowed=region.allow_private_hosts)
    version = found or UNKNOWN
    note.write_text(json.dumps(dataclasses.asdict(version)), encoding="utf-8")
    return Origin(name, file_sha256(target), "none", version)


def _checked(region: Region, origin: Origin, path: Path, md5_url: str | None) -> Origin:
    """The origin with the promise that the file has kept; DigestMismatchError where it has broken one."""
    checksum = "none"
    promised = _promised_md5(md5_url, region) if md5_url is not None else None
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


def _promised_md5(md5_url: str, region: Region) -> str | None:
    """The digest that an .md5 file states; None where the region states no such file and there is none."""
    required = region.md5_url is not None
    data = read_small(md5_url, MD5_FILE_BYTES, region.allow_private_hosts)
    if data is None and required:
        raise MissingInputError(f"{shown(md5_url)} does not exist; correct md5_url in regions.yaml, or take it out")
    stated = re.match(rb"[0-9a-fA-F]{32}(?=\s|$)", (data or b"").strip())
    if stated is None:
        return "" if required else None
    return stated[0].decode().lower()
