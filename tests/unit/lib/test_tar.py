import subprocess
import tarfile
from pathlib import Path

import pytest

from skyscript_assets.lib.errors import CorruptInputError, UpstreamMissingError
from skyscript_assets.lib.files import MAX_NAME
from skyscript_assets.lib.tar import RECORD, TarShard, read_member

MEMBERS = {"a.jpg": b"\xff\xd8" + b"x" * 700, "a.txt": b"", "b.json": b"{}" * 256, "n" * MAX_NAME: b"end"}


def written(path: Path, members: dict[str, bytes] = MEMBERS) -> list[tuple[int, int]]:
    with TarShard(path) as shard:
        return [tuple(shard.add(name, data)) for name, data in members.items()]


def test_members_are_read_back_by_offset_and_length(tmp_path: Path) -> None:
    path = tmp_path / "part-00000.tar"
    entries = written(path)
    assert [read_member(path, *entry) for entry in entries] == list(MEMBERS.values())


def test_pythons_tarfile_reads_names_contents_and_neutral_headers(tmp_path: Path) -> None:
    path = tmp_path / "part.tar"
    entries = written(path)
    with tarfile.open(path, "r:") as archive:
        found = archive.getmembers()
        assert {m.name: archive.extractfile(m).read() for m in found} == MEMBERS
    assert [(m.offset_data, m.size) for m in found] == entries
    assert {(m.mtime, m.uid, m.gid, m.mode, m.uname, m.type) for m in found} == {(0, 0, 0, 0o644, "", tarfile.REGTYPE)}


def test_the_file_is_what_pythons_tarfile_writes_in_ustar_format(tmp_path: Path) -> None:
    path, peer = tmp_path / "ours.tar", tmp_path / "peer.tar"
    written(path)
    with tarfile.open(peer, "w:", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in MEMBERS.items():
            source = tmp_path / "member"
            source.write_bytes(data)
            info = tarfile.TarInfo(name)
            info.size = len(data)
            with source.open("rb") as file:
                archive.addfile(info, file)
    assert path.read_bytes() == peer.read_bytes()


def test_the_tar_command_accepts_the_shard(tmp_path: Path) -> None:
    path = tmp_path / "part.tar"
    written(path)
    listed = subprocess.run(["tar", "-tf", path], capture_output=True, text=True, check=True)
    assert listed.stdout.split() == list(MEMBERS)
    assert listed.stderr == ""


def test_an_empty_shard_is_one_record_of_zeros(tmp_path: Path) -> None:
    written(tmp_path / "empty.tar", {})
    assert (tmp_path / "empty.tar").read_bytes() == bytes(RECORD)


def test_equal_members_give_equal_bytes(tmp_path: Path) -> None:
    written(tmp_path / "a.tar")
    written(tmp_path / "b.tar")
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


def test_length_and_size_grow_with_each_member(tmp_path: Path) -> None:
    with TarShard(tmp_path / "a.tar") as shard:
        assert (len(shard), shard.size_bytes) == (0, 0)
        shard.add("a.txt", b"1")
        assert (len(shard), shard.size_bytes) == (1, 1024)


def test_the_name_appears_only_when_the_shard_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with TarShard(path) as shard:
        shard.add("a.txt", b"1")
        assert not path.exists()
    assert path.exists()
    assert [p.name for p in tmp_path.iterdir()] == ["a.tar"]


def test_an_error_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="tar member name"), TarShard(tmp_path / "a.tar") as shard:
        shard.add("", b"1")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name",
    ["", "x" * 101, "ä.jpg", "a\n.jpg", "../a.jpg", "/a.jpg", "a/b.jpg", "a\\b.jpg", "..", ".a", "-a", "a.", "a "],
)
def test_a_name_that_is_no_file_s_is_refused(tmp_path: Path, name: str) -> None:
    with TarShard(tmp_path / "a.tar") as shard, pytest.raises(ValueError, match="tar member name"):
        shard.add(name, b"1")


def test_a_name_used_twice_is_refused(tmp_path: Path) -> None:
    with TarShard(tmp_path / "a.tar") as shard:
        shard.add("a.txt", b"1")
        with pytest.raises(ValueError, match="added before"):
            shard.add("a.txt", b"2")


def test_adding_to_a_closed_shard_is_refused(tmp_path: Path) -> None:
    shard = TarShard(tmp_path / "a.tar")
    with pytest.raises(ValueError, match="not open"):
        shard.add("a.txt", b"1")


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    with pytest.raises(UpstreamMissingError, match=r"gone\.tar"):
        read_member(tmp_path / "gone.tar", 512, 3)


def test_a_truncated_shard_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cut.tar"
    entry = written(path)[0]
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(CorruptInputError, match="truncated"):
        read_member(path, *entry)
