"""Files and archives that others publish, kept on this machine: fetched once, their digest noted, unpacked with care.

Publishers of benchmarks and weights state no digests. So the first one seen is noted, and what comes later is held
against it. How a download is continued belongs to `lib.download`.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from skyscript_assets.lib.download import download
from skyscript_assets.lib.errors import CorruptInputError, DigestMismatchError, NoSpaceError, SettingsError
from skyscript_assets.lib.files import file_sha256, is_name, write_json
from skyscript_assets.lib.progress import Progress, silent
from skyscript_assets.lib.secrets import shown, without_secrets

MOST_UNPACKED = 100
"""Bytes that a byte of an archive may unpack into; images and weights are hardly compressed."""

ENCRYPTED = 0x1
"""Flag of a member of a zip file (APPNOTE.TXT, 4.4.4)."""


def place_of(url: str, root: Path) -> Path:
    """Where `fetch` puts what an address names: the file, or of a `.zip` the folder that it is unpacked into.

    Raises:
        SettingsError: the address ends with no name that a file may have.
    """
    name = PurePosixPath(unquote(urlsplit(url).path)).name
    if not is_name(name):
        raise SettingsError(f"{shown(url)}: the address must end with the name of a file")
    return root / name.removesuffix(".zip")


def fetch(url: str, root: Path, sha256: str | None = None, progress: Progress = silent) -> Path:
    """A published file below a folder, a zip archive unpacked; fetched where it is not there, continued where cut.

    Beside it lies `{name}.seen.json`: address, size, and the digest at first sight, against which what comes later is
    held. What was put there by hand is taken as it is.

    Args:
        url: Address, http or https.
        root: The folder; made where it is not there.
        sha256: Digest that the settings promise of the file or archive.
        progress: Told the bytes that are there, and their total.

    Raises:
        SettingsError: the address ends with no file's name.
        RefusedError: the server refuses.
        UnreachableError: every try failed; what came stays for a later call.
        DigestMismatchError: it is not what the settings promise, or what was seen first.
        CorruptInputError: it is no archive, is broken, or its members would lead out of the folder.
        NoSpaceError: the disk has no room for it.
    """
    place = place_of(url, root)
    packed = root / PurePosixPath(unquote(urlsplit(url).path)).name
    root.mkdir(parents=True, exist_ok=True)
    with (root / f".{packed.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # until the file is closed: two processes would write into one part
        if place.exists() and packed != place:
            _hold(url, packed, _seen(packed).get("sha256"), sha256)
            packed.unlink(missing_ok=True)  # a killed run may have left it
            return place
        if not packed.is_file():
            download(url, packed, progress)
        _hold(url, packed, file_sha256(packed), sha256)
        if packed != place:
            unpack(packed, place)
            packed.unlink()
    return place


def _seen(path: Path) -> dict[str, str]:
    try:
        return dict(json.loads(path.with_name(f"{path.name}.seen.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def _hold(url: str, path: Path, found: str | None, promised: str | None) -> None:
    """Hold a digest against the promised one, else against that of first sight; note it where there is none."""
    note = path.with_name(f"{path.name}.seen.json")
    seen = _seen(path)
    expected = promised or seen.get("sha256")
    if found is not None and expected is not None and found != expected:
        whose = "the settings promise" if promised else f"at first sight ({note.name}) it was"
        remedy = "correct the digest" if promised else "remove the note"
        raise DigestMismatchError(
            f"{path}: what {shown(url)} gave has sha256 {found}, {whose} {expected}: remove the file to fetch it "
            f"again, or {remedy} where its publisher has changed it on purpose"
        )
    if found is not None and not seen:
        write_json(note, {"url": without_secrets(url), "sha256": found, "size_bytes": path.stat().st_size})


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip archive into a new folder, whole or not at all; a single top folder of the same name is that folder.

    Args:
        archive: The archive.
        folder: Must not be there yet; its parent must.

    Raises:
        CorruptInputError: it is no whole zip archive, a member leads out of the folder, is a link, is encrypted or
            comes twice, or they unpack into far more bytes than the archive has.
        NoSpaceError: the disk has less room than its members need.
    """
    scratch = folder.with_name(f".{folder.name}.unpacking")
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        with zipfile.ZipFile(archive) as packed:
            members = [member for member in packed.infolist() if not member.filename.startswith("__MACOSX/")]
            _check_members(archive, members)
            for member in members:
                packed.extract(member, scratch)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, UnicodeDecodeError) as error:
        raise CorruptInputError(f"{archive} is no whole zip archive ({error}); remove it to fetch it again") from None
    below = list(scratch.iterdir()) if scratch.is_dir() else []
    inner = below[0] if [path.name for path in below] == [folder.name] and below[0].is_dir() else scratch
    inner.rename(folder)
    shutil.rmtree(scratch, ignore_errors=True)


def _check_members(archive: Path, members: list[zipfile.ZipInfo]) -> None:
    problem, names = "", set()
    for member in members:
        # zipfile would mend such names in silence; what needs mending is no archive of images.
        if ".." in member.filename.split("/") or member.filename.startswith("/") or "\\" in member.orig_filename:
            problem = "leads out of its folder"
        elif stat.S_ISLNK(member.external_attr >> 16):
            problem = "is a link"
        elif member.flag_bits & ENCRYPTED:
            problem = "is encrypted"
        elif member.filename in names:
            problem = "comes twice"
        if problem:
            raise CorruptInputError(f"{archive}: its member {member.filename[:200]!r} {problem}; it is not unpacked")
        names.add(member.filename)
    total, size = sum(member.file_size for member in members), archive.stat().st_size
    if not names or total > MOST_UNPACKED * size:
        raise CorruptInputError(f"{archive}: its {size} bytes would unpack into {total}; it is not unpacked")
    free = shutil.disk_usage(archive.parent).free
    if total > free:
        raise NoSpaceError(f"{archive.parent}: {total} bytes are to be unpacked, {free} are free; free some, run again")
