"""A release sent to a hub: all of it or nothing, nothing twice, and every refusal told."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from skyscript_assets.lib.errors import DigestMismatchError, StorageError, UnreachableError
from skyscript_assets.lib.release.data import SUMS_FILE
from skyscript_assets.lib.release.push import push
from skyscript_assets.lib.release.write import write_sums
from tests.hub import TOKEN, Answer, Hub, hub

ADDRESS, NAME = "hf://datasets/me/roofs", "me/roofs"


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hub(monkeypatch) as server:
        yield server


def release(folder: Path, **files: str) -> Path:
    (folder / "data").mkdir(parents=True)
    (folder / "README.md").write_text(f"---\nlicense: odbl\n---\n{folder.name}")
    for name, text in files.items():
        (folder / "data" / f"{name}.parquet").write_text(text)
    write_sums(folder)
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def held(there: Hub) -> dict[str, bytes]:
    return {name: data for name, data in there.files(NAME).items() if name not in (".gitattributes", "notes.txt")}


def test_the_hub_then_has_the_release_and_nothing_is_sent_twice(there: Hub, tmp_path: Path) -> None:
    first = release(tmp_path / "first", a="1", b="2")
    assert push(first, ADDRESS) == 4
    assert held(there) == content(first)
    assert (len(there.commits[NAME]), there.wrote) == (2, 2)
    assert push(first, ADDRESS) == 0
    assert (len(there.commits[NAME]), there.wrote) == (2, 2)


def test_the_next_release_takes_its_place_and_leaves_what_others_put_there(there: Hub, tmp_path: Path) -> None:
    push(release(tmp_path / "first", a="1", b="2", c="3"), ADDRESS)
    there.commits[NAME].append(there.files(NAME) | {"notes.txt": b"mine"})
    second = release(tmp_path / "second", a="1", b="two")
    assert push(second, ADDRESS) == 3
    assert held(there) == content(second)
    assert there.files(NAME)["notes.txt"] == b"mine"
    assert there.wrote == 4


def test_a_list_of_digests_that_is_none_is_told(there: Hub, tmp_path: Path) -> None:
    folder = release(tmp_path / "first", a="1")
    push(folder, ADDRESS)
    there.commits[NAME].append(there.files(NAME) | {SUMS_FILE: b"\xff\xfe"})
    with pytest.raises(StorageError, match=f"{ADDRESS}: its SHA256SUMS is none; remove it there"):
        push(folder, ADDRESS)
    there.commits[NAME].append(there.files(NAME) | {SUMS_FILE: b"words\n0  ../notes.txt\n", "notes.txt": b"mine"})
    push(folder, ADDRESS)
    assert there.files(NAME)["notes.txt"] == b"mine"
    assert held(there) == content(folder)


def test_what_a_cut_push_has_sent_is_not_sent_again(there: Hub, tmp_path: Path) -> None:
    folder = release(tmp_path / "first", **{f"f{n}": str(n) for n in range(6)})

    def cut(_: str, path: str) -> Answer:
        return (503, {"error": "busy"}) if "/sent/" in path and there.wrote == 3 else None

    there.refuse = cut
    with pytest.raises(UnreachableError, match="hub answers 503 busy; the same push goes on later"):
        push(folder, ADDRESS)
    assert len(there.commits[NAME]) == 1, "nobody sees half a release"
    there.refuse = lambda _method, _path: None
    assert push(folder, ADDRESS) == 8
    assert there.wrote == 6
    assert held(there) == content(folder)


@pytest.mark.parametrize(
    "step", ["create", "preupload", "batch", "/sent/", "commit", "/tree/", "validate-yaml", "resolve"]
)
@pytest.mark.parametrize("status", [401, 403, 412, 413, 500])
def test_each_refusal_is_told_without_token_or_signature(
    there: Hub, tmp_path: Path, step: str, status: int, capfd: pytest.CaptureFixture[str]
) -> None:
    if step != "create":
        push(release(tmp_path / "first", a="1"), ADDRESS)
    folder, before = release(tmp_path / "second", a="2"), dict(there.commits)
    there.refuse = lambda _, path: (status, {"error": f"No {TOKEN[:2]}"}) if step in path else None
    kind, words = {
        401: (StorageError, "HF_TOKEN"),
        403: (StorageError, "HF_TOKEN"),
        412: (StorageError, "push again"),
        413: (StorageError, ""),
        500: (UnreachableError, "later"),
    }[status]
    with pytest.raises(kind, match=rf"{ADDRESS}: the hub answers {status} .*{words}") as raised:
        push(folder, ADDRESS)
    shown = "".join((str(raised.value), *capfd.readouterr()))
    assert TOKEN not in shown
    assert "Signature" not in shown
    assert there.commits == before


def test_a_commit_that_came_between_is_told(there: Hub, tmp_path: Path) -> None:
    def between(_: str, path: str) -> Answer:
        if "/commit/" in path:
            there.commits[NAME].append(there.files(NAME))
        return None

    there.refuse = between
    with pytest.raises(StorageError, match="412 A commit has happened since.*push again"):
        push(release(tmp_path / "first", a="1"), ADDRESS)


def test_without_a_token_it_says_how_to_give_one(there: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", os.devnull)
    with pytest.raises(StorageError, match="hub answers 401 .*HF_TOKEN"):
        push(release(tmp_path / "first", a="1"), ADDRESS)


@pytest.mark.parametrize("name", ["", "a/b/c", "me/ro ofs", "me/..", "me/roofs/", "hf://roofs", "hf://models/me/roofs"])
def test_a_name_that_no_data_set_has_is_refused(there: Hub, tmp_path: Path, name: str) -> None:
    with pytest.raises(StorageError, match="hf://datasets/ORG/NAME"):
        push(release(tmp_path / "first", a="1"), name if ":" in name else f"hf://datasets/{name}")
    assert not there.commits


def test_a_hub_that_does_not_answer_is_told(there: Hub, tmp_path: Path) -> None:
    there.shutdown()
    there.server_close()
    with pytest.raises(UnreachableError, match="the same push goes on later"):
        push(release(tmp_path / "first", a="1"), ADDRESS)


def test_a_file_that_is_another_one_is_not_sent(there: Hub, tmp_path: Path) -> None:
    folder = release(tmp_path / "first", a="1")
    (folder / "data/a.parquet").write_text("2")
    with pytest.raises(DigestMismatchError, match=r"a\.parquet is not what SHA256SUMS says"):
        push(folder, ADDRESS)
    assert len(there.commits[NAME]) == 1
