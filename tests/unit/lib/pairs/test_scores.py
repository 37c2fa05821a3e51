"""Scores by several scorers and of several styles; those by the first one alone are in test_chip_features."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from skyscript_assets.lib.errors import CorruptInputError, SettingsError
from skyscript_assets.lib.pairs import scores as scores_module
from skyscript_assets.lib.pairs.features import accepted_chips
from skyscript_assets.lib.pairs.scores import SCORE_SCHEMA, write_scores
from skyscript_assets.lib.settings.models import OpenClipBase
from skyscript_assets.lib.settings.plant import ScoredText
from skyscript_assets.lib.tables import read_table, write_table
from skyscript_assets.lib.towers.bases import load_base
from skyscript_assets.lib.towers.model import ClipModel

FIRST, TITLE = "lite0-minilm@1", ScoredText()


class Lightness:
    """Gives each pair the mean of its image, and a tenth of the length of its text."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def score_pairs(self, images: Sequence[np.ndarray], texts: Sequence[str]) -> Any:
        self.shapes += [image.shape for image in images]
        return [image.mean() + len(text) / 10 for image, text in zip(images, texts, strict=True)]


class Redness:
    """Embeds an image by its mean colour, a text by the colour that it is of."""

    def encode_images(self, images: Sequence[np.ndarray]) -> Any:
        return np.array([image.mean(axis=(0, 1)) for image in images])

    def encode_texts(self, texts: Sequence[str]) -> Any:
        return np.array([[255, 0, 0] if "building" in text else [0, 255, 255] for text in texts])


def scored(
    town: Any, model: ClipModel, out: Path, text: ScoredText = TITLE, models: dict[str, Any] | None = None
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    chips = accepted_chips(town.chips, town.plan)
    told = write_scores(town.root / "features", town.captions, chips, (FIRST, model), text, out, models)
    return told, read_table(out / "scores.parquet", SCORE_SCHEMA).to_pylist(maps_as_pydicts="strict")


@pytest.fixture
def town(featured_town: Any, tmp_path: Path) -> Any:
    """A copy whose captions may be changed."""
    shutil.copytree(featured_town.root, tmp_path / "town")
    return dataclasses.replace(featured_town, root=tmp_path / "town")


def change_captions(town: Any, **columns: list[str]) -> None:
    path = town.captions / "captions.parquet"
    table = read_table(path)
    for name, column in columns.items():
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(column))
    write_table(path, table)


def test_each_style_has_its_score_and_sentences_no_prefix(town: Any, joint_model: ClipModel, out: Path) -> None:
    sentences = [f"A {title} lies here." for title in town.titles]
    change_captions(town, natural_long=sentences)
    text = ScoredText(further_styles=("natural_long", "title_multi_objects", "title"))
    told, rows = scored(town, joint_model, out, text)
    _, alone = scored(town, joint_model, out, ScoredText(column="natural_long", prefix=""))
    np.testing.assert_allclose(
        [row["scores"][FIRST]["natural_long"] for row in rows], [row["score"] for row in alone], atol=1e-6
    )
    for row in rows:
        own = row["scores"][FIRST]
        assert own["title"] == row["score"] == pytest.approx(own["title_multi_objects"], abs=1e-6)
        assert own["natural_short"] is None
    assert {row["column"] for row in rows} == {"title"}
    assert list(told["scores"]) == [f"{FIRST} {style}" for style in ("title", "natural_long", "title_multi_objects")]
    assert told["scores"][f"{FIRST} title_multi_objects"]["agreement"] == pytest.approx(1.0)


def test_an_empty_caption_has_no_score(town: Any, joint_model: ClipModel, out: Path) -> None:
    change_captions(town, title=["", " ", *town.titles[2:]])
    told, rows = scored(town, joint_model, out)
    assert [row["score"] is None for row in rows] == [True, True, *[False] * (len(rows) - 2)]
    assert rows[0]["scores"] == {FIRST: dict.fromkeys(rows[0]["scores"][FIRST])}
    assert told["scores"][f"{FIRST} title"]["mean"] == pytest.approx(np.mean([row["score"] for row in rows[2:]]))


def test_scorers_of_packages_see_the_chip_and_its_caption(
    town: Any, joint_model: ClipModel, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scores_module, "BATCH_CHIPS", 7)
    light = Lightness()
    told, rows = scored(town, joint_model, out, models={"light@1": light, "red@1": Redness()})
    assert set(light.shapes) == {(48, 48, 3)}
    # The focus boxes lie at the left, so the square is the left one.
    for row, image, title in zip(rows, town.images, town.titles, strict=True):
        square = image[:, 2:50].astype(float)
        light_of = square.mean() + len(f"a satellite image of {title}") / 10
        assert row["scores"]["light@1"]["title"] == pytest.approx(light_of, abs=1.5)
        wanted, colour = np.array([1, 0, 0] if title == "building" else [0, 1, 1]), square.mean(axis=(0, 1))
        cosine = colour @ wanted / np.linalg.norm(colour) / np.linalg.norm(wanted)
        assert row["scores"]["red@1"]["title"] == pytest.approx(cosine, abs=0.02)
        assert (row["scorer"], row["score"]) == (FIRST, row["scores"][FIRST]["title"])
    assert list(told["scores"]) == [f"{name} title" for name in (FIRST, "light@1", "red@1")]


def test_a_further_base_gives_what_it_gives_as_the_first(
    town: Any, joint_model: ClipModel, tiny_base: OpenClipBase, out: Path
) -> None:
    other = load_base(tiny_base, {}, seed=0)
    _, rows = scored(town, joint_model, out, models={"tiny@1": other})
    texts = other.encode_texts([f"a satellite image of {title}" for title in town.titles])
    images = other.encode_images([other.view(image, [2, 3, 20, 20]) for image in town.images])
    # The pictures are JPEGs meanwhile.
    np.testing.assert_allclose([row["scores"]["tiny@1"]["title"] for row in rows], (images * texts).sum(1), atol=0.02)


SHAPE = r"answers with numbers of shape .*, wanted: \(60,\)"
NO_NUMBERS = r".* no (finite )?numbers"


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (np.zeros((2, 3)), SHAPE),
        (np.zeros(1), SHAPE),
        (0.5, SHAPE),
        ([float("nan")] * 60, NO_NUMBERS),
        ([float("inf")] * 60, NO_NUMBERS),
        (["high"] * 60, NO_NUMBERS),
        ([[1.0]] * 59 + [[1.0, 2.0]], NO_NUMBERS),
    ],
)
def test_a_scorer_that_does_not_answer_with_a_number_for_each_pair_is_told(
    town: Any, joint_model: ClipModel, out: Path, answer: Any, told: str
) -> None:
    class Odd(Lightness):
        def score_pairs(self, images: Sequence[np.ndarray], texts: Sequence[str]) -> Any:
            return answer

    with pytest.raises(SettingsError, match=f"scorer odd@1 {told}"):
        scored(town, joint_model, out, models={"odd@1": Odd()})


def test_embeddings_of_several_lengths_are_told(
    town: Any, joint_model: ClipModel, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Growing(Redness):
        length = 0

        def encode_images(self, images: Sequence[np.ndarray]) -> Any:
            self.length += 1
            return np.ones((len(images), self.length))

    monkeypatch.setattr(scores_module, "BATCH_CHIPS", 7)
    with pytest.raises(SettingsError, match=r"scorer odd@1 answers with numbers of shape \(7, 2\), wanted: \(7, 1\)"):
        scored(town, joint_model, out, models={"odd@1": Growing()})


def test_a_chip_without_an_image_is_told(town: Any, joint_model: ClipModel, out: Path) -> None:
    table = read_table(town.chips / "chips.parquet")
    write_table(town.chips / "chips.parquet", table.slice(1))
    with pytest.raises(CorruptInputError, match=f"1 captioned chips have no image, such as {town.chip_ids[0]}"):
        scored(town, joint_model, out, models={"light@1": Lightness()})


class Refusing:
    """Fails where it is told to."""

    def __init__(self, where: str, error: Exception) -> None:
        self.where, self.error = where, error

    def encode_images(self, images: Sequence[np.ndarray]) -> Any:
        return self._or_fail("images", len(images))

    def encode_texts(self, texts: Sequence[str]) -> Any:
        return self._or_fail("texts", len(texts))

    def _or_fail(self, what: str, rows: int) -> Any:
        if what == self.where:
            raise self.error
        return np.ones((rows, 2))


@pytest.mark.parametrize("where", ["images", "texts"])
def test_a_scorer_that_fails_is_told_with_its_package(town: Any, joint_model: ClipModel, out: Path, where: str) -> None:
    told = rf"scorer mine@1 of the package tests failed in tests\..*Refusing.encode_{where} \(KeyError: 'roof'\)"
    with pytest.raises(SettingsError, match=told):
        scored(town, joint_model, out, models={"mine@1": Refusing(where, KeyError("roof"))})
    with pytest.raises(CorruptInputError, match="as it is"):
        scored(town, joint_model, out, models={"mine@1": Refusing(where, CorruptInputError("as it is"))})


def test_a_killed_run_goes_on_after_its_last_part(
    town: Any, joint_model: ClipModel, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scores_module, "PART_CHIPS", 25)

    class Killed(Lightness):
        def score_pairs(self, images: Sequence[np.ndarray], texts: Sequence[str]) -> Any:
            if len(self.shapes) >= 50:
                raise KeyboardInterrupt
            return super().score_pairs(images, texts)

    with pytest.raises(KeyboardInterrupt):
        scored(town, joint_model, out, models={"light@1": Killed()})
    (whole := tmp_path / "whole").mkdir()
    scored(town, joint_model, whole, models={"light@1": Lightness()})
    scored(town, joint_model, out, models={"light@1": (rest := Lightness())})
    assert len(rest.shapes) == 10
    assert (out / "scores.parquet").read_bytes() == (whole / "scores.parquet").read_bytes()
    assert [path.name for path in out.iterdir()] == ["scores.parquet"]
