"""Pairs of others: CSVs, tars, and the published SkyScript."""

import csv
import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from skyscript_assets.lib.chips.quality import measure
from skyscript_assets.lib.errors import CorruptInputError, MissingInputError, SettingsError, SkyScriptError
from skyscript_assets.lib.pairs.foreign import foreign_pairs
from skyscript_assets.lib.pairs.reader import Pairs
from skyscript_assets.lib.tar import TarShard
from tests.partitions import jpeg

BAD = '{"images": [{"filename": "a.jpg", "sentences": [{"raw": 3}]}]}'
HOSTILE = 'a "road",\nß🌳'


def write_csv(path: Path, header: Sequence[str], *rows: Sequence[str]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def write_images(folder: Path, *names: str) -> None:
    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(jpeg(seed))


@pytest.fixture
def skyscript(tmp_path: Path) -> Path:
    """The published layout: images in folders, metas as pickles that must never be read, a CSV with three columns."""
    names = ("images2/a100004947_US_20.jpg", "images3/n7_SWISSIMAGE_21.jpg")
    write_images(tmp_path, *names)
    (tmp_path / "meta2").mkdir()
    bomb = b"cbuiltins\nexec\n(S'raise SystemExit(1)'\ntR."
    (tmp_path / "meta2/a100004947_US_20.pickle").write_bytes(bomb)
    header = ("filepath", "title", "title_multi_objects")
    rows = [(name, "building", f"building {n}, surrounded by road") for n, name in enumerate(names)]
    return write_csv(tmp_path / "SkyScript_train.csv", header, *rows)


def test_the_published_set_is_read_without_its_metas(skyscript: Path) -> None:
    foreign = foreign_pairs(skyscript, title="title_multi_objects")
    assert foreign.table["object_id"].to_pylist() == ["a100004947", "n7"]
    pairs = {pair.chip_id: pair for pair in Pairs(foreign)}
    pair = pairs["images2/a100004947_US_20.jpg"]
    assert np.array_equal(pair.image, simplejpeg.decode_jpeg(jpeg(0)))
    assert (pair.text, pair.split, pair.focus_box) == ("building 0, surrounded by road", "train", None)


def test_digests_are_those_that_chips_have(skyscript: Path) -> None:
    table = foreign_pairs(skyscript).with_digests().table
    assert table["sha256"].to_pylist() == [hashlib.sha256(jpeg(n)).hexdigest() for n in range(2)]
    shown = simplejpeg.decode_jpeg(jpeg(1))
    assert table["phash"].to_pylist()[1] == measure(shown, None, (10, 20, 60, 70)).phash
    (skyscript.parent / "images3/n7_SWISSIMAGE_21.jpg").write_bytes(b"no image")
    with pytest.raises(CorruptInputError, match=r"images3/n7_SWISSIMAGE_21\.jpg.*cannot be decoded"):
        foreign_pairs(skyscript).with_digests()


def test_digests_guard_what_is_read_after_them(skyscript: Path) -> None:
    foreign = foreign_pairs(skyscript).with_digests()
    other = bytearray(jpeg(1))
    other[-9] ^= 1
    (skyscript.parent / "images3/n7_SWISSIMAGE_21.jpg").write_bytes(other)
    with pytest.raises(CorruptInputError, match="n7_SWISSIMAGE_21.*not the one that was listed.*list the pairs again"):
        list(Pairs(foreign))


def test_columns_are_named_and_images_may_lie_elsewhere(tmp_path: Path) -> None:
    write_images(tmp_path / "pictures", "a.jpg", "b/c.jpg")
    Image.fromarray(np.full((8, 9), 77, np.uint8)).save(tmp_path / "pictures/grey.png")
    rows = [("a.jpg", HOSTILE, "train"), ("b/c.jpg", "x", "test"), ("grey.png", "y", "test")]
    listed = write_csv(tmp_path / "list.csv", ("path", "caption", "part"), *rows)
    foreign = foreign_pairs(listed, tmp_path / "pictures", path="path", title="caption", split="part")
    assert [pair.text for pair in Pairs(foreign)] == [HOSTILE]
    shapes = {pair.chip_id: pair.image.shape for pair in Pairs(foreign, "test")}
    assert shapes == {"b/c.jpg": (100, 120, 3), "grey.png": (8, 9, 3)}
    with pytest.raises(SettingsError, match="choose by split alone"):
        Pairs(foreign, share=0.3)
    with pytest.raises(CorruptInputError, match="no filepath and title, its columns are path, caption, part"):
        foreign_pairs(listed)


def test_a_reader_does_not_go_on_in_another_list(tmp_path: Path) -> None:
    write_images(tmp_path, "a.jpg", "b.jpg")
    listed = [[("a.jpg", text), ("b.jpg", "x")] for text in ("x", "x", "y")]
    first, same, other = (
        Pairs(foreign_pairs(write_csv(tmp_path / f"{n}.csv", ("filepath", "title"), *rows)))
        for n, rows in enumerate(listed)
    )
    same.load_state_dict(first.state_dict())
    with pytest.raises(SettingsError, match="state is of another"):
        other.load_state_dict(first.state_dict())


def test_missing_images_are_counted_and_named_or_left_out(tmp_path: Path) -> None:
    write_images(tmp_path, "0.jpg")
    (tmp_path / "1.jpg").touch()
    rows = [(f"{n}.jpg", "text") for n in range(10)]
    listed = write_csv(tmp_path / "list.csv", ("filepath", "title"), *rows)
    told = r"list\.csv: 9 of 10 pairs have no image or text below .*: 1\.jpg, 2\.jpg, 3\.jpg, 4\.jpg, 5\.jpg; get them"
    with pytest.raises(MissingInputError, match=told):
        foreign_pairs(listed)
    foreign = foreign_pairs(listed, skip_missing=True)
    assert (foreign.skipped, foreign.table["chip_id"].to_pylist()) == (9, ["0.jpg"])
    (tmp_path / "0.jpg").unlink()
    with pytest.raises(SkyScriptError, match=r"0\.jpg does not exist, which holds the image of 0\.jpg; get it again"):
        list(Pairs(foreign))


@pytest.mark.parametrize("path", ["../secret.jpg", "/etc/passwd", "a/../../secret.jpg"])
def test_paths_stay_in_their_folder(tmp_path: Path, path: str) -> None:
    (tmp_path / "set").mkdir()
    write_images(tmp_path, "secret.jpg")
    with pytest.raises(CorruptInputError, match="leads out of it"):
        foreign_pairs(write_csv(tmp_path / "set/list.csv", ("filepath", "title"), (path, "x")))


def by_tarfile(path: Path, form: int, *members: tuple[str, bytes]) -> Path:
    with tarfile.open(path, "w", format=form) as tar:
        folder = tarfile.TarInfo("x")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name, data in members:
            about = tarfile.TarInfo(name)
            about.size = len(data)
            tar.addfile(about, io.BytesIO(data))
    return path


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tars_of_others_are_listed_once_and_read_by_place(tmp_path: Path, form: int) -> None:
    long = "x/" + ("n" * 90 if form == tarfile.USTAR_FORMAT else "ü" * 200)
    first = [("x/0.jpg", jpeg(0)), ("x/0.txt", HOSTILE.encode()), (f"{long}.JPG", jpeg(1)), (f"{long}.txt", b"long")]
    by_tarfile(tmp_path / "0.tar", form, *first)
    facts = json.dumps({"caption": "from json", "part": "test"}).encode()
    by_tarfile(tmp_path / "1.tar", form, ("2.json", facts), ("2.png", jpeg(2)), ("3.jpg", jpeg(3)), ("4.txt", b"alone"))
    with pytest.raises(MissingInputError, match="2 of 5 pairs have no image or text below .*: 3, 4;"):
        foreign_pairs(tmp_path, title="caption", split="part")
    foreign = foreign_pairs(tmp_path, title="caption", split="part", skip_missing=True)
    found = {pair.chip_id: pair for pair in Pairs(foreign, ("part", "test"))}
    assert {name: pair.text for name, pair in found.items()} == {"x/0": HOSTILE, long: "long", "2": "from json"}
    assert found["2"].split == "test"
    for seed, name in enumerate(("x/0", long, "2")):
        assert np.array_equal(found[name].image, simplejpeg.decode_jpeg(jpeg(seed)))


def test_a_tar_cut_at_any_byte_is_refused(tmp_path: Path) -> None:
    with TarShard(tmp_path / "whole.tar") as shard:
        for number in range(3):
            shard.add(f"{number}.jpg", jpeg(number, 16, 16))
            shard.add(f"{number}.txt", b"text")
    data, cut = (tmp_path / "whole.tar").read_bytes(), tmp_path / "cut.tar"
    end = shard.size_bytes
    assert foreign_pairs(tmp_path / "whole.tar").table.num_rows == 3
    for size in (*range(0, end, 97), *range(0, end + 1, 512), end - 1):
        cut.write_bytes(data[:size])
        with pytest.raises(CorruptInputError, match=r"cut\.tar"):
            foreign_pairs(cut)


def test_headers_that_lie_are_refused(tmp_path: Path) -> None:
    path = by_tarfile(tmp_path / "a.tar", tarfile.GNU_FORMAT, ("0.jpg", jpeg(0)), ("0.txt", b"x"))
    data = bytearray(path.read_bytes())

    def with_size(field: bytes, kind: bytes) -> None:
        header = bytearray(data[512:1024])
        header[124:136], header[156:157], header[148:156] = field, kind, b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        path.write_bytes(data[:512] + header + data[1024:])

    negative = b"\xff" * 11 + b"\x00"
    for field, kind in ((negative, b"0"), (b"\x80" + b"\x7f" * 11, b"L"), (b"77777777777\0", b"x"), (negative, b"L")):
        with_size(field, kind)
        with pytest.raises(CorruptInputError, match=r"a\.tar"):
            foreign_pairs(path)


def test_a_size_beyond_all_numbers_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        about = tarfile.TarInfo("0.jpg")
        about.pax_headers = {"size": "9" * 23}
        tar.addfile(about)
    with pytest.raises(CorruptInputError, match=r"a\.tar is no list of pairs"):
        foreign_pairs(path)


def test_what_is_null_is_no_text_and_no_split(tmp_path: Path) -> None:
    facts = [{"title": None}, {"title": " "}, {"title": "x", "split": None}]
    members = [(f"{n}.json", json.dumps(each).encode()) for n, each in enumerate(facts)]
    members = [member for n, each in enumerate(members) for member in ((f"{n}.jpg", jpeg(n)), each)]
    foreign = foreign_pairs(by_tarfile(tmp_path / "a.tar", tarfile.GNU_FORMAT, *members), skip_missing=True)
    assert (foreign.skipped, [pair.text for pair in Pairs(foreign)]) == (2, ["x"])


def test_a_quotation_mark_that_is_not_closed_swallows_no_rows(tmp_path: Path) -> None:
    write_images(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / "list.csv").write_text('filepath,title\na.jpg,"open\nb.jpg,x\n')
    with pytest.raises(CorruptInputError, match=r"list\.csv is no list of pairs that can be read \(unexpected end"):
        foreign_pairs(tmp_path / "list.csv")


def test_json_in_a_tar_that_is_no_object_is_refused(tmp_path: Path) -> None:
    path = by_tarfile(tmp_path / "a.tar", tarfile.GNU_FORMAT, ("0.jpg", jpeg(0)), ("0.json", b"[1]"))
    with pytest.raises(CorruptInputError, match=r"a\.tar is no list of pairs"):
        foreign_pairs(path)


def test_sources_that_are_not_there_are_named(tmp_path: Path) -> None:
    for name in ("a.csv", "a.json", "a.tar"):
        with pytest.raises(MissingInputError, match=f"{name} does not exist"):
            foreign_pairs(tmp_path / name)
