import json
from collections.abc import Callable
from pathlib import Path

import pytest
from obstore.exceptions import GenericError, PermissionDeniedError
from obstore.store import MemoryStore

from skyscript_assets.lib.errors import DigestMismatchError, OutputSchemaError, StorageError, UnreachableError
from skyscript_assets.lib.storage import Heads, OutputKey, OutputRecord, Store
from skyscript_assets.lib.storage.remote import ObjectStore

KEY = OutputKey("image_chips", ("helsinki", "SYN1"))
Make = Callable[..., OutputRecord]


@pytest.fixture
def objects(monkeypatch: pytest.MonkeyPatch) -> MemoryStore:
    """The one object store that every address leads to."""
    memory = MemoryStore()
    monkeypatch.setattr("obstore.store.from_url", lambda *_, **__: memory)
    return memory


def make(store: Store, text: str, fingerprint: str = "f", key: OutputKey = KEY) -> OutputRecord:
    with store.writing(key, fingerprint) as out:
        (out / "inner").mkdir(exist_ok=True)
        (out / "inner/a.txt").write_text(text, encoding="utf-8")
        return store.complete(key, fingerprint=fingerprint, made_from={"inputs": {}}, counts={"failed": 2})


def listed(objects: MemoryStore, below: str) -> list[str]:
    return sorted(item["path"] for page in objects.list(below) for item in page)


def test_a_remote_root_needs_a_scratch_folder() -> None:
    with pytest.raises(StorageError, match="scratch"):
        Store("s3://bucket")


def test_an_output_is_written_and_read_through_the_scratch_folder(objects: MemoryStore, tmp_path: Path) -> None:
    writer, reader = Store("s3://bucket", tmp_path / "one"), Store("s3://bucket", tmp_path / "two")
    assert reader.head(KEY) is None
    make(writer, "first")
    first = reader.folder(KEY)
    record = make(writer, "second", "g")
    assert reader.record(KEY) == record
    assert (first / "inner/a.txt").read_text() == "first", "who has begun to read goes on with the same version"
    assert (reader.folder(KEY) / "inner/a.txt").read_text() == "second"
    assert (writer.local / KEY.path / "inner/a.txt").read_text() == "second"
    assert len(listed(objects, f".pointers/{KEY}")) == 2


def test_one_listing_tells_of_all_outputs(
    objects: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store("s3://bucket", tmp_path)
    keys = [OutputKey("captions", (region, "S")) for region in "abc"]
    for key in keys:
        make(store, str(key), key=key)
    asked: list[str] = []
    monkeypatch.setattr(ObjectStore, "read", lambda *_: asked.append("read"))
    below = ObjectStore.below
    monkeypatch.setattr(ObjectStore, "below", lambda self, folder: asked.append(folder) or below(self, folder))
    heads = Heads(Store("s3://bucket", tmp_path / "other"))
    assert [(head.fingerprint, head.size_bytes, head.failed) for key in keys if (head := heads[key])] == [
        ("f", 12, 2) for _ in keys
    ]
    assert heads[OutputKey("captions", ("d", "S"))] is None
    assert heads.names("captions") == keys
    assert asked == [".pointers/"]


def test_what_is_removed_is_gone_for_everybody_and_its_like_in_name_stays(objects: MemoryStore, tmp_path: Path) -> None:
    store, longer = Store("s3://bucket", tmp_path / "one"), OutputKey("image_chips", ("helsinki", "SYN10"))
    make(store, "first")
    make(store, "second", "g")
    make(store, "other", key=longer)
    store.remove(KEY)
    reader = Store("s3://bucket", tmp_path / "two")
    assert (reader.head(KEY), Heads(reader).names("image_chips")) == (None, [longer])
    assert listed(objects, f"{KEY}") == []
    assert not (store.local / KEY.path).exists()
    assert (reader.folder(longer) / "inner/a.txt").read_text() == "other"
    make(store, "third", "h")
    assert (reader.folder(KEY) / "inner/a.txt").read_text() == "third"


def test_other_readers_find_the_current_version_by_the_stable_path(objects: MemoryStore, tmp_path: Path) -> None:
    store = Store("s3://bucket", tmp_path)
    make(store, "first")
    record = make(store, "second", "g")
    about = json.loads(bytes(objects.get(f"{KEY}/output.json").bytes()))
    place = f"{KEY}/{about['folder']}"
    while "/../" in place:  # as a path is resolved
        before, _, after = place.partition("/../")
        place = f"{before.rpartition('/')[0]}/{after}".lstrip("/")
    assert bytes(objects.get(f"{place}/inner/a.txt").bytes()) == b"second"
    assert about["files"] == json.loads(record.text)["files"]


def test_writers_of_one_number_agree_on_one_and_the_stable_path_follows(
    objects: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = Store("s3://bucket", tmp_path / "ours"), Store("s3://bucket", tmp_path / "theirs")
    make(ours, "before")
    pointers, seen = Store.pointers, []

    def late(self: Store, below: str = "") -> object:
        found = pointers(self, below)
        if self is ours and not seen:
            seen.append(make(theirs, "theirs", "x"))  # between our look at the numbers and our pointer
        return found

    monkeypatch.setattr(Store, "pointers", late)
    make(ours, "ours", "o")
    names = [path.split("/")[-1][:10] for path in listed(objects, f".pointers/{KEY}")]
    assert names == ["00000001.f", "00000002.o", "00000002.x"]
    for store in (ours, theirs):
        head = store.head(KEY)
        assert head is not None
        assert head.fingerprint == "x"
        assert (store.folder(KEY) / "inner/a.txt").read_text() == "theirs"
    assert json.loads(bytes(objects.get(f"{KEY}/output.json").bytes()))["fingerprint"] == "x"


def test_bytes_that_are_not_those_that_were_written_never_become_a_copy(objects: MemoryStore, tmp_path: Path) -> None:
    make(Store("s3://bucket", tmp_path / "one"), "right")
    (path,) = (path for path in listed(objects, ".versions") if path.endswith("a.txt"))
    objects.put(path, b"wrong")
    reader = Store("s3://bucket", tmp_path / "two")
    with pytest.raises(DigestMismatchError, match=f"^s3://bucket/{path} is not .*: skyscript run --force {KEY}$"):
        reader.folder(KEY)
    assert not [path for path in reader.local.rglob("*") if path.is_file() and ".lock" not in path.name]
    make(Store("s3://bucket", tmp_path / "one"), "right")
    assert (reader.folder(KEY) / "inner/a.txt").read_text() == "right"


def test_a_copy_that_was_damaged_is_fetched_again(objects: MemoryStore, tmp_path: Path) -> None:
    make(Store("s3://bucket", tmp_path / "one"), "right")
    reader = Store("s3://bucket", tmp_path / "two")
    for name in ("inner/a.txt", "output.json"):
        (reader.folder(KEY) / name).write_text("{")
        assert (reader.folder(KEY) / "inner/a.txt").read_text() == "right"


def test_a_broken_record_or_pointer_is_told(objects: MemoryStore, tmp_path: Path) -> None:
    store = Store("s3://bucket", tmp_path)
    make(store, "one")
    (path,) = (path for path in listed(objects, ".versions") if path.endswith("output.json"))
    objects.put(path, b"{")
    with pytest.raises(OutputSchemaError, match=f"skyscript run {KEY}"):
        store.record(KEY)
    objects.put(f".pointers/{KEY}/00000007.later", b"")
    objects.put(f".pointers/{KEY}/notes.txt", b"")
    head = Heads(store)[KEY]
    assert head is not None
    assert head.problem == "'later' is no name of a version that this release knows"
    make(store, "two", "g")
    assert (store.folder(KEY) / "inner/a.txt").read_text() == "two"


def test_errors_are_told_apart(objects: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store("s3://bucket", tmp_path)
    monkeypatch.setattr("time.sleep", lambda _: None)
    for error, expected, words in (
        (GenericError("no route\nmore"), UnreachableError, r"s3://bucket/.* cannot be reached \(no route\)"),
        (PermissionDeniedError("non-2xx status code: 403"), StorageError, "does not exist or may not be used"),
        (FileNotFoundError("no bucket"), StorageError, "does not exist or may not be used"),
    ):

        def fail(*_: object, error: Exception = error, **__: object) -> None:
            raise error

        monkeypatch.setattr("obstore.list", fail)
        with pytest.raises(expected, match=words):
            store.head(KEY)


def test_without_the_package_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "obstore", None)
    with pytest.raises(StorageError, match=r"pip install 'skyscript-assets\[s3\]'"):
        Store("s3://bucket", tmp_path)
