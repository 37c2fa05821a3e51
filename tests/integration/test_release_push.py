"""A release sent to a bucket through a proxy that refuses, cut at any request, and replaced by the next one."""

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.faulty_server import BUCKET, CREDENTIALS, Faults, before, object_store
from skyscript_assets.lib.errors import DigestMismatchError, StorageError
from skyscript_assets.lib.release.data import SUMS_FILE
from skyscript_assets.lib.release.push import STATE, push
from skyscript_assets.lib.release.write import write_sums
from skyscript_assets.lib.storage.remote import ObjectStore

pytestmark = pytest.mark.integration
ADDRESS = f"s3://{BUCKET}/roofs"


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    pytest.importorskip("moto.server")
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with object_store() as port:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        yield port


def release(folder: Path, **files: str) -> Path:
    (folder / "data").mkdir(parents=True)
    for name, text in files.items():
        (folder / "data" / name).write_text(text)
    write_sums(folder)
    return folder


def there(store: ObjectStore) -> dict[str, bytes]:
    """What is at the address, but for what a push notes."""
    return {item["path"]: store.read(item["path"]) for item in store.below("") if item["path"] != STATE}


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_push_that_is_cut_anywhere_goes_on(port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = release(tmp_path / "first", a="1", b="2", c="3")
    second = release(tmp_path / "second", a="1", b="two", d="4")
    ask, left = ObjectStore._ask, [0]

    def asking(self: ObjectStore, path: str, request: object) -> object:
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        return ask(self, path, request)  # type: ignore[arg-type]

    monkeypatch.setattr(ObjectStore, "_ask", asking)
    for requests in range(20):
        for folder in (first, second):
            left[0] = requests
            with contextlib.suppress(KeyboardInterrupt):
                push(folder, ADDRESS)
        # Whatever was cut, in either order: the next one makes it whole.
        for folder in (first, second) if requests % 2 else (second, first):
            left[0] = -1
            push(folder, ADDRESS)
            assert there(ObjectStore(ADDRESS)) == content(folder)
            assert push(folder, ADDRESS) == 0


def test_a_server_that_refuses_is_asked_again(port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = release(tmp_path / "first", **{f"file{n}": str(n) for n in range(12)})
    faults = Faults(to=port, refused=0.3, seed=4)
    with before(faults) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy}")
        assert push(folder, ADDRESS) == 12
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    assert faults.seen["503"] > 0
    assert there(ObjectStore(ADDRESS)) == content(folder)


def test_what_is_not_the_release_is_not_sent(port: int, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=f"is no release: its {SUMS_FILE}"):
        push(tmp_path, ADDRESS)
    folder = release(tmp_path / "first", a="1")
    (folder / "data/a").write_text("2")
    with pytest.raises(DigestMismatchError, match="data/a is not what SHA256SUMS says"):
        push(folder, ADDRESS)
    assert hashlib.sha256(b"1").hexdigest() in (folder / SUMS_FILE).read_text()
    (folder / "data/a").unlink()
    with pytest.raises(DigestMismatchError, match="data/a is not what SHA256SUMS says"):
        push(folder, ADDRESS)
