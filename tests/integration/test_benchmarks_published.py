"""The evaluator must give the figures that were published for embeddings that others computed."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.published_features import evaluate_published_features

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
