"""The evaluator must give the figures that were published for embeddings that others computed."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from benchmarks.published_features import evaluate_published_features
from skyscript_assets.lib.benchmarks.evaluate import evaluate
from skyscript_assets.lib.benchmarks.image_folder import ImageFolderBenchmark, build_image_folder
from skyscript_assets.lib.files import file_sha256
from skyscript_assets.lib.settings.base import Shared

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def features(shared_data: Path) -> Path:
    folder = shared_data / "benchmarks" / "whurs19_published_features"
    if not folder.is_dir():
        pytest.skip(f"published embeddings are absent: {folder} does not exist")
    return folder


@pytest.mark.integration
@pytest.mark.parametrize(
    ("model", "photo", "mean"), [("CLIP_ViT-B-32", 76.62, 76.72), ("SkyCLIP50_ViT-B-32", 89.95, 90.35)]
)
def test_published_embeddings_give_the_published_accuracy(
    features: Path, model: str, photo: float, mean: float
) -> None:
    figures = evaluate_published_features(features / f"{model}.safetensors")
    assert figures.images == 1005
    assert figures.classes == 19
    assert round(100 * figures.by_prompt["a_satellite_photo_of_a"], 2) == photo
    assert round(100 * figures.mean_prompt, 2) == mean


class Published:
    """A model whose embeddings others have computed: an image holds its number, a text its prompt and class."""

    def __init__(self, path: Path, classes: list[str]) -> None:
        self.arrays, self.classes = load_file(path), classes
        self.logit_scale = 100.0
        self.tower_digest = file_sha256(path)

    def image_features(self, images: list[np.ndarray]) -> np.ndarray:
        numbers = [int(image[0, 0, 0]) * 256 + int(image[0, 0, 1]) for image in images]
        return self.arrays["images"][numbers].astype(np.float32)

    def project_image(self, features: np.ndarray) -> np.ndarray:
        return features

    def encode_texts(self, texts: list[str]) -> np.ndarray:
        prompt = texts[0].removesuffix(self.classes[0]).strip().replace(" ", "_")
        return self.arrays[f"text_{prompt}"].astype(np.float32)


@pytest.mark.integration
@pytest.mark.parametrize(("model", "mean"), [("CLIP_ViT-B-32", 76.72), ("SkyCLIP50_ViT-B-32", 90.35)])
def test_the_evaluator_gives_the_published_accuracy_by_the_papers_protocol(
    features: Path, model: str, mean: float, tmp_path: Path
) -> None:
    classes = (features / "classes.txt").read_text(encoding="utf-8").split("\n")[:19]
    published = Published(features / f"{model}.safetensors", classes)
    lines = ["filepath,label"]
    for i, label in enumerate(published.arrays["labels"]):
        Image.new("RGB", (1, 1), (i // 256, i % 256, 0)).save(tmp_path / f"{i}.png")
        lines.append(f"{i}.png,{label}")
    (tmp_path / "list.csv").write_text("\n".join(lines))
    (tmp_path / "classnames.txt").write_text("\n".join(classes))
    prompts = ("a satellite photo of a {c}", "a satellite image of a {c}")
    stated = ImageFolderBenchmark(title="WHU-RS19", csv="list.csv", classnames="classnames.txt", prompts=prompts)
    counts = build_image_folder(stated, Shared(folder=tmp_path, zoom=12, geofabrik_mirror="", boxes=()), tmp_path)
    assert counts["found"]["labels"] == "indices"
    (tmp_path / "scores").mkdir()
    scores = evaluate("whu", tmp_path, published, "none", tmp_path / "cache", 100, tmp_path / "scores")
    assert (scores.primary, scores.items) == ("top1", 1005)
    assert round(100 * (scores.first.value or 0), 2) == mean
    assert "2 prompts, normalised mean" in scores.classification_protocol


@pytest.mark.integration
def test_the_command_prints_the_published_accuracies(features: Path) -> None:
    command = [sys.executable, "benchmarks/whurs19.py", "--data", str(features.parent)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True, env={"PYTHONPATH": str(ROOT)})
    for figure in ("76.62", "89.95", "76.72", "90.35"):
        assert figure in done.stdout


@pytest.mark.integration
def test_the_command_says_what_is_missing(tmp_path: Path) -> None:
    command = [sys.executable, "benchmarks/whurs19.py", "--data", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, env={"PYTHONPATH": str(ROOT)})
    assert done.returncode == 1
    assert "does not exist" in done.stderr
