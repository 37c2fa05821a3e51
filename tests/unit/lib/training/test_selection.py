"""Choice of pairs."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pytest

from skyscript_assets.lib.errors import OutputSchemaError, TooLittleDataError
from skyscript_assets.lib.settings.models import AlignRecipe, TrainedModel
from skyscript_assets.lib.training.selection import select_pairs


def model(**fields: object) -> TrainedModel:
    return TrainedModel.model_validate({"title": "Model", "base": "b", "recipe": AlignRecipe(batch_size=8)} | fields)


def selected(town, settings: TrainedModel) -> tuple[pa.Table, pa.Table]:
    return select_pairs(town.manifest, settings, (), 2)


def test_a_model_takes_its_share_of_the_eligible_pairs_of_its_sources(town_of: Callable):
    eligible = [i != 0 for i in range(48)]
    sources = ["SYN1" if i % 2 else "SYN03" for i in range(48)]
    town = town_of(48, eligible=eligible, source=sources)
    assert [len(pairs) for pairs in selected(town, model())] == [35, 8]
    half, val = selected(town, model(share=0.5))
    assert half["chip_id"].to_pylist() == [town.chip_ids[i] for i in range(24) if i % 12 < 9 and i]
    assert len(val) == 8
    only, _ = selected(town, model(sources=("SYN03",)))
    assert set(only["source"].to_pylist()) == {"SYN03"}


def test_pairs_without_a_rank_are_used_at_full_share_only(town_of: Callable):
    town = town_of(48, rank_share=[None if i < 24 else 0.1 for i in range(48)])
    assert len(selected(town, model())[0]) == 36
    assert len(selected(town, model(share=0.3))[0]) == 18


def test_too_little_is_told_in_one_message_with_what_is_missing(town_of: Callable):
    town = town_of(6, cell=["0/0"] * 6, title=["building"] * 6)
    with pytest.raises(TooLittleDataError) as error:
        select_pairs(town.manifest, model(title="Aligned"), (), 8)
    assert str(error.value) == (
        "Aligned: too little to train on: 6 pairs (at least 8 needed, 2 missing), "
        "1 distinct captions (at least 2 needed, 1 missing), 1 training cells (at least 2 needed, 1 missing); "
        "use a larger region, a higher quota, a larger share, or a smaller batch_size"
    )


def test_a_manifest_without_the_wanted_captions_is_told(town_of: Callable):
    with pytest.raises(OutputSchemaError, match="column title_in_verse"):
        select_pairs(town_of(12).manifest, model(), ["title_in_verse"], 2)


def test_a_model_takes_the_pairs_of_its_regions(town_of: Callable):
    town = town_of(48, region=["here" if i % 5 else "there" for i in range(48)])
    train, val = selected(town, model(regions=("there",)))
    assert set(train["region"].to_pylist()) == set(val["region"].to_pylist()) == {"there"}
    assert len(train) == 7


def test_fewer_pairs_are_some_of_more_and_each_seed_draws_others(town_of: Callable):
    town = town_of(48)
    few, more, other = (
        selected(town, model(pairs=pairs, seed=seed))[0]["chip_id"].to_pylist()
        for pairs, seed in ((8, 0), (20, 0), (8, 1))
    )
    assert [len(few), len(more), len(other)] == [8, 20, 8]
    assert set(few) < set(more)
    assert set(few) != set(other)
    assert few == [chip_id for chip_id in town.chip_ids if chip_id in few]
    val = [selected(town, model(pairs=pairs))[1] for pairs in (8, None)]
    assert val[0] == val[1]
    assert selected(town, model(pairs=1000))[0] == selected(town, model())[0]
