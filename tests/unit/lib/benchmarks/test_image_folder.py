import struct
import zlib
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from skyscript_assets.lib.benchmarks import image_folder as module
from skyscript_assets.lib.benchmarks.features import decode
from skyscript_assets.lib.benchmarks.image_folder import ImageFolderBenchmark, build_image_folder
from skyscript_assets.lib.benchmarks.items import BENCHMARK_FILE, ITEMS_FILE, BenchmarkSpec, read_items, read_model
from skyscript_assets.lib.errors import CorruptInputError, MissingInputError

BENCHMARK = ImageFolderBenchmark(title="Photos", csv="test.csv", classnames="classnames.txt")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of four images of two classes: JPEG, grey PNG, TIFF, PNG with alpha."""
    folder = tmp_path / "set"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, mode in (("a.jpg", "RGB"), ("b.png", "L"), ("c.tif", "RGB"), ("d.png", "RGBA")):
        Image.fromarray(rng.integers(0, 255, (20, 30, 4), dtype=np.uint8), "RGBA").convert(mode).save(folder / name)
    rows = ["a.jpg,beach", "b.png,forest", "c.tif,beach", "d.png,forest"]
    (folder / "test.csv").write_text("\n".join(["filepath,label", *rows]) + "\n")
    (folder / "classnames.txt").write_text("beach\nforest\n")
    return folder


def add(photos: Path, row: str) -> None:
    with (photos / "test.csv").open("a") as file:
        file.write(row + "\n")


def build(photos: Path) -> Path:
    out = photos.parent / "out"
    out.mkdir(exist_ok=True)
    build_image_folder(BENCHMARK, photos / BENCHMARK.csv, photos / BENCHMARK.classnames, out)
    return out


def test_every_image_is_packed_with_its_label_and_its_own_bytes(photos: Path) -> None:
    out = build(photos)
    rows = pq.read_table(out / ITEMS_FILE).to_pylist()
    assert [row["label"] for row in rows] == ["beach", "forest", "beach", "forest"]
    assert all(row["truth"] == [row["label"]] and row["split"] == "test" for row in rows)
    for row in rows:
        assert row["image"] == (photos / row["item_id"]).read_bytes()
        assert decode(row["image"]).shape == (20, 30, 3)
        assert (row["width"], row["height"]) == (30, 20)


def test_the_description_has_the_classes_in_the_order_of_their_file(photos: Path) -> None:
    (photos / "classnames.txt").write_text("forest\n\nbeach\n")
    spec = read_model(build(photos) / BENCHMARK_FILE, BenchmarkSpec)
    assert [cls.name for cls in spec.classes] == ["forest", "beach"]
    assert not spec.synthetic
    assert spec.items == {"test": 4}


def test_the_digest_changes_with_the_images_alone(photos: Path) -> None:
    first = read_model(build(photos) / BENCHMARK_FILE, BenchmarkSpec).images_digest
    (photos / "classnames.txt").write_text("forest\nbeach\nsea\n")
    assert read_model(build(photos) / BENCHMARK_FILE, BenchmarkSpec).images_digest == first
    Image.new("RGB", (5, 5)).save(photos / "a.jpg")
    assert read_model(build(photos) / BENCHMARK_FILE, BenchmarkSpec).images_digest != first


def test_every_bad_row_is_named_by_line(photos: Path) -> None:
    (photos / "broken.jpg").write_bytes((photos / "a.jpg").read_bytes()[:200])
    (photos / "text.png").write_text("no image")
    (photos.parent / "secret.png").write_bytes((photos / "d.png").read_bytes())
    (photos / "link.png").symlink_to(photos.parent / "secret.png")
    for row in ("gone.jpg,beach", "../secret.png,beach", "link.png,beach", "broken.jpg,beach", "text.png,beach"):
        add(photos, row)
    with pytest.raises(CorruptInputError) as caught:
        build(photos)
    message = str(caught.value)
    assert "5 rows cannot be used" in message
    assert "line 6: gone.jpg: does not exist" in message
    assert "line 7: ../secret.png: leaves the folder" in message
    assert "line 8: link.png: leaves the folder" in message
    assert "line 9: broken.jpg: cannot be decoded" in message
    assert "line 10: text.png: cannot be decoded" in message
    assert not (photos.parent / "out" / ITEMS_FILE).exists()


def test_a_long_list_of_problems_is_cut_and_counted(photos: Path) -> None:
    for i in range(9):
        add(photos, f"{i}.jpg,beach")
    with pytest.raises(CorruptInputError, match=r"9 rows.*(?s:.*)and 4 more"):
        build(photos)


def test_an_unknown_label_is_named(photos: Path) -> None:
    Image.new("RGB", (5, 5)).save(photos / "e.png")
    add(photos, "e.png,desert")
    with pytest.raises(CorruptInputError, match="line 6: label 'desert' is not in classnames.txt"):
        build(photos)


def test_an_image_that_claims_to_be_huge_is_not_unpacked(photos: Path) -> None:
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    (photos / "bomb.png").write_bytes(png)
    add(photos, "bomb.png,beach")
    with pytest.raises(CorruptInputError, match=r"line 6: bomb\.png"):
        build(photos)


@pytest.mark.parametrize(("limit", "message"), [("MAX_BYTES", "is larger than"), ("MAX_PIXELS", "30 x 20 pixels")])
def test_large_images_are_refused(photos: Path, monkeypatch: pytest.MonkeyPatch, limit: str, message: str) -> None:
    monkeypatch.setattr(module, limit, 100)
    with pytest.raises(CorruptInputError, match=message):
        build(photos)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("test.csv", "path,label\na.jpg,beach\n", "needs the columns filepath and label"),
        ("test.csv", "filepath,label\n", "has no rows"),
        ("test.csv", "", "found nothing"),
        ("test.csv", "filepath,label\na.jpg,beach\na.jpg,beach\n", "line 3 repeats a.jpg of line 2"),
        ("test.csv", "filepath,label\na.jpg\n", "label '' is not in"),
        ("test.csv", "filepath,label\n,beach\n", "is no path"),
        ("test.csv", "filepath,label\n" + "a" * 200_000 + ",beach\n", "is not CSV after line 1"),
        ("test.csv", "filepath,label," + "a" * 200_000, "is not CSV after line 0"),
        ("test.csv", "filepath,label\n" + "a" * 2_000 + ",beach\n", "File name too long"),
        ("classnames.txt", "beach\n", "at least two class names"),
        ("classnames.txt", "beach\nbeach\n", "none twice"),
    ],
)
def test_malformed_lists_are_reported(photos: Path, file: str, content: str, message: str) -> None:
    (photos / file).write_text(content)
    with pytest.raises(CorruptInputError, match=message):
        build(photos)


def test_a_list_that_is_no_text_is_reported(photos: Path) -> None:
    (photos / "test.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CorruptInputError, match="is not UTF-8"):
        build(photos)


def test_a_missing_list_is_named(photos: Path) -> None:
    (photos / "test.csv").unlink()
    with pytest.raises(MissingInputError, match=r"test\.csv cannot be read"):
        build(photos)


def test_items_without_images_are_read_back(photos: Path) -> None:
    assert "image" not in read_items(build(photos)).schema.names
