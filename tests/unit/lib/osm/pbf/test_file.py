import contextlib
import lzma
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import osmium
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skyscript_assets.lib.errors import CorruptInputError
from skyscript_assets.lib.osm.pbf.blocks import NOWHERE, Nodes, nodes_of, relations_of, ways_of
from skyscript_assets.lib.osm.pbf.file import MAX_BLOB_BYTES, PbfFile, _unpacked
from skyscript_assets.lib.osm.pbf.wire import fields


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def zigzag(value: int) -> bytes:
    return varint(value << 1 ^ value >> 63)


def field(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def number(at: int, value: int) -> bytes:
    return varint(at << 3) + varint(value)


def blob(content: bytes, kind: bytes = b"OSMData") -> bytes:
    head = field(1, kind) + number(3, len(content))
    return struct.pack(">I", len(head)) + head + content


HEADER = field(4, b"OsmSchema-V0.6") + number(32, 7) + field(4, b"DenseNodes") + field(5, b"Sort.Type_then_ID")
"""A header with a number among its features."""


def block(group: bytes, *strings: bytes, more: bytes = b"") -> bytes:
    table = b"".join(field(1, text) for text in (b"", *strings))
    return field(1, table) + field(2, group) + more


def file_of(folder: Path, *blobs: bytes) -> PbfFile:
    path = folder / "a.osm.pbf"
    path.write_bytes(b"".join(blobs))
    return PbfFile(path)


def node(osm_id: int, lat: int, lon: int, more: bytes = b"") -> bytes:
    return field(1, b"\x08" + zigzag(osm_id) + more + b"\x40" + zigzag(lat) + b"\x48" + zigzag(lon))


def nodes_in(file: PbfFile, blocks: Iterable[int] = (0,)) -> Nodes:
    (nodes,) = file.read(nodes_of, blocks)
    return nodes


START = blob(field(1, HEADER), b"OSMHeader")


def test_features_are_read_plain_and_packed(tmp_path: Path) -> None:
    packed = blob(number(2, len(HEADER)) + field(3, zlib.compress(HEADER)), b"OSMHeader")
    for start in (START, packed):
        file = file_of(tmp_path, start)
        assert file.required == ("OsmSchema-V0.6", "DenseNodes")
        assert file.optional == ("Sort.Type_then_ID",)


def test_a_file_with_history_is_refused_when_it_is_read(tmp_path: Path) -> None:
    history = blob(field(1, field(4, b"HistoricalInformation")), b"OSMHeader")
    with pytest.raises(CorruptInputError, match=r"needs HistoricalInformation.*without history"):
        file_of(tmp_path, history, blob(field(1, block(node(1, 0, 0))))).sections()


@pytest.mark.parametrize("data", [b"<osm/>", b"BZh9", b"\0\0", START[:-1], START[:9], b"\xff" * 99, START + b"\0"])
def test_what_is_no_whole_pbf_is_named(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(CorruptInputError, match=r"a\.osm\.pbf is not a whole PBF"):
        file_of(tmp_path, data)


def test_a_block_larger_than_the_format_allows_is_refused(tmp_path: Path) -> None:
    head = field(1, b"OSMData") + number(3, MAX_BLOB_BYTES + 1)
    with pytest.raises(CorruptInputError, match="larger than the format allows"):
        file_of(tmp_path, START, struct.pack(">I", len(head)) + head)


def test_a_block_that_unpacks_to_too_much_is_refused(tmp_path: Path) -> None:
    bomb = number(2, 1 << 40) + field(3, zlib.compress(b"\0" * 1000))
    liar = number(2, 10) + field(3, zlib.compress(b"\0" * 1000))
    for packed in (bomb, liar):
        with pytest.raises(CorruptInputError, match="data blocks 0 to 0 cannot be read"):
            file_of(tmp_path, START, blob(packed)).sections()


@pytest.mark.parametrize(
    ("at", "pack"),
    [
        (1, bytes),
        (3, zlib.compress),
        (4, lambda data: lzma.compress(data, format=lzma.FORMAT_ALONE)),
        (6, lambda data: pa.Codec("lz4_raw").compress(data, asbytes=True)),
        (7, lambda data: pa.Codec("zstd").compress(data, asbytes=True)),
    ],
)
def test_blocks_are_unpacked_whatever_packed_them(tmp_path: Path, at: int, pack: object) -> None:
    content = block(node(5, 500_000_000, 100_000_000))
    file = file_of(tmp_path, START, blob(number(2, len(content)) + field(at, pack(content))))  # type: ignore[operator]
    assert nodes_in(file).places.tolist() == [[100_000_000, 500_000_000]]


def test_granularity_and_offsets_move_places(tmp_path: Path) -> None:
    more = number(17, 1000) + number(19, 5_000_000_000) + number(20, -7_000_000_000)
    file = file_of(tmp_path, START, blob(field(1, block(node(5, 12, -34), more=more))))
    assert nodes_in(file).places.tolist() == [[-70_000_340, 50_000_120]]


def test_a_place_beyond_the_poles_is_no_place(tmp_path: Path) -> None:
    file = file_of(
        tmp_path, START, blob(field(1, block(node(5, 900_000_001, 0) + node(6, 900_000_000, 1_800_000_000))))
    )
    assert nodes_in(file).places.tolist() == [[NOWHERE, NOWHERE], [1_800_000_000, 900_000_000]]


def test_plain_nodes_have_their_tags_versions_and_times(tmp_path: Path) -> None:
    tags = field(2, varint(1)) + field(3, varint(2)) + field(4, number(1, 7) + number(2, 30))
    content = block(node(5, 1, 2) + node(6, 3, 4, tags), b"natural", b"tree", more=number(18, 500))
    nodes = nodes_in(file_of(tmp_path, START, blob(field(1, content))))
    tagged = nodes.tagged
    assert (nodes.ids.tolist(), nodes.rows.tolist()) == ([5, 6], [1])
    assert (tagged.ids.tolist(), tagged.versions.tolist(), tagged.timestamps_ms.tolist()) == ([6], [7], [15_000])
    assert tagged.tags.strings.take(pa.array(tagged.tags.keys)).to_pylist() == ["natural"]
    assert tagged.tags.strings.take(pa.array(tagged.tags.values)).to_pylist() == ["tree"]


@pytest.mark.parametrize("option", ["", ",pbf_dense_nodes=false", ",pbf_compression=none", ",add_metadata=false"])
def test_what_osmium_writes_is_read(tmp_path: Path, option: str) -> None:
    path = tmp_path / "a.osm.pbf"
    mutable = osmium.osm.mutable
    with osmium.SimpleWriter(osmium.io.File(str(path), f"pbf{option}")) as writer:
        for i in range(20_000):
            tags = {"ref": str(i), "a": "b"} if i % 3 == 0 else {}
            writer.add_node(mutable.Node(id=i * i, version=i % 5 + 1, location=(i / 1000, -i / 1000), tags=tags))
        for i in range(9_000):
            writer.add_way(mutable.Way(id=i, version=1, nodes=list(range(i, i + i % 7)), tags={"w": str(i % 2)}))
        members = [("n", 1, "x"), ("w", 8, "outer"), ("r", 1, ""), ("w", 3, "")]
        writer.add_relation(mutable.Relation(id=4, version=1, members=members, tags={"type": "boundary"}))
    file = PbfFile(path)
    node_blocks, way_blocks, relation_blocks = file.sections()
    nodes, ways, relations = (
        nodes_in(file, node_blocks),
        file.read(ways_of, way_blocks),
        file.read(relations_of, relation_blocks),
    )
    assert nodes.ids.tolist() == [i * i for i in range(20_000)]
    assert nodes.places.tolist() == [[i * 10_000, -i * 10_000] for i in range(20_000)]
    assert nodes.rows.tolist() == list(range(0, 20_000, 3))
    assert np.diff(nodes.tagged.tags.offsets).tolist() == [2] * len(nodes.rows)
    texts = nodes.tagged.tags.strings.take(pa.array(nodes.tagged.tags.values)).to_pylist()
    assert {text for text in texts if text != "b"} == {str(i) for i in range(0, 20_000, 3)}
    assert ways.ids.tolist() == list(range(9_000))
    assert ways.refs.tolist() == [ref for i in range(9_000) for ref in range(i, i + i % 7)]
    assert np.diff(ways.ref_offsets).tolist() == [i % 7 for i in range(9_000)]
    assert relations.refs.tolist() == [8, 3]
    roles = relations.tags.strings.take(pa.array(relations.roles)).to_pylist()
    assert roles == ["outer", ""]


def packed(*values: int) -> bytes:
    return b"".join(map(zigzag, values))


def dense(ids: bytes, places: bytes, more: bytes = b"") -> bytes:
    return field(2, field(1, ids) + more + field(8, places) + field(9, places))


def plain_way(osm_id: int, *more: bytes) -> bytes:
    return field(3, number(1, osm_id) + b"".join(more) + field(8, packed(1, 1)))


WITH_PLACES = field(9, packed(470_000_000, 5)) + field(10, packed(90_000_000, -5))


def test_ways_that_carry_places_stand_beside_ways_that_do_not(tmp_path: Path) -> None:
    content = block(plain_way(1) + b"", more=field(2, plain_way(2, WITH_PLACES) + plain_way(3)))
    ways = file_of(tmp_path, START, blob(field(1, content))).read(ways_of, [0])
    assert ways.ids.tolist() == [1, 2, 3]
    assert ways.places is not None
    nowhere = [[NOWHERE, NOWHERE]] * 2
    carried = [[90_000_000, 470_000_000], [89_999_995, 470_000_005]]
    assert ways.places.tolist() == [*nowhere, *carried, *nowhere]
    assert ways.at(np.array([1])).places.tolist() == carried  # type: ignore[union-attr]


@pytest.mark.parametrize("more", [field(9, packed(1)) + field(10, packed(1)), field(9, packed(1, 1))])
def test_ways_with_other_places_than_nodes_are_corrupt(tmp_path: Path, more: bytes) -> None:
    file = file_of(tmp_path, START, blob(field(1, block(plain_way(1, more)))))
    with pytest.raises(CorruptInputError, match="more nodes than places"):
        file.read(ways_of, [0])


def test_places_on_ways_follow_the_granularity_of_their_block(tmp_path: Path) -> None:
    content = block(plain_way(1, field(9, packed(47, 1)) + field(10, packed(9, 0))), more=number(17, 1_000_000_000))
    ways = file_of(tmp_path, START, blob(field(1, content))).read(ways_of, [0])
    assert ways.places.tolist() == [[90_000_000, 470_000_000], [90_000_000, 480_000_000]]  # type: ignore[union-attr]


def test_dense_and_plain_nodes_side_by_side_keep_their_order(tmp_path: Path) -> None:
    tagged = field(10, varint(1) + varint(2) + varint(0) + varint(0))
    first = block(dense(packed(1, 1), packed(10, 10), tagged), b"natural", b"tree", more=field(2, node(3, 30, 30)))
    second = block(node(4, 40, 40), more=field(2, dense(packed(5), packed(50))))
    file = file_of(tmp_path, START, blob(field(1, first)), blob(field(1, second)))
    found = file.read(nodes_of, [0, 1])
    assert [osm_id for nodes in found for osm_id in nodes.ids.tolist()] == [1, 2, 3, 4, 5]
    assert [place for nodes in found for place in nodes.places[:, 0].tolist()] == [10, 20, 30, 40, 50]
    assert [osm_id for nodes in found for osm_id in nodes.tagged.ids.tolist()] == [1]


def test_blocks_without_objects_and_groups_of_other_kinds_are_passed_over(tmp_path: Path) -> None:
    changeset, unknown = field(5, number(1, 77)), field(9, b"")
    groups = [b"", node(1, 1, 1), changeset, unknown + b"", node(2, 2, 2), changeset, plain_way(1), b"", plain_way(2)]
    groups += [changeset, field(4, number(1, 1)), changeset]
    blobs = [blob(field(1, block(group))) for group in groups]
    file = file_of(tmp_path, START, *blobs)
    nodes, ways, relations = file.sections()
    assert [osm_id for some in file.read(nodes_of, nodes) for osm_id in some.ids.tolist()] == [1, 2]
    assert file.read(ways_of, ways).ids.tolist() == [1, 2]
    assert file.read(relations_of, relations).ids.tolist() == [1]


def test_a_block_of_two_kinds_before_an_empty_one_belongs_to_both_sections(tmp_path: Path) -> None:
    both = block(node(1, 1, 1), more=field(2, plain_way(1)))
    blobs = [blob(field(1, content)) for content in (both, block(field(5, number(1, 7))), block(plain_way(2)))]
    file = file_of(tmp_path, START, *blobs)
    nodes, ways, _ = file.sections()
    assert nodes_in(file, nodes).ids.tolist() == [1]
    assert file.read(ways_of, ways).ids.tolist() == [1, 2]


GONE = field(4, number(1, 2) + number(6, 0))


def test_deleted_objects_of_every_kind_are_dropped(tmp_path: Path) -> None:
    nodes = node(1, 1, 1) + node(2, 2, 2, field(2, varint(1)) + field(3, varint(2)) + GONE)
    nodes += node(3, 3, 3, field(2, varint(1)) + field(3, varint(2)))
    ways = plain_way(1, GONE) + plain_way(2, WITH_PLACES)
    relations = field(4, number(1, 1) + GONE) + field(4, number(1, 2))
    names = (b"natural", b"tree")
    blobs = [blob(field(1, block(group, *names))) for group in (nodes, ways, relations)]
    file = file_of(tmp_path, START, *blobs)
    found = nodes_in(file)
    assert (found.ids.tolist(), found.rows.tolist(), found.tagged.ids.tolist()) == ([1, 3], [1], [3])
    assert file.read(ways_of, [1]).ids.tolist() == [2]
    assert file.read(relations_of, [2]).ids.tolist() == [2]


def test_deleted_dense_nodes_are_dropped_beside_groups_without_marks(tmp_path: Path) -> None:
    marks = field(5, field(6, bytes([1, 0, 1])))
    tags = field(10, bytes([0, 1, 2, 0, 1, 2, 0]))
    groups = dense(packed(1, 1, 1), packed(10, 10, 10), marks + tags)
    content = block(groups, b"natural", b"tree", more=field(2, dense(packed(4), packed(40))))
    found = nodes_in(file_of(tmp_path, START, blob(field(1, content))))
    assert (found.ids.tolist(), found.places[:, 0].tolist()) == ([1, 3, 4], [10, 30, 40])
    assert (found.rows.tolist(), found.tagged.ids.tolist()) == ([1], [3])


@pytest.mark.parametrize("stated", [(179.9, -17.1, -179.9, -16.9), (0.0, 0.0, 180.0, 90.0)])
def test_the_box_of_the_header_is_read_as_it_stands(tmp_path: Path, stated: tuple[float, ...]) -> None:
    west, south, east, north = stated
    sides = [b"%c%s" % (at << 3, zigzag(round(side * 1e9))) for at, side in enumerate((west, east, north, south), 1)]
    header = blob(field(1, field(1, b"".join(sides)) + HEADER), b"OSMHeader")
    assert file_of(tmp_path, header).box == stated
    assert file_of(tmp_path, START).box is None


def small_extract(folder: Path) -> bytes:
    path = folder / "small.osm.pbf"
    mutable = osmium.osm.mutable
    with osmium.SimpleWriter(osmium.io.File(str(path), "pbf,pbf_compression=none"), overwrite=True) as writer:
        for i in range(1, 6):
            writer.add_node(mutable.Node(id=i, version=1, location=(i, i * i), tags={"a": "b"} if i == 2 else {}))
        writer.add_way(mutable.Way(id=1, version=1, nodes=[1, 2, 3, 1], tags={"building": "yes"}))
        writer.add_relation(mutable.Relation(id=1, version=1, members=[("w", 1, "outer")], tags={"type": "boundary"}))
    return path.read_bytes()


def read_all(file: PbfFile) -> None:
    nodes, ways, relations = file.sections()
    for blocks, decode in ((nodes, nodes_of), (ways, ways_of), (relations, relations_of)):
        if blocks:
            file.read(decode, blocks)


@pytest.mark.parametrize("field", [6, 7])
def test_what_lz4_and_zstd_cannot_unpack_is_a_damaged_block(field: int) -> None:
    # The message BlobHeader's sibling Blob: field 2 is the size unpacked, 6 and 7 what is packed.
    with pytest.raises(ValueError, match="(?i)decompression failed|corrupt"):
        _unpacked(bytes([2 << 3, 58, field << 3 | 2, 5]) + b"\xff\xff\xff\xff\xff")


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_damaged_bytes_end_in_the_one_error_or_in_objects(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    whole = bytearray(small_extract(folder))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(CorruptInputError):
        read_all(file_of(folder, bytes(whole)))


def test_a_file_cut_at_any_byte_is_whole_only_between_blocks(tmp_path: Path) -> None:
    whole = small_extract(tmp_path)
    ends = {0}
    at = 0
    while at < len(whole):
        (length,) = struct.unpack(">I", whole[at : at + 4])
        found = dict(fields(memoryview(whole)[at + 4 : at + 4 + length]))
        at += 4 + length + int(found[3])  # type: ignore[arg-type]
        ends.add(at)
    for cut in range(1, len(whole)):
        if cut in ends:
            read_all(file_of(tmp_path, whole[:cut]))
        else:
            with pytest.raises(CorruptInputError, match="is not a whole PBF"):
                file_of(tmp_path, whole[:cut])
