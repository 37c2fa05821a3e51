"""A release sent to a bucket: what is there already is not sent again, whoever stopped where."""

from __future__ import annotations

from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from skyscript_assets.lib.errors import DigestMismatchError, StorageError
from skyscript_assets.lib.files import file_sha256, inside
from skyscript_assets.lib.progress import Progress, silent
from skyscript_assets.lib.release.data import SUMS_FILE
from skyscript_assets.lib.storage.remote import ObjectStore

STATE = ".pushed.json"
"""Below the address: SHA-256 of each file that was sent, empty from before it is sent until it is whole."""

_KNOWN = TypeAdapter(dict[str, str])


def read_sums(release: Path) -> dict[str, str]:
    """Digests of a release's files by name.

    Raises:
        StorageError: it has no list of digests.
    """
    try:
        lines = (release / SUMS_FILE).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise StorageError(f"{release} is no release: its {SUMS_FILE} cannot be read ({error})") from error
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def push(release: Path, address: str, progress: Progress = silent) -> int:
    """Make what is at an address the release: files are sent, those of an earlier one that it lacks are removed.

    Each file is noted before it is sent and when all of it is there; so a push that was cut goes on, none takes a file
    for that of another version, and none forgets one. `SHA256SUMS` is sent last.

    Args:
        release: Its folder.
        address: `s3://bucket/folder` and the like.
        progress: Told of files.

    Returns:
        Files that were sent.

    Raises:
        DigestMismatchError: a file is not the one that was released.
        StorageError: the folder is no release, or the store refuses.
        UnreachableError: no answer after every try; the same push goes on later.
    """
    store, sums = ObjectStore(address), read_sums(release)
    there = {item["path"]: item["size"] for item in store.below("")}
    try:
        known = _KNOWN.validate_json(store.read(STATE) if STATE in there else "{}")
    except ValidationError as error:
        raise StorageError(f"{address}/{STATE} cannot be read ({error}): remove it, all is sent again") from error
    sent = 0
    for number, (name, digest) in enumerate(sums.items(), start=1):
        path = inside(release, name)
        size = path.stat().st_size if path.is_file() else -1
        if known.get(name) != digest or there.get(name) != size:
            if size < 0 or file_sha256(path) != digest:
                raise DigestMismatchError(f"{path} is not what {SUMS_FILE} says: skyscript run --force dataset_release")
            store.put(STATE, _KNOWN.dump_json(known | {name: ""}))
            store.put(name, path)
            known[name] = digest
            store.put(STATE, _KNOWN.dump_json(known))
            sent += 1
        progress(number, len(sums), "files")
    if gone := sorted((known.keys() - sums.keys()) & there.keys()):
        store.delete(gone)
    store.put(STATE, _KNOWN.dump_json(sums))
    store.put(SUMS_FILE, release / SUMS_FILE)
    return sent
