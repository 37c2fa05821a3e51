"""What others publish is fetched once, held against its first digest, and unpacked without harm."""

import io
import json
import os
import stat
import types
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from skyscript_assets.lib import archive as module
from skyscript_assets.lib import http
from skyscript_assets.lib.archive import fetch, unpack
from skyscript_assets.lib.errors import (
    CorruptInputError,
    DigestMismatchError,
    NoSpaceError,
    RefusedError,
    SettingsError,
    UnreachableError,
)
from tests.web import Asked, FileServer, Reply, by_range, running


def zipped(members: dict[str, bytes], **how: int) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data, **how)
    return content.getvalue()


NOISE = os.urandom(300_000)
AID = zipped({"aid/aid_test.csv": b"filepath,label\n", "aid/images/a.jpg": NOISE})


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setattr(http, "FIRST_PAUSE_S", 0.01)
    with running(FileServer()) as server:
        yield server


def cut_after(server: FileServer, name: str, data: bytes, cuts: list[int | None]) -> None:
    """Serve ranges of a file; the connection ends after so many bytes of each answer in turn."""

    def answer(asked: Asked) -> Reply:
        reply = by_range(data, asked.headers.get("range"))
        reply.cut = cuts.pop(0) if cuts else None
        return reply

    server.routes[name] = answer


def test_an_archive_that_is_cut_continues_and_is_unpacked_once(server: FileServer, tmp_path: Path) -> None:
    cut_after(server, "b/aid.zip", AID, [100_000, 50_000])
    folder = fetch(server.url("b/aid.zip"), tmp_path)
    assert folder == tmp_path / "aid"
    assert (folder / "images" / "a.jpg").read_bytes() == NOISE
    assert [asked.headers.get("range") for asked in server.asked] == [None, "bytes=100000-", "bytes=150000-"]
    assert fetch(server.url("b/aid.zip"), tmp_path) == folder
    assert len(server.asked) == 3
    assert not (tmp_path / "aid.zip").exists()
    seen = json.loads((tmp_path / "aid.zip.seen.json").read_text())
    assert seen["size_bytes"] == len(AID)


def test_a_later_run_continues_what_a_failed_one_left(server: FileServer, tmp_path: Path) -> None:
    cut_after(server, "aid.zip", AID, [1000, *[0] * 9])
    with pytest.raises(UnreachableError, match="1000 bytes are kept and a new run continues"):
        fetch(server.url("aid.zip"), tmp_path)
    server.routes.clear()
    server.put("aid.zip", AID)
    fetch(server.url("aid.zip"), tmp_path)
    assert server.asked[-1].headers["range"] == "bytes=1000-"


def test_another_file_than_at_first_sight_is_refused_until_it_is_wanted(server: FileServer, tmp_path: Path) -> None:
    url = server.put("w.pt", b"first")
    assert fetch(url, tmp_path).read_bytes() == b"first"
    (tmp_path / "w.pt").unlink()
    server.put("w.pt", b"second")
    for _ in range(2):
        with pytest.raises(DigestMismatchError, match=r"at first sight \(w\.pt\.seen\.json\) it was .*remove the note"):
            fetch(url, tmp_path)
    (tmp_path / "w.pt.seen.json").unlink()
    asked = len(server.asked)
    assert fetch(url, tmp_path).read_bytes() == b"second"
    assert len(server.asked) == asked


def test_an_archive_that_changed_is_not_unpacked(server: FileServer, tmp_path: Path) -> None:
    url = server.put("aid.zip", AID)
    (fetch(url, tmp_path) / "aid_test.csv").unlink()
    (tmp_path / "aid").rename(tmp_path / "aid-before")
    server.put("aid.zip", zipped({"aid/other.csv": b"x"}))
    with pytest.raises(DigestMismatchError):
        fetch(url, tmp_path)
    assert not (tmp_path / "aid").exists()


def test_the_digest_of_the_settings_counts(server: FileServer, tmp_path: Path) -> None:
    url = server.put("w.pt", b"first")
    with pytest.raises(DigestMismatchError, match="the settings promise 000"):
        fetch(url, tmp_path, "0" * 64)
    assert fetch(url, tmp_path).exists()
    url = server.put("aid.zip", AID)
    fetch(url, tmp_path)
    with pytest.raises(DigestMismatchError, match="the settings promise 000"):
        fetch(url, tmp_path, "0" * 64)


def test_what_was_put_there_by_hand_is_taken_as_it_is(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "aid").mkdir()
    assert fetch(server.url("aid.zip"), tmp_path) == tmp_path / "aid"
    assert server.asked == []


def test_a_refusal_names_the_address_and_the_way_by_hand(server: FileServer, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match=r"aid\.zip: the server answers 404; .* by hand and give the file as"):
        fetch(server.url("aid.zip"), tmp_path)
    server.put("page.zip", b"<!DOCTYPE html><p>Sign in")
    with pytest.raises(CorruptInputError, match="answers with a web page"):
        fetch(server.url("page.zip"), tmp_path)
    with pytest.raises(SettingsError, match="must end with the name of a file"):
        fetch(server.url("..%2F"), tmp_path)


def link() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        entry = zipfile.ZipInfo("aid/link.jpg")
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(entry, "/etc/passwd")
    return content.getvalue()


def encrypted() -> bytes:
    data = bytearray(zipped({"a.txt": b"text"}))
    data[data.index(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (zipped({"aid/../../evil.txt": b"x"}), "'aid/../../evil.txt' leads out"),
        (zipped({"/evil.txt": b"x"}), "leads out"),
        (zipped({"..\\evil.txt": b"x"}), "leads out"),
        (link(), "'aid/link.jpg' leads out"),
        (encrypted(), "is encrypted, password required"),
        (zipped({"zeros": bytes(10_000_000)}, compress_type=zipfile.ZIP_DEFLATED), "would unpack into 10000000"),
        (zipped({}), "would unpack into 0"),
        (b"no archive", "no whole zip archive"),
        (AID[:-200], "no whole zip archive"),
        (AID.replace(NOISE[:100], bytes(100)), "no whole zip archive"),
    ],
)
def test_archives_that_would_do_harm_are_refused_whole(data: bytes, problem: str, tmp_path: Path) -> None:
    (tmp_path / "aid.zip").write_bytes(data)
    with pytest.raises(CorruptInputError, match=problem):
        unpack(tmp_path / "aid.zip", tmp_path / "aid")
    assert not (tmp_path / "aid").exists()
    assert not (tmp_path.parent / "evil.txt").exists()


def test_an_archive_without_room_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "aid.zip").write_bytes(AID)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: types.SimpleNamespace(free=9))
    with pytest.raises(NoSpaceError, match=r"\d+ bytes are to be unpacked, 9 are free"):
        unpack(tmp_path / "aid.zip", tmp_path / "aid")


@pytest.mark.parametrize(("members", "found"), [({"aid/a": b"1"}, "aid/a"), ({"a": b"1"}, "aid/a")])
def test_archives_with_and_without_a_folder_of_their_own_end_alike(
    members: dict[str, bytes], found: str, tmp_path: Path
) -> None:
    (tmp_path / "aid.zip").write_bytes(zipped({**members, "__MACOSX/._a": b"junk"}))
    (tmp_path / ".aid.unpacking").mkdir()  # a killed run has left it
    (tmp_path / ".aid.unpacking" / "half").touch()
    unpack(tmp_path / "aid.zip", tmp_path / "aid")
    assert (tmp_path / found).read_bytes() == b"1"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["aid", "aid.zip"]
