import datetime as dt
import os
import time
from pathlib import Path

import pytest
from obstore.store import MemoryStore

from skyscript_assets.lib.storage import OutputKey, Store
from skyscript_assets.lib.storage.garbage import Left, left_over, remove
from tests.unit.lib.storage.test_remote import KEY, listed, make, objects

__all__ = ["objects"]
DAY = 86400.0


def age(folder: Path, days: float = 2) -> None:
    for path in [folder, *folder.rglob("*")]:
        os.utime(path, (time.time() - days * DAY,) * 2, follow_symlinks=False)


def found(store: Store) -> list[Left]:
    return sorted(left_over(store, DAY), key=lambda left: (left.what, left.places))


def test_earlier_versions_and_aborted_work_go_and_what_is_named_stays(tmp_path: Path) -> None:
    store = Store(tmp_path)
    make(store, "one")
    make(store, "two", "g")
    with store.writing(OutputKey("captions", ("a", "b")), "f") as out:
        (out / "part").write_text("half")
    assert found(store) == []
    age(tmp_path)
    staged, version = found(store)
    assert (staged.what, str(staged.key), staged.size_bytes) == ("staging", "captions/a/b", 4)
    assert (version.what, version.key) == ("version", KEY)
    assert version.size_bytes > 3
    for left in (staged, version):
        remove(store, left)
    assert (store.folder(KEY) / "inner/a.txt").read_text() == "two"
    assert not out.exists()
    assert found(store) == []


def test_a_version_counts_as_used_until_another_one_took_its_place(tmp_path: Path) -> None:
    store = Store(tmp_path)
    make(store, "one")
    age(tmp_path)
    make(store, "two", "g")
    assert found(store) == []


def test_what_is_locked_or_used_again_stays(tmp_path: Path) -> None:
    store = Store(tmp_path)
    make(store, "one")
    make(store, "two", "g")
    age(tmp_path)
    (left,) = found(store)
    with store.writing(KEY, "h") as out:
        (out / "part").write_text("half")
        age(tmp_path)
        assert [left.what for left in found(store)] == []
        remove(store, left)
    make(store, "one")
    remove(store, left)
    assert (store.folder(KEY, verify=True) / "inner/a.txt").read_text() == "one"


def test_what_a_running_body_may_read_stays(tmp_path: Path) -> None:
    store, other = Store(tmp_path), OutputKey("trained_checkpoint", ("m",))
    make(store, "one")
    with store.writing(other, "f"):
        lock = store.staging(other, ".lock")
        os.utime(lock, (time.time() - 5 * DAY,) * 2)
        make(store, "two", "g")
        age(tmp_path / ".versions", 3)
        assert found(store) == []
    assert [left.what for left in found(store)] == ["version"]


def test_a_clock_that_was_set_back_removes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, now = Store(tmp_path), time.time()
    make(store, "one")
    make(store, "two", "g")
    monkeypatch.setattr(time, "time", lambda: now - 3600)
    assert found(store) == []
    head = store.head(KEY)
    assert head is not None
    assert head.fingerprint == "g"


def test_what_a_body_may_read_that_began_before_the_clock_was_set_back_stays(tmp_path: Path) -> None:
    store, other = Store(tmp_path), OutputKey("trained_checkpoint", ("m",))
    make(store, "one")
    with store.writing(other, "f"):
        # It began when the clock was an hour ahead; then that was set back, and the version was replaced.
        os.utime(store.staging(other, ".lock"), (time.time() - 5 * DAY,) * 2)
        make(store, "two", "g")
        age(tmp_path / ".versions", 5 + 1 / 24)
        assert found(store) == []
    assert [left.what for left in found(store)] == ["version"]


def test_a_partition_named_like_a_version_is_none(tmp_path: Path) -> None:
    store, key = Store(tmp_path), OutputKey("captions", ("v1.2.3.4.5", "S"))
    make(store, "one", key=key)
    age(tmp_path)
    assert found(store) == []


def test_nothing_is_left_where_nothing_is(tmp_path: Path) -> None:
    assert found(Store(tmp_path / "no folder")) == []


def test_remote_pointers_versions_and_uploads(
    objects: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, now = Store("s3://bucket", tmp_path), time.time()
    make(store, "one")
    make(store, "two", "g")
    objects.put(f".versions/{KEY}/x.y.1.0.{'0' * 16}.{'1' * 8}/a.txt", b"cut")
    assert found(store) == []
    monkeypatch.setattr(time, "time", lambda: now + 2 * DAY)
    left = found(store)
    assert [one.what for one in left] == ["pointer", "upload", "upload", "version"]
    for one in left:
        remove(store, one)
    (pointer,) = listed(objects, ".pointers")
    assert pointer.startswith(f".pointers/{KEY}/00000002.g.")
    assert {path.split("/")[-1] for path in listed(objects, ".versions")} == {"a.txt", "output.json"}
    assert len(listed(objects, ".versions")) == 2
    assert (Store("s3://bucket", tmp_path / "new").folder(KEY) / "inner/a.txt").read_text() == "two"


def test_a_remote_version_counts_as_used_until_the_next_pointer(
    objects: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store("s3://bucket", tmp_path)
    make(store, "one")
    make(store, "two", "g")
    pointers = Store.pointers(store)

    def aged(*_: object) -> dict[OutputKey, list[tuple[str, float]]]:
        return {key: [(first, made - 9 * DAY), *rest] for key, ((first, made), *rest) in pointers.items()}

    monkeypatch.setattr(Store, "pointers", aged)
    assert [left for left in found(store) if left.what != "version"] == []
    assert dt.datetime.now(dt.UTC).timestamp() - pointers[KEY][0][1] < DAY


def test_a_pointer_is_old_by_the_later_of_two_times_and_current_by_its_number(
    objects: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store("s3://bucket", tmp_path)
    make(store, "one")
    make(store, "two", "g")
    pointers = Store.pointers(store)

    def set_back(*_: object) -> dict[OutputKey, list[tuple[str, float]]]:
        """The first one was written a moment ago, when the server's clock was right, the second after it was not."""
        return {key: [first, (second, made - 9 * DAY)] for key, (first, (second, made)) in pointers.items()}

    monkeypatch.setattr(Store, "pointers", set_back)
    assert [left for left in found(store) if left.what in ("pointer", "upload")] == []
    head = store.head(KEY)
    assert head is not None
    assert head.fingerprint == "g"
