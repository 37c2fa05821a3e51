"""Images of a folder, told apart by a model that was never told of the classes."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skyscript_assets.lib.benchmarks.classify import classify_folder
from skyscript_assets.lib.errors import MissingInputError
from skyscript_assets.lib.towers.bases import load_base

PROMPTS = ["a photo of {c}", "{c} from above"]


@pytest.fixture
def encoder(tiny_base):
    return load_base(tiny_base, {}, 0)


def test_each_image_gets_the_class_of_the_nearest_text_and_broken_ones_are_told(tmp_path: Path, encoder) -> None:
    folder = tmp_path / "images"
    (folder / "deep").mkdir(parents=True)
    rng = np.random.default_rng(0)
    pictures = {f"deep/{n}.png": rng.integers(0, 256, (40, 60, 3), dtype=np.uint8) for n in range(70)}
    for name, pixels in pictures.items():
        Image.fromarray(pixels).save(folder / name)
    (folder / "broken.JPG").write_bytes(b"\xff\xd8 no image")
    (folder / "notes.txt").write_text("no image at all")
    told = []
    found = classify_folder(
        folder, encoder, ["forest", "sea"], PROMPTS, tmp_path / "out.csv", lambda *step: told.append(step)
    )
    assert found.counts.total() == 70
    assert list(found.unread) == [str(folder / "broken.JPG")]
    assert told[-1] == (71, 71, "images")
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == sorted(pictures)
    texts = [
        np.mean([encoder.encode_texts([p.replace("{c}", name)])[0] for p in PROMPTS], 0) for name in ("forest", "sea")
    ]
    expected = encoder.encode_images([pictures[row["path"]] for row in rows]) @ np.stack(
        [text / np.linalg.norm(text) for text in texts], 1
    )
    for row, likeness in zip(rows, expected, strict=True):
        assert [float(row["forest"]), float(row["sea"])] == pytest.approx(likeness.tolist(), abs=1e-4)
        assert row["class"] == ("forest", "sea")[int(likeness.argmax())]


def test_a_folder_without_an_image_is_told(tmp_path: Path, encoder) -> None:
    with pytest.raises(MissingInputError, match=r"holds no image: name a folder of \.bmp"):
        classify_folder(tmp_path, encoder, ["a", "b"], PROMPTS, tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()
