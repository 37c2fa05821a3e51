"""Files and archives that others publish, kept on this machine: fetched once, their digest noted, unpacked with care.

Publishers of benchmarks and weights state no digests. So the first one seen is noted, and what comes later is held
against it. How a download is continued belongs to `lib.download`.
"""

import fcntl
import json
import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from skyscript_assets.lib.download import download
from skyscript_assets.lib.errors import CorruptInputError, DigestMismatchError, SettingsError
from skyscript_assets.lib.files import check_room, file_sha256, is_name, write_json
from skyscript_assets.lib.progress import Progress, silent
from skyscript_assets.lib.secrets import shown, without_secrets

MOST_UNPACKED = 100
"""Bytes that a byte of an archive may unpack into; images and weights are hardly compressed."""


def fetch(url: str, root: Path, sha256: str | None = None, progress: Progress = silent) -> Path:
    """A published file below `root`, or the folder that a `.zip` is unpacked into; fetched where it is not there.

    What was cut continues. Beside it lies `{name}.seen.json` with the digest at first sight, against which what comes
    later is held, unless the settings promise one. A folder that was put there by hand is taken as it is.

    Raises:
        SettingsError: the address ends with no file's name.
        DigestMismatchError: it is not what the settings promise, or what was seen first.
        SkyScriptError: what `download` and `unpack` raise.
    """
    name = PurePosixPath(unquote(urlsplit(url).path)).name
    if not is_name(name):
        raise SettingsError(f"{shown(url)}: the address must end with the name of a file")
    packed, place = root / name, root / name.removesuffix(".zip")
    root.mkdir(parents=True, exist_ok=True)
    with (root / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # until the file is closed: two processes would write into one part
        unpacked = packed != place and place.exists()
        if not unpacked and not packed.is_file():
            download(url, packed, progress)
        _hold(url, packed, None if unpacked else file_sha256(packed), sha256)
        if packed != place:
            if not unpacked:
                unpack(packed, place)
            packed.unlink(missing_ok=True)
    return place


def _hold(url: str, path: Path, found: str | None, promised: str | None) -> None:
    """Hold a digest (None: the noted one) against the promised one or that of first sight; note the first one."""
    note = path.with_name(f"{path.name}.seen.json")
    seen = json.loads(note.read_text(encoding="utf-8"))["sha256"] if note.is_file() else None
    found, expected = found or seen, promised or seen
    if None not in (found, expected) and found != expected:
        whose = "the settings promise" if promised else f"at first sight ({note.name}) it was"
        raise DigestMismatchError(
            f"{path}: what {shown(url)} gave has sha256 {found}, {whose} {expected}: remove the file to fetch it "
            f"again, or {'correct the digest' if promised else 'remove the note'} where its publisher has changed it"
        )
    if found is not None and seen is None:
        write_json(note, {"url": without_secrets(url), "sha256": found, "size_bytes": path.stat().st_size})


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip archive into a new folder, whole or not at all; a single top folder of the same name is that folder.

    Raises:
        CorruptInputError: it is no whole zip archive, a member leads out of the folder or is a link, or they unpack
            into far more bytes than the archive has.
        NoSpaceError: the disk has less room than its members need.
    """
    scratch = folder.with_name(f".{folder.name}.unpacking")
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        with zipfile.ZipFile(archive) as packed:
            members = [member for member in packed.infolist() if not member.filename.startswith("__MACOSX/")]
            _check_members(archive, members)
            packed.extractall(scratch, members)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, UnicodeDecodeError) as error:
        raise CorruptInputError(f"{archive} is no whole zip archive ({error}); remove it to fetch it again") from None
    inner = scratch / folder.name
    alone = inner.is_dir() and len(list(scratch.iterdir())) == 1
    (inner if alone else scratch).rename(folder)
    shutil.rmtree(scratch, ignore_errors=True)


def _check_members(archive: Path, members: list[zipfile.ZipInfo]) -> None:
    for member in members:
        # zipfile would mend such names in silence; what needs mending is no archive of images.
        name = member.orig_filename
        if ".." in name.split("/") or name.startswith("/") or "\\" in name or stat.S_ISLNK(member.external_attr >> 16):
            raise CorruptInputError(f"{archive}: its member {name[:200]!r} leads out of its folder; it is not unpacked")
    total, size = sum(member.file_size for member in members), archive.stat().st_size
    if not members or total > MOST_UNPACKED * size:
        raise CorruptInputError(f"{archive}: its {size} bytes would unpack into {total}; it is not unpacked")
    check_room(archive.parent, total, "to be unpacked")
