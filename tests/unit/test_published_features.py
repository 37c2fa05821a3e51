from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from benchmarks.published_features import evaluate_published_features
from skyscript_assets.lib.errors import CorruptInputError, MissingInputError


def arrays() -> dict[str, np.ndarray]:
    images = np.eye(3, dtype=np.float16)[[0, 1, 2, 2]]
    return {
        "images": images * np.float16(3),
        "labels": np.array([0, 1, 2, 0]),
        "text_photo": np.eye(3, dtype=np.float16),
        "text_image": np.eye(3, dtype=np.float16)[[1, 0, 2]],
    }


def test_accuracies_come_by_prompt_and_for_their_mean(tmp_path: Path) -> None:
    save_file(arrays(), tmp_path / "f.safetensors")
    figures = evaluate_published_features(tmp_path / "f.safetensors")
    assert figures.by_prompt == {"image": 0.25, "photo": 0.75}
    assert figures.mean_of_prompts == 0.5
    assert figures.mean_prompt == 0.5  # two classes share a prompt direction: each counts half
    assert (figures.images, figures.classes) == (4, 3)


def test_a_missing_file_and_one_of_another_format_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="does not exist"):
        evaluate_published_features(tmp_path / "gone.safetensors")
    (tmp_path / "f.safetensors").write_bytes(b"no tensors at all")
    with pytest.raises(CorruptInputError, match="not a whole safetensors file"):
        evaluate_published_features(tmp_path / "f.safetensors")


@pytest.mark.parametrize(
    "change",
    [
        {"labels": np.array([0, 1, 2, 3])},
        {"labels": np.array([0, 1, 2])},
        {"labels": np.array([0.0, 1.0, 2.0, 0.0])},
        {"images": np.ones((4, 2), np.float16)},
        {"images": np.ones(4, np.float16)},
        {"text_photo": np.ones((2, 3), np.float16)},
    ],
)
def test_arrays_that_do_not_fit_are_refused(change: dict[str, np.ndarray], tmp_path: Path) -> None:
    save_file(arrays() | change, tmp_path / "f.safetensors")
    with pytest.raises(CorruptInputError, match="do not fit each other"):
        evaluate_published_features(tmp_path / "f.safetensors")


def test_missing_arrays_are_listed(tmp_path: Path) -> None:
    save_file({"images": np.ones((1, 2), np.float16)}, tmp_path / "f.safetensors")
    with pytest.raises(CorruptInputError, match=r"needs images, labels and text_<prompt>; found images"):
        evaluate_published_features(tmp_path / "f.safetensors")
