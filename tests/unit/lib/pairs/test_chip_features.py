"""Stored features of chips and the scores made of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from skyscript_assets.lib.errors import CorruptInputError, OutputSchemaError, UpstreamMissingError
from skyscript_assets.lib.pairs import features as features_module
from skyscript_assets.lib.pairs.features import accepted_chips, read_chip_features, write_chip_features
from skyscript_assets.lib.pairs.scores import SCORE_SCHEMA, write_scores
from skyscript_assets.lib.settings.plant import ScoredText
from skyscript_assets.lib.tables import read_table, write_table
from skyscript_assets.lib.towers.model import ClipModel, normalised


@pytest.fixture
def town(town_of: Callable):
    return town_of(12)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features_module, "PART_CHIPS", 5)
    monkeypatch.setattr(features_module, "BATCH_CHIPS", 2)


def test_every_accepted_chip_has_its_views_in_plan_order(town, joint_model: ClipModel, out: Path):
    table = read_table(town.chips / "chips.parquet")
    status = ["rejected" if i == 3 else "ok" for i in range(12)]
    write_table(town.chips / "chips.parquet", table.set_column(1, "status", pa.array(status)))
    told = []
    summary = write_chip_features(
        town.chips, town.plan, joint_model, 2, 0, out, lambda done, total, unit: told.append((done, total, unit))
    )
    table = pq.read_table(out / "features.parquet")
    accepted = [chip for i, chip in enumerate(town.chip_ids) if i != 3]
    assert table["chip_id"].to_pylist() == [chip for chip in accepted for _ in range(2)]
    assert table["view"].to_pylist() == [0, 1] * 11
    assert table.schema.field("features").type == pa.list_(pa.float16(), 1280)
    assert json.loads((out / "tower.json").read_text()) == {"tower": joint_model.tower_digest, "dim": 1280}
    assert (summary["chips"], summary["views"], summary["dim"], summary["resumed_chips"]) == (11, 2, 1280, 0)
    assert told[-1] == (11, 11, "chips")
    assert sorted(path.name for path in out.iterdir()) == ["features.parquet", "tower.json"]


def test_view_0_is_the_plain_chip_and_the_others_differ(town, joint_model: ClipModel, out: Path):
    write_chip_features(town.chips, town.plan, joint_model, 2, 0, out)
    _, found = read_chip_features(out, joint_model.tower_digest)
    assert found.shape == (12, 2, 1280)
    # The focus boxes lie at the left, so the plain view is the left square.
    expected = joint_model.image_features([image[:, 2:50] for image in town.images])
    nearest = normalised(found[:, 0].astype(np.float32)) @ normalised(expected).T
    assert (nearest.argmax(axis=1) == np.arange(12)).mean() > 0.8
    assert not np.array_equal(found[:, 0], found[:, 1])


def test_views_of_crops_anywhere_know_no_focus(town, joint_model: ClipModel, out: Path, tmp_path: Path):
    write_chip_features(town.chips, town.plan, joint_model, 2, 0, out, crop="anywhere")
    _, found = read_chip_features(out, joint_model.tower_digest)
    middles = [joint_model.view(chip.image()) for chip in accepted_chips(town.chips, town.plan)]
    assert np.array_equal(found[:, 0], joint_model.image_features(middles).astype(np.float16))
    (tmp_path / "focus").mkdir()
    write_chip_features(town.chips, town.plan, joint_model, 2, 0, tmp_path / "focus")
    _, kept = read_chip_features(tmp_path / "focus", joint_model.tower_digest)
    assert not np.array_equal(found[:, 1], kept[:, 1])


def test_a_killed_run_continues_to_the_same_bytes(town, joint_model, out: Path, tmp_path: Path, small_parts):
    whole = tmp_path / "whole"
    whole.mkdir()
    write_chip_features(town.chips, town.plan, joint_model, 2, 0, whole)

    def killed(done: int, total: int, unit: str) -> None:
        if done > 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_chip_features(town.chips, town.plan, joint_model, 2, 0, out, killed)
    assert not (out / "features.parquet").exists()
    summary = write_chip_features(town.chips, town.plan, joint_model, 2, 0, out)
    assert summary["resumed_chips"] == 5
    for name in ("features.parquet", "tower.json"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.parametrize(("seed", "kept"), [(1, 0), (0, 5)])
def test_parts_of_another_seed_or_broken_ones_are_made_anew(
    town, joint_model, out: Path, small_parts, seed: int, kept: int
):
    def killed(done: int, total: int, unit: str) -> None:
        if done > 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_chip_features(town.chips, town.plan, joint_model, 2, 0, out, killed)
    (out / ".part-00000.parquet").write_bytes(b"half a file")
    assert write_chip_features(town.chips, town.plan, joint_model, 2, seed, out)["resumed_chips"] == kept
    assert sorted(path.name for path in out.iterdir()) == ["features.parquet", "tower.json"]


def test_an_empty_partition_has_an_empty_table(town, joint_model: ClipModel, out: Path):
    for path in (town.chips / "chips.parquet", town.captions / "captions.parquet"):
        write_table(path, read_table(path).slice(0, 0))
    summary = write_chip_features(town.chips, town.plan, joint_model, 2, 0, out)
    assert (summary["chips"], summary["dim"]) == (0, 1280)
    assert read_chip_features(out, joint_model.tower_digest)[0] == []
    scored = write_scores(
        out, town.captions, accepted_chips(town.chips, town.plan), ("lite0-minilm@1", joint_model), ScoredText(), out
    )
    assert (scored["pairs"], scored["scores"]["lite0-minilm@1 title"]["mean"]) == (0, None)
    assert pq.read_table(out / "scores.parquet").schema == SCORE_SCHEMA


def test_a_broken_chip_is_named(town, joint_model: ClipModel, out: Path):
    shard = town.chips / "part-00000.tar"
    data = bytearray(shard.read_bytes())
    offset = read_table(town.chips / "chips.parquet")["offset"][4].as_py()
    data[offset : offset + 20] = bytes(20)
    shard.write_bytes(data)
    with pytest.raises(CorruptInputError, match=f"part-00000.tar: {town.chip_ids[4]}: not a whole JPEG"):
        write_chip_features(town.chips, town.plan, joint_model, 1, 0, out)


def test_a_missing_shard_and_a_chip_without_a_plan_are_told(town, joint_model: ClipModel, out: Path):
    (town.chips / "part-00000.tar").unlink()
    with pytest.raises(UpstreamMissingError, match="part-00000.tar does not exist"):
        write_chip_features(town.chips, town.plan, joint_model, 1, 0, out)
    write_table(town.plan / "plan.parquet", read_table(town.plan / "plan.parquet").slice(1))
    with pytest.raises(CorruptInputError, match=f"chip {town.chip_ids[0]} is not in"):
        write_chip_features(town.chips, town.plan, joint_model, 1, 0, out)


def test_features_of_another_tower_are_refused(town, joint_model: ClipModel, out: Path):
    write_chip_features(town.chips, town.plan, joint_model, 1, 0, out)
    with pytest.raises(OutputSchemaError, match="the features are of another image tower"):
        read_chip_features(out, "0" * 64)


def test_a_chip_that_lacks_a_view_is_told(town, joint_model: ClipModel, out: Path):
    write_chip_features(town.chips, town.plan, joint_model, 2, 0, out)
    write_table(out / "features.parquet", read_table(out / "features.parquet").slice(1))
    with pytest.raises(CorruptInputError, match="a chip lacks a view"):
        read_chip_features(out, joint_model.tower_digest)


def test_scores_are_cosines_of_the_plain_view_and_the_prefixed_caption(town, joint_model, out: Path, tmp_path: Path):
    features = tmp_path / "features"
    features.mkdir()
    write_chip_features(town.chips, town.plan, joint_model, 2, 0, features)
    shuffled = read_table(town.captions / "captions.parquet").take(list(range(11, -1, -1)))
    write_table(town.captions / "captions.parquet", shuffled)
    summary = write_scores(
        features,
        town.captions,
        accepted_chips(town.chips, town.plan),
        ("lite0-minilm@1", joint_model),
        ScoredText(),
        out,
    )
    table = pq.read_table(out / "scores.parquet")
    assert table["chip_id"].to_pylist() == town.chip_ids[::-1]
    assert set(table["scorer"].to_pylist()) == {"lite0-minilm@1"}
    plain = read_chip_features(features, joint_model.tower_digest)[1][::-1, 0].astype(np.float32)
    texts = joint_model.encode_texts([f"a satellite image of {title}" for title in town.titles[::-1]])
    expected = (normalised(joint_model.project_image(plain)) * texts).sum(axis=1)
    np.testing.assert_allclose(table["score"].to_numpy(), expected, atol=1e-6)
    assert (summary["pairs"], summary["captions"]) == (12, 4)
    assert list(summary["scores"]) == ["lite0-minilm@1 title"]
    figures = summary["scores"]["lite0-minilm@1 title"]
    assert figures == pytest.approx(
        {"mean": expected.mean(), "min": expected.min(), "max": expected.max(), "agreement": 1.0}, abs=1e-6
    )


def test_a_caption_without_features_is_told(town, joint_model: ClipModel, out: Path):
    write_chip_features(town.chips, town.plan, joint_model, 1, 0, out)
    write_table(out / "features.parquet", read_table(out / "features.parquet").slice(2))
    with pytest.raises(CorruptInputError, match=f"2 captioned chips have no features, such as {town.chip_ids[0]}"):
        write_scores(
            out,
            town.captions,
            accepted_chips(town.chips, town.plan),
            ("lite0-minilm@1", joint_model),
            ScoredText(),
            out,
        )
