import bz2
import gzip
import hashlib
import json
import re
import struct
from pathlib import Path

import osmium
import pytest
import shapely.geometry
from hypothesis import given, settings
from hypothesis import strategies as st

from skyscript_assets.lib.errors import (
    CorruptInputError,
    DigestMismatchError,
    MissingInputError,
    NotCoveredError,
    SettingsError,
)
from skyscript_assets.lib.osm import origin
from skyscript_assets.lib.osm.extract import read_header, stage_extract
from skyscript_assets.lib.osm.origin import read_of_region
from skyscript_assets.lib.settings.base import BBox
from skyscript_assets.lib.settings.regions import PackageFile, Region
from tests.workshop import shared_in

BOX = (10.0, 50.0, 10.5, 50.25)


def write_extract(path: Path, box: tuple[float, float, float, float] | None = BOX, nodes: int = 50) -> Path:
    header = osmium.io.Header()
    header.set("generator", "a test")
    header.set("osmosis_replication_timestamp", "2024-05-06T07:08:09Z")
    if box is not None:
        west, south, east, north = box
        header.add_box(osmium.osm.Box(west, south, east, north))
    with osmium.SimpleWriter(path, header=header, overwrite=True) as writer:
        for i in range(1, nodes + 1):
            place = (10 + i / 1000, 50 + i / 1000)
            writer.add_node(osmium.osm.mutable.Node(id=i, version=1, location=place, tags={"natural": "tree"}))
    return path


def stage(folder: Path, **region: object) -> dict[str, object]:
    out = folder / "out"
    out.mkdir(exist_ok=True)
    stage_extract("here", Region(title="Here", **region), shared_in(folder), out)
    return json.loads((out / "extract.json").read_text())


@pytest.mark.parametrize("suffix", [".osm.pbf", ".osm", ".osm.bz2", ".osm.gz"])
def test_the_header_is_read_of_every_format(tmp_path: Path, suffix: str) -> None:
    header = read_header(write_extract(tmp_path / f"a{suffix}"))
    assert header["header_bbox"] == pytest.approx(BOX)
    assert header["generator"] == "a test"
    if suffix == ".osm.pbf":
        assert header["timestamp"] == "2024-05-06T07:08:09Z"


@pytest.mark.parametrize("suffix", [".osm.pbf", ".osm.gz"])
@pytest.mark.parametrize("box", [(0.0, 0.0, 180.0, 90.0), (-180.0, -90.0, 180.0, 90.0), (1.0, 1.0, 1.0, 2.0)])
def test_a_box_that_says_nothing_is_named_and_another_asked_for(
    tmp_path: Path, box: tuple[float, float, float, float], suffix: str
) -> None:
    write_extract(tmp_path / f"a{suffix}", box)
    with pytest.raises(SettingsError) as refused:
        stage(tmp_path, path=f"a{suffix}")
    assert str(refused.value) == (
        f"region here: the header of {tmp_path / f'a{suffix}'} states the box {box}, which does not tell the ground of "
        "the extract; give regions.here.bbox (west, south, east, north) in regions.yaml"
    )
    bbox = BBox(west=10, south=50, east=11, north=51)
    assert stage(tmp_path, path=f"a{suffix}", bbox=bbox)["bbox"] == [10, 50, 11, 51]


def test_the_header_s_replication_and_order_are_read(tmp_path: Path) -> None:
    header = osmium.io.Header()
    header.set("osmosis_replication_sequence_number", "3402")
    header.set("osmosis_replication_base_url", "https://example.org/updates")
    header.set("sorting", "Type_then_ID")
    with osmium.SimpleWriter(tmp_path / "a.osm.pbf", header=header) as writer:
        writer.add_node(osmium.osm.mutable.Node(id=1, version=1, location=(10, 50)))
    found = read_header(tmp_path / "a.osm.pbf")
    assert (found["replication_url"], found["replication_sequence"]) == ("https://example.org/updates", 3402)
    assert found["sorted"]
    assert found["required_features"] == ("OsmSchema-V0.6", "DenseNodes")
    assert found["optional_features"] == ("Sort.Type_then_ID",)


def test_a_local_extract_is_staged_with_its_facts(tmp_path: Path) -> None:
    source = write_extract(tmp_path / "region.pbf")
    facts = stage(tmp_path, path="region.pbf")
    assert facts == {
        "file": "extract.osm.pbf",
        "bbox": pytest.approx(list(BOX)),
        "header_bbox": pytest.approx(list(BOX)),
        "timestamp": "2024-05-06T07:08:09Z",
        "replication_url": None,
        "replication_sequence": None,
        "generator": "a test",
        "required_features": ["OsmSchema-V0.6", "DenseNodes"],
        "optional_features": [],
        "sorted": False,
        "sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        "size_bytes": source.stat().st_size,
    }
    assert (tmp_path / "out/extract.osm.pbf").read_bytes() == source.read_bytes()
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["extract.json", "extract.osm.pbf"]


def test_overwriting_the_original_leaves_the_staged_extract_alone(tmp_path: Path) -> None:
    source = write_extract(tmp_path / "region.osm.pbf")
    before = source.read_bytes()
    stage(tmp_path, path="region.osm.pbf")
    source.write_bytes(b"something else")
    assert (tmp_path / "out/extract.osm.pbf").read_bytes() == before


def test_copying_tells_its_progress(tmp_path: Path) -> None:
    size = write_extract(tmp_path / "region.osm.pbf").stat().st_size
    told: list[tuple[int, int, str]] = []
    stage_extract(
        "here",
        Region(title="Here", path="region.osm.pbf"),
        shared_in(tmp_path),
        tmp_path,
        lambda *args: told.append(args),
    )
    assert told[-1] == (size, size, "bytes")


def test_the_box_of_the_settings_wins_over_the_header(tmp_path: Path) -> None:
    write_extract(tmp_path / "region.osm.pbf")
    facts = stage(tmp_path, path="region.osm.pbf", bbox=BBox(west=10.1, south=50.1, east=10.2, north=50.2))
    assert facts["bbox"] == [10.1, 50.1, 10.2, 50.2]
    assert facts["header_bbox"] == pytest.approx(list(BOX))


def test_a_box_elsewhere_is_not_covered(tmp_path: Path) -> None:
    write_extract(tmp_path / "region.osm.pbf")
    with pytest.raises(NotCoveredError, match=r"region here: the box .* shares no ground with .*region\.osm\.pbf"):
        stage(tmp_path, path="region.osm.pbf", bbox=BBox(west=20, south=50, east=21, north=51))
    assert list((tmp_path / "out").iterdir()) == []


def test_without_any_box_the_settings_are_asked_for_one(tmp_path: Path) -> None:
    write_extract(tmp_path / "region.osm.pbf", box=None)
    with pytest.raises(SettingsError, match=r"give regions\.here\.bbox .* in regions\.yaml"):
        stage(tmp_path, path="region.osm.pbf")
    bbox = BBox(west=10, south=50, east=11, north=51)
    assert stage(tmp_path, path="region.osm.pbf", bbox=bbox)["header_bbox"] is None


def test_a_header_s_box_across_the_antimeridian_goes_on_beyond_180(tmp_path: Path) -> None:
    write_extract(tmp_path / "region.osm", (1.0, 2.0, 3.0, 4.0))
    text = (tmp_path / "region.osm").read_text()
    bounds = "<bounds maxlat='-16.9' minlat='-17.1' maxlon='-179.9' minlon='179.9' origin='here'/>"
    (tmp_path / "region.osm").write_text(re.sub("<bounds.*?/>", bounds, text))
    facts = stage(tmp_path, path="region.osm")
    assert (facts["header_bbox"], facts["bbox"]) == ([179.9, -17.1, -179.9, -16.9], [179.9, -17.1, 180.1, -16.9])


@pytest.mark.parametrize(("west", "east"), [(-179.95, -179.92), (179.0, -179.0)])
def test_a_box_of_the_settings_may_lie_on_either_side_of_180(tmp_path: Path, west: float, east: float) -> None:
    (tmp_path / "a.osm").write_text(
        '<osm version="0.6"><bounds minlon="179.9" minlat="-17.1" maxlon="-179.9" maxlat="-16.9"/>'
        '<node id="1" lat="-17" lon="180"><tag k="natural" v="tree"/></node></osm>'
    )
    bbox = BBox(west=west, south=-17, east=east, north=-16.95)
    assert stage(tmp_path, path="a.osm", bbox=bbox)["bbox"] == list(bbox.bounds)
    with pytest.raises(NotCoveredError, match="shares no ground"):
        stage(tmp_path, path="a.osm", bbox=BBox(west=170, south=-17, east=171, north=-16.95))


SQUARE = {"type": "Polygon", "coordinates": [[[10.1, 50.1], [10.3, 50.1], [10.3, 50.2], [10.1, 50.1]]]}


def test_the_polygon_of_the_settings_is_the_ground(tmp_path: Path) -> None:
    write_extract(tmp_path / "region.osm.pbf")
    (tmp_path / "ground.geojson").write_text(json.dumps(SQUARE))
    facts = stage(tmp_path, path="region.osm.pbf", polygon="ground.geojson")
    assert facts["bbox"] == [10.1, 50.1, 10.3, 50.2]
    assert shapely.geometry.shape(facts["polygon"]).equals(shapely.geometry.shape(SQUARE))


def test_the_counts_of_a_polygon_are_its_vertices(tmp_path: Path) -> None:
    write_extract(tmp_path / "region.osm.pbf")
    (tmp_path / "ground.geojson").write_text(json.dumps(SQUARE))
    region = Region(title="Here", path="region.osm.pbf", polygon="ground.geojson")
    counts = stage_extract("here", region, shared_in(tmp_path), tmp_path)
    assert (counts["polygon"], counts["checksum"], counts["etag"]) == (4, "none", None)


def test_a_polygon_elsewhere_is_not_covered(tmp_path: Path) -> None:
    write_extract(tmp_path / "region.osm.pbf", box=(20.0, 50.0, 21.0, 51.0))
    (tmp_path / "ground.geojson").write_text(json.dumps(SQUARE))
    with pytest.raises(NotCoveredError, match=r"the polygon ground\.geojson of regions\.yaml shares no ground with"):
        stage(tmp_path, path="region.osm.pbf", polygon="ground.geojson")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_wrong_polygon_is_found_before_anything_is_copied(tmp_path: Path) -> None:
    (tmp_path / "ground.poly").write_text("here\nEND\n")
    with pytest.raises(CorruptInputError, match=r"ground\.poly: there is no ring"):
        stage(tmp_path, path="gone.osm.pbf", polygon="ground.poly")


def test_what_a_region_reads_changes_with_its_polygon(tmp_path: Path) -> None:
    region, settings = Region(title="Here", path="region.osm.pbf", polygon="ground.geojson"), shared_in(tmp_path)
    read = [read_of_region(region, settings)]
    for content in (SQUARE, {"type": "Polygon", "coordinates": []}):
        (tmp_path / "ground.geojson").write_text(json.dumps(content))
        read += [read_of_region(region, settings)]
    assert len({facts["polygon"] for facts in read}) == 3


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"gone\.osm\.pbf does not exist.*regions\.here\.path"):
        stage(tmp_path, path="gone.osm.pbf")


def test_reading_the_header_of_a_missing_file_names_it(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"gone\.osm\.pbf"):
        read_header(tmp_path / "gone.osm.pbf")


def test_an_unknown_ending_is_refused_before_anything_is_copied(tmp_path: Path) -> None:
    (tmp_path / "region.zip").write_bytes(b"PK")
    with pytest.raises(SettingsError, match=r"region\.zip is none of \.osm\.pbf"):
        stage(tmp_path, path="region.zip")


def blocks_end_at(data: bytes) -> set[int]:
    """Where a PBF's blocks end: cut there it looks whole."""
    ends, position = set(), 0
    while position < len(data):
        length = struct.unpack_from(">I", data, position)[0]
        # The blob's length is the last field of its header, a number of seven bits a byte.
        size = shift = 0
        for byte in data[position + 4 : position + 4 + length].rpartition(b"\x18")[2]:
            size, shift = size | (byte & 127) << shift, shift + 7
        position += 4 + length + size
        ends.add(position)
    return ends


@pytest.fixture(scope="module")
def three_blocks(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_extract(tmp_path_factory.mktemp("blocks") / "a.osm.pbf", nodes=17_000).read_bytes()


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_a_pbf_cut_at_any_byte_is_corrupt(
    tmp_path_factory: pytest.TempPathFactory, three_blocks: bytes, data: st.DataObject
) -> None:
    ends = sorted(blocks_end_at(three_blocks))
    assert (len(ends), ends[-1]) == (4, len(three_blocks))
    folder = tmp_path_factory.mktemp("cut")
    cut = data.draw(st.integers(0, len(three_blocks) - 1).filter(lambda cut: cut not in ends[1:]))
    (folder / "a.osm.pbf").write_bytes(three_blocks[:cut])
    with pytest.raises(CorruptInputError, match=f"region here: {folder}/a.osm.pbf .*get the extract again"):
        stage(folder, path="a.osm.pbf")


@pytest.mark.parametrize("cut", [1, 100, 0.5])
def test_a_truncated_pbf_is_corrupt(tmp_path: Path, cut: float) -> None:
    path = write_extract(tmp_path / "region.osm.pbf", nodes=20_000)
    data = path.read_bytes()
    path.write_bytes(data[: -cut if isinstance(cut, int) else int(len(data) * cut)])
    with pytest.raises(CorruptInputError, match=r"region here: .*region\.osm\.pbf .*get the extract again"):
        stage(tmp_path, path="region.osm.pbf")
    assert list((tmp_path / "out").iterdir()) == []


def test_damage_inside_a_block_is_found(tmp_path: Path) -> None:
    path = write_extract(tmp_path / "region.osm.pbf", nodes=20_000)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 200] = bytes(200)
    path.write_bytes(data)
    with pytest.raises(CorruptInputError, match="is not whole"):
        stage(tmp_path, path="region.osm.pbf")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("page.osm.pbf", b"<html><body>Not found</body></html>"),
        ("page.osm", b"<html></html>"),
        ("short.osm", b"<osm version='0.6'><node id='1' lat='1' lon='1' version='1'/>"),
        ("short.osm.bz2", bz2.compress(b"<osm version='0.6'></osm>")[:-6]),
        ("short.osm.gz", gzip.compress(b"<osm version='0.6'>", mtime=0)),
        ("empty.osm.pbf", b""),
        ("empty.osm", b""),
    ],
)
def test_what_is_no_whole_extract_is_corrupt(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(CorruptInputError, match=f"region here: {tmp_path}/{name}"):
        stage(tmp_path, path=name)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_file_with_the_history_of_objects_is_refused(tmp_path: Path) -> None:
    header = osmium.io.Header()
    header.has_multiple_object_versions = True
    with osmium.SimpleWriter(tmp_path / "a.osh.pbf", header=header) as writer:
        writer.add_node(osmium.osm.mutable.Node(id=1, version=1, location=(10, 50)))
    with pytest.raises(CorruptInputError, match="without history"):
        stage(tmp_path, path="a.osh.pbf")


def test_a_wrong_sha256_is_a_mismatch(tmp_path: Path) -> None:
    write_extract(tmp_path / "region.osm.pbf")
    with pytest.raises(DigestMismatchError, match="the settings promise 0000"):
        stage(tmp_path, path="region.osm.pbf", sha256="0" * 64)


def test_a_file_of_an_installed_package_is_found_without_importing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "carrier"
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    write_extract(package / "data/Region.osm.pbf")
    monkeypatch.syspath_prepend(tmp_path)
    assert stage(tmp_path, package=PackageFile(package="carrier", file="data/Region.osm.pbf"))["size_bytes"] > 0
    with pytest.raises(MissingInputError, match=r"carrier has no file data/Other\.osm\.pbf"):
        stage(tmp_path, package=PackageFile(package="carrier", file="data/Other.osm.pbf"))


def test_a_package_that_is_not_installed_comes_with_its_remedy(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"pip install 'skyscript-assets\[demo\]'"):
        stage(tmp_path, package=PackageFile(package="no_such_package", file="a.osm.pbf"))


@pytest.mark.parametrize("limit", [1 << 24, 1 << 8])
def test_the_stamp_changes_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr(origin, "STAMPED_WHOLE_BYTES", limit)
    path = write_extract(tmp_path / "region.osm.pbf", nodes=2000)
    region, settings = Region(title="Here", path="region.osm.pbf"), shared_in(tmp_path)
    stamps = [read_of_region(region, settings)["file"], read_of_region(region, settings)["file"]]
    write_extract(path, nodes=2001)
    stamps.append(read_of_region(region, settings)["file"])
    assert stamps[0] == stamps[1] != stamps[2]


def test_what_is_not_on_this_machine_has_no_stamp(tmp_path: Path) -> None:
    settings = shared_in(tmp_path)
    assert read_of_region(Region(title="Here", url="https://example.org/a.osm.pbf"), settings)["file"] is None
    assert read_of_region(Region(title="Here", path="gone.osm.pbf"), settings)["file"] is None
    package = PackageFile(package="no_such_package", file="a.osm.pbf")
    assert read_of_region(Region(title="Here", package=package), settings)["file"] is None
