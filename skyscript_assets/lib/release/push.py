"""A release sent to a bucket: what is there already is not sent again, whoever stopped where."""

from __future__ import annotations

from pathlib import Path

from skyscript_assets.lib.errors import DigestMismatchError, StorageError
from skyscript_assets.lib.files import file_sha256, inside
from skyscript_assets.lib.progress import Progress, silent
from skyscript_assets.lib.release.write import SUMS_FILE
from skyscript_assets.lib.storage.remote import ObjectStore

MARKS = ".pushed"
"""Below the address an object without content for each file: `{SHA-256}/{name}`, until it is whole `sending/{name}`."""


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

    Each file is marked, before it is sent and when all of it is there; so a push that was cut goes on, none takes a
    file for that of another version, and none forgets one. `SHA256SUMS` is sent last.

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
    marked: dict[str, set[str]] = {}
    for mark in there:
        if mark.startswith(f"{MARKS}/"):
            marked.setdefault(mark.split("/", 2)[2], set()).add(mark)
    sent = 0
    for number, (name, digest) in enumerate(sums.items(), start=1):
        path, whole, sending = inside(release, name), f"{MARKS}/{digest}/{name}", f"{MARKS}/sending/{name}"
        earlier, size = marked.get(name, set()), path.stat().st_size if path.is_file() else -1
        if earlier != {whole} or there.get(name) != size:
            if size < 0 or file_sha256(path) != digest:
                raise DigestMismatchError(f"{path} is not what {SUMS_FILE} says: skyscript run --force dataset_release")
            store.put(sending, b"")
            if earlier - {sending}:
                store.delete(sorted(earlier - {sending}))
            store.put(name, path)
            store.put(whole, b"")
            store.delete([sending])
            sent += 1
        progress(number, len(sums), "files")
    for name in marked.keys() - sums.keys():
        if name in there:
            store.delete([name])
        store.delete(sorted(marked[name]))
    store.put(SUMS_FILE, release / SUMS_FILE)
    return sent
