"""Every check fails where it should, and what a blocking one refuses reaches nobody."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from skyscript_assets import checks, partitions
from skyscript_assets.asset import Counts, Stage, asset, definition
from skyscript_assets.lib.errors import CheckFailedError, UpstreamMissingError
from skyscript_assets.lib.imagery.scenes import write_unusable
from skyscript_assets.lib.settings.load import PACKAGED_PROFILES, Settings, load_settings
from skyscript_assets.lib.storage import OutputKey, Store
from skyscript_assets.lib.tables import read_table, write_table
from skyscript_assets.partitions import Scheme
from skyscript_assets.provenance import Outputs, Run
from skyscript_assets.resources import Plant

TABLE = pa.schema([("id", pa.string()), ("reason", pa.string())])
GOOD = {"id": ["a", "b"], "reason": [None, None]}
made: dict[str, Any] = {}


@asset(
    Scheme.REGION,
    group="g",
    kinds=[],
    tables={"table.parquet": TABLE},
    config=lambda settings, partition: made["setting"],
    unique="id",
)
def rows(run: Run[Any]) -> Counts:
    """Rows as the test gives them."""
    write_table(run.out / "table.parquet", made["table"])
    return {"shared_ground": made["shared"], "shared_ground_examples": ["a"]}


@asset(Scheme.REGION, group="g", kinds=[], upstream=("rows",), more_checks=(checks.SHARED_GROUND,))
def reader(run: Run[Any]) -> Counts:
    """What is made of the rows."""
    (run.out / "ids").write_text(",".join(read_table(run.input("rows") / "table.parquet")["id"].to_pylist()))
    return {"shared_ground": made["shared"], "shared_ground_examples": ["a"]}


@asset(Scheme.SINGLE, group="g", kinds=[], upstream=("rows",), frozen_as=lambda settings: "as-it-was")
def frozen(run: Run[Any]) -> Counts:
    """Frozen."""
    (run.out / "x").write_text("x")
    return {}


STAGES: dict[str, Stage] = {stage.name: stage for stage in (rows, reader, frozen)}
KOTKA = ("kotka",)


@pytest.fixture(autouse=True)
def _good() -> None:
    made.update(table=pa.table(GOOD, TABLE), shared=0, setting="x")


@pytest.fixture
def settings() -> Settings:
    return load_settings(PACKAGED_PROFILES / "demo")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "data")


@pytest.fixture
def outputs(settings: Settings, store: Store) -> Callable[[], Outputs]:
    """Makes a view of the outputs as they stand now."""
    return lambda: Outputs(STAGES, settings, store)


def verdicts(outputs: Outputs, stage: Stage, partition: tuple[str, ...]) -> dict[str, dg.AssetCheckResult]:
    outcome = outputs.materialize(stage, partition)
    return {str(result.check_name): result for result in checks.results(outputs, stage, partition, outcome)}


def test_good_rows_pass_and_the_partition_is_named(outputs: Any) -> None:
    found = verdicts(outputs(), rows, KOTKA)
    assert {name: result.passed for name, result in found.items()} == dict.fromkeys(
        ("fresh", "columns", "rows", "unique_ids"), True
    )
    assert {result.metadata["partition"].value for result in found.values()} == {"kotka"}


def test_columns_fail_where_one_is_missing(outputs: Any) -> None:
    made["table"] = pa.table({"id": ["a"]})
    found = verdicts(outputs(), rows, KOTKA)["columns"]
    assert not found.passed
    assert "reason should be string" in str(found.metadata["wrong"].value)


@pytest.mark.parametrize("empty", ["fails", "warns", "passes"])
def test_rows_fail_where_there_are_none(tmp_path: Path, empty: str) -> None:
    write_table(tmp_path / "table.parquet", TABLE.empty_table())
    found = [check for check in checks.of_tables({"table.parquet": TABLE}, None, empty) if check.name == "rows"]
    assert [(check.judge(tmp_path, {}).passed, check.warn) for check in found] == (
        [] if empty == "passes" else [(False, empty == "warns")]
    )


def test_ids_that_occur_twice_are_refused_and_the_earlier_output_stays(outputs: Any, store: Store) -> None:
    before = outputs().materialize(rows, KOTKA).record
    made.update(table=pa.table({"id": ["a", "a"], "reason": [None, None]}, TABLE), setting="y")
    with pytest.raises(CheckFailedError, match=r"rows/kotka failed its check unique_ids .*'a'"):
        outputs().materialize(rows, KOTKA)
    assert store.record(OutputKey("rows", KOTKA)) == before


def test_what_was_refused_is_read_by_no_later_run(outputs: Any) -> None:
    made["table"] = pa.table({"id": ["a", "a"], "reason": [None, None]}, TABLE)
    with pytest.raises(CheckFailedError):
        outputs().materialize(rows, KOTKA)
    with pytest.raises(UpstreamMissingError, match="rows/kotka"):
        outputs().materialize(reader, KOTKA)


def test_shared_ground_is_refused(outputs: Any) -> None:
    outputs().materialize(rows, KOTKA)
    made["shared"] = 2
    with pytest.raises(CheckFailedError, match="Splits share no ground"):
        outputs().materialize(reader, KOTKA)


@pytest.mark.parametrize("train", [0, 3])
def test_a_manifest_that_trains_nothing_is_told(tmp_path: Path, train: int) -> None:
    counts = {"splits": {"train": train, "val": 0, "test": 1}, "dropped": {"no score": 5}}
    verdict = checks.TRAINABLE.judge(tmp_path, counts)
    assert verdict.passed == (train > 0)
    assert verdict.evidence["dropped"] == {"no score": 5}
    assert checks.TRAINABLE.warn


def test_a_pair_that_leaks_and_is_eligible_all_the_same_is_refused(tmp_path: Path) -> None:
    assert checks.HELD_OUT.blocking
    assert checks.HELD_OUT.judge(tmp_path, {"leaks_left": 0}).passed
    assert not checks.HELD_OUT.judge(tmp_path, {"leaks_left": 1}).passed


@pytest.mark.parametrize(
    ("kinds", "across", "unseen", "evidence"),
    [
        ({"duplicate": 4, "near-duplicate": 3}, 0, [], {}),
        ({"object": 2}, 0, [], {"object": 2}),
        ({"benchmark": 1}, 0, [], {"benchmark": 1}),
        ({}, 5, [], {"duplicates across splits": 5}),
        ({}, 0, ["benchmark_data/x"], {"benchmarks not compared": 1, "not compared": ["benchmark_data/x"]}),
    ],
)
def test_what_had_to_be_dropped_for_other_splits_is_a_warning(
    tmp_path: Path, kinds: dict[str, int], across: int, unseen: list[str], evidence: dict[str, Any]
) -> None:
    examples = {kind: [f"one ({kind})"] for kind in ("object", "benchmark", "duplicate")}
    counts = {"leaks": {"kinds": kinds, "across_splits": across, "examples": examples}, "unseen_benchmarks": unseen}
    verdict = checks.LEAKS.judge(tmp_path, counts)
    told = {kind: some for kind, some in examples.items() if kinds.get(kind) and kind != "duplicate"}
    told |= {"duplicate": examples["duplicate"]} if across else {}
    expected = evidence | ({"examples": told} if told else {})
    assert (verdict.passed, verdict.evidence) == (not evidence, expected)
    assert checks.LEAKS.warn


@pytest.mark.parametrize(("rejected", "passes"), [(0, True), (1, True), (2, False)])
def test_most_chips_being_rejected_is_a_warning(tmp_path: Path, rejected: int, passes: bool) -> None:
    reasons = ["blank"] * rejected + [None] * (2 - rejected if rejected < 2 else 1)
    write_table(tmp_path / "chips.parquet", pa.table({"reason": pa.array(reasons, pa.string())}))
    assert checks.REJECTED_SHARE.judge(tmp_path, {}).passed is passes
    assert checks.REJECTED_SHARE.warn


@pytest.mark.parametrize(("unmoved_from", "passes"), [(2**-4, False), (1.0, False), (2.0, True), (None, True)])
def test_a_rate_that_moves_no_gain_is_a_warning(tmp_path: Path, unmoved_from: float | None, passes: bool) -> None:
    verdict = checks.WEIGHTS_MOVE.judge(tmp_path, {"unmoved_from": unmoved_from})
    assert (verdict.passed, checks.WEIGHTS_MOVE.warn) == (passes, True)


def test_freshness_lists_each_difference_of_a_stale_input(outputs: Any) -> None:
    outputs().materialize(rows, KOTKA)
    outputs().materialize(reader, KOTKA)
    made["setting"] = "y"
    found = checks.freshness(outputs(), reader, KOTKA)
    assert not found.passed
    assert found.evidence["differences"] == [{"output": "rows/kotka", "what": "settings", "before": "x", "now": "y"}]


def test_freshness_tells_of_a_frozen_output_that_would_be_another_now(outputs: Any, settings: Settings) -> None:
    for region in settings.regions:
        outputs().materialize(rows, (region,))
    outputs().materialize(frozen, ())
    made.update(table=pa.table({"id": ["c"], "reason": [None]}, TABLE), setting="y")
    for region in settings.regions:
        outputs().materialize(rows, (region,))
    assert outputs().materialize(frozen, ()).reused
    found = checks.freshness(outputs(), frozen, ())
    assert not found.passed
    assert {difference["what"] for difference in found.evidence["differences"]} == {
        f"inputs.rows/{region}" for region in settings.regions
    }


def test_a_refusal_is_recorded_in_the_instance_and_nothing_is_materialized(settings: Settings, tmp_path: Path) -> None:
    made["table"] = pa.table({"id": ["a", "a"], "reason": [None, None]}, TABLE)
    by_scheme = partitions.definitions(settings)
    assets = [definition(stage, STAGES, settings, by_scheme) for stage in (rows, reader)]
    plant = Plant(settings_folder=str(PACKAGED_PROFILES / "demo"), data=str(tmp_path / "data"))
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(
            assets, partition_key="kotka", resources={"plant": plant}, instance=instance, raise_on_error=False
        )
        (evaluation,) = (found for found in result.get_asset_check_evaluations() if not found.passed)
        assert (evaluation.check_name, evaluation.metadata["partition"].value) == ("unique_ids", "kotka")
        assert not result.success
        assert instance.get_latest_materialization_event(dg.AssetKey("rows")) is None


def test_images_that_cannot_be_used_and_alpha_that_hides_most_are_told(tmp_path: Path) -> None:
    judge = checks.IMAGES_USABLE.judge
    assert judge(tmp_path, {"scenes": 1}).passed
    write_unusable(tmp_path, [])
    assert judge(tmp_path, {"mostly_hidden": 0}).passed
    assert judge(tmp_path, {"mostly_hidden": 2}) == (False, {"unusable": 0, "first": [], "mostly hidden by alpha": 2})
    write_unusable(tmp_path, [(f"{number}.tif", "it is broken") for number in range(9)])
    passed, evidence = judge(tmp_path, {})
    assert not passed
    assert (evidence["unusable"], len(evidence["first"]), evidence["first"][0]["reason"]) == (9, 3, "it is broken")


def test_a_plan_that_drops_most_objects_says_why() -> None:
    counts = {"objects": 100, "drawn": 10, "planned": 4, "dropped": {"outside": 5, "size": 1}}
    passed, evidence = checks.MOST_PLANNED.judge(Path(), counts)
    assert not passed
    assert evidence == counts
    assert checks.MOST_PLANNED.judge(Path(), counts | {"dropped": {"outside": 5}}).passed
    assert checks.MOST_PLANNED.judge(Path(), counts | {"dropped": {"near": counts["drawn"]}}).passed
    assert checks.MOST_PLANNED.judge(Path(), counts | {"drawn": 0, "dropped": {}}).passed


def test_classes_that_no_test_image_shows_warn() -> None:
    assert checks.CLASSES_SHOWN.warn
    assert checks.CLASSES_SHOWN.judge(Path(), {"without_images": []}).passed
    passed, found = checks.CLASSES_SHOWN.judge(Path(), {"without_images": ["water"]})
    assert (passed, found) == (False, {"without images": 1, "first": ["water"]})
