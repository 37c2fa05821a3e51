"""A release sent to a bucket or to a Hugging Face hub: what is there already is not sent again, whoever stopped where.

A hub keeps what was sent of large files, by digest, until a commit names it: a release appears there at one stroke.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from skyscript_assets.lib.errors import DigestMismatchError, StorageError, UnreachableError
from skyscript_assets.lib.files import file_sha256, inside
from skyscript_assets.lib.progress import Progress, silent
from skyscript_assets.lib.release.data import SUMS_FILE
from skyscript_assets.lib.secrets import told
from skyscript_assets.lib.storage.remote import ObjectStore

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

STATE = ".pushed.json"
"""Below the address: SHA-256 of each file that was sent, empty from before it is sent until it is whole."""

HUB = "hf://datasets/"
"""How the address of a data set of a hub begins; ORG/NAME follows."""

_KNOWN = TypeAdapter(dict[str, str])
_AGAIN = "the same push goes on later where it stopped"


def read_sums(release: Path) -> dict[str, str]:
    """Digests of a release's files by name.

    Raises:
        StorageError: it has no list of digests.
    """
    try:
        lines = (release / SUMS_FILE).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise StorageError(f"{release} is no release: its {SUMS_FILE} cannot be read ({error})") from error
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def push(release: Path, address: str, progress: Progress = silent) -> int:
    """Make what is at an address the release; files that were sent. Those of an earlier one that it lacks are removed.

    The address is `s3://bucket/folder` and the like, or `hf://datasets/ORG/NAME`.

    Raises:
        DigestMismatchError: a file is not the one that was released.
        StorageError: the folder is no release, or the store or hub refuses.
        UnreachableError: no answer after every try; the same push goes on later.
    """
    if address.startswith("hf://"):
        with _explaining(address):
            return _to_hub(release, address.removeprefix(HUB), progress)
    return _to_bucket(release, ObjectStore(address), progress)


def _checked(path: Path, digest: str) -> Path:
    if not path.is_file() or file_sha256(path) != digest:
        raise DigestMismatchError(f"{path} is not what {SUMS_FILE} says: skyscript run --force dataset_release")
    return path


def _to_bucket(release: Path, store: ObjectStore, progress: Progress) -> int:
    """Each file is noted before it is sent and when all of it is there; `SHA256SUMS` is sent last.

    So a push that was cut goes on, none takes a file for that of another version, and none forgets one.
    """
    sums, sent = read_sums(release), 0
    there = {item["path"]: item["size"] for item in store.below("")}
    try:
        known = _KNOWN.validate_json(store.read(STATE) if STATE in there else "{}")
    except ValidationError as error:
        raise StorageError(f"{STATE} at the address cannot be read ({error}): remove it, all is sent again") from error
    for number, (name, digest) in enumerate(sums.items(), start=1):
        path = inside(release, name)
        if known.get(name) != digest or not path.is_file() or there.get(name) != path.stat().st_size:
            _checked(path, digest)
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


def _to_hub(release: Path, name: str, progress: Progress) -> int:
    """Files are sent one by one, and named by one commit, which fails where another one came between."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
    from huggingface_hub.hf_api import RepoFile
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    # Else each try is told with its address, which is signed.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    hub, sums = HfApi(library_name="skyscript-assets"), read_sums(release)
    hub.create_repo(name, repo_type="dataset", exist_ok=True)
    parent = hub.repo_info(name, repo_type="dataset").sha
    listed = hub.list_repo_tree(name, recursive=True, revision=parent, repo_type="dataset")
    there = {each.path: each for each in listed if isinstance(each, RepoFile)}
    gone = _earlier(hub, name, parent).keys() - sums.keys() if SUMS_FILE in there else set[str]()
    sums[SUMS_FILE] = file_sha256(release / SUMS_FILE)
    added = []
    for number, (file, digest) in enumerate(sums.items(), start=1):
        path = _checked(inside(release, file), digest)
        if file not in there or not _is_held(path, digest, there[file]):
            added.append(CommitOperationAdd(file, path))
            hub.preupload_lfs_files(name, added[-1:], repo_type="dataset")
        progress(number, len(sums), "files")
    removed = [CommitOperationDelete(file) for file in sorted(gone & there.keys())]
    if added or removed:
        message = f"{len(added)} files added, {len(removed)} removed"
        hub.create_commit(name, [*added, *removed], commit_message=message, repo_type="dataset", parent_commit=parent)
    return len(added)


def _earlier(hub: HfApi, name: str, revision: str | None) -> dict[str, str]:
    """Digests of the release that the hub has."""
    with tempfile.TemporaryDirectory() as folder:
        hub.hf_hub_download(name, SUMS_FILE, repo_type="dataset", revision=revision, local_dir=folder)
        try:
            return read_sums(Path(folder))
        except StorageError as error:
            raise StorageError(f"{HUB}{name}: its {SUMS_FILE} is none; remove it there, and push again") from error


def _is_held(path: Path, digest: str, held: RepoFile) -> bool:
    """Whether the hub has a file: it knows large ones by SHA-256, others as git does."""
    from huggingface_hub.utils.sha import git_hash

    if held.lfs is not None:
        return held.lfs.sha256 == digest
    return held.size == path.stat().st_size and held.blob_id == git_hash(path.read_bytes())


@contextmanager
def _explaining(address: str) -> Iterator[None]:
    """Tells what a hub refuses."""
    from huggingface_hub.errors import HfHubHTTPError

    # Its bases are those of the HTTP library that it uses.
    faults: tuple[type[BaseException], ...] = (*HfHubHTTPError.__bases__, RuntimeError, ValueError)
    try:
        yield
    except faults as error:
        answer = next((each for each in (error, error.__cause__) if isinstance(each, HfHubHTTPError)), None)
        if answer is None:
            reason = f"{address}: {type(error).__name__}: {told(str(error), 300)}"
            if isinstance(error, ValueError):
                raise StorageError(f"{reason}; an address is {HUB}ORG/NAME") from error
            raise UnreachableError(f"{reason}; {_AGAIN}") from error
        status = HTTPStatus(answer.response.status_code)
        reason = (
            f"{address}: the hub answers {status.value} {told(answer.server_message or status.phrase, 300).rstrip('.')}"
        )
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            raise StorageError(f"{reason}: give a token that may write there (HF_TOKEN, or hf auth login)") from error
        if status in (HTTPStatus.CONFLICT, HTTPStatus.PRECONDITION_FAILED):
            raise StorageError(f"{reason}: somebody else has changed it meanwhile; push again") from error
        if status < HTTPStatus.INTERNAL_SERVER_ERROR and status != HTTPStatus.TOO_MANY_REQUESTS:
            raise StorageError(reason) from error
        raise UnreachableError(f"{reason}; {_AGAIN}") from error
