import struct
import zlib
from pathlib import Path

import pytest

from skyscript_assets.lib.errors import CorruptInputError
from skyscript_assets.lib.osm.pbf import Features, check_blocks, read_features


def field(number: int, data: bytes) -> bytes:
    return bytes([number << 3 | 2, len(data)]) + data


HEADER = field(4, b"OsmSchema-V0.6") + b"\x80\x02\x07" + field(4, b"DenseNodes") + field(5, b"Sort.Type_then_ID")
"""A header with a number, field 32, among its features."""


def pbf(blob: bytes, kind: bytes = b"OSMHeader") -> bytes:
    head = field(1, kind) + bytes([3 << 3, len(blob)])
    return struct.pack(">I", len(head)) + head + blob


def features(folder: Path, data: bytes) -> Features:
    (folder / "a.osm.pbf").write_bytes(data)
    return read_features(folder / "a.osm.pbf")


def test_features_are_read_plain_and_packed(tmp_path: Path) -> None:
    wanted = Features(("OsmSchema-V0.6", "DenseNodes"), ("Sort.Type_then_ID",))
    assert features(tmp_path, pbf(field(1, HEADER))) == wanted
    assert features(tmp_path, pbf(b"\x10" + bytes([len(HEADER)]) + field(3, zlib.compress(HEADER)))) == wanted


def test_what_is_no_pbf_has_no_features(tmp_path: Path) -> None:
    for data in (b"", b"<osm/>", b"BZh9", pbf(b"", b"OSMData")):
        assert features(tmp_path, data) == Features()


def test_a_header_packed_in_another_way_has_no_features(tmp_path: Path) -> None:
    assert features(tmp_path, pbf(field(7, b"zstd"))) == Features()


@pytest.mark.parametrize(
    "blob",
    [
        field(3, b"no zlib"),
        field(3, zlib.compress(HEADER))[:-3],
        field(1, b"\x24"),
        field(1, b"\x27"),
        field(1, b"\x80"),
        b"\x08\x01",
        field(1, field(4, b"\xff")),
        field(1, b"\x20\x01"),
    ],
)
def test_a_damaged_header_is_corrupt(tmp_path: Path, blob: bytes) -> None:
    with pytest.raises(CorruptInputError, match=r"a\.osm\.pbf has a damaged header"):
        features(tmp_path, pbf(blob))


def test_a_header_without_the_length_of_its_block_is_corrupt(tmp_path: Path) -> None:
    head = field(1, b"OSMHeader")
    with pytest.raises(CorruptInputError):
        features(tmp_path, struct.pack(">I", len(head)) + head)


def test_a_last_block_that_has_begun_only_is_found(tmp_path: Path) -> None:
    path, header, block = tmp_path / "a.osm.pbf", pbf(field(1, HEADER)), pbf(b"data", b"OSMData")
    path.write_bytes(header + block)
    check_blocks(path)
    for cut in range(1, len(block)):
        path.write_bytes((header + block)[:-cut])
        with pytest.raises(CorruptInputError, match=r"a\.osm\.pbf is not whole \((the block at byte|it ends after)"):
            check_blocks(path)


def test_what_is_no_pbf_has_no_blocks_to_check(tmp_path: Path) -> None:
    (tmp_path / "a.osm").write_bytes(b"<osm></osm>")
    check_blocks(tmp_path / "a.osm")
