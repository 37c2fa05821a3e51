"""The frozen join of counts and decisions."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from skyscript_assets.lib.errors import OutputSchemaError, TooLittleDataError, UpstreamMissingError
from skyscript_assets.lib.tables import rows_to_table, write_table
from skyscript_assets.lib.tags.groundability import GROUNDABILITY_SCHEMA
from skyscript_assets.lib.tags.snapshot import SNAPSHOT_SCHEMA, TAGS_SCHEMA, freeze_snapshot, tags_by_gsd
from skyscript_assets.lib.tags.vocabulary import PLANNABLE_SCHEMA, VOCABULARY_SCHEMA


def counted(key: str, value: str, region: str, gsd_m: float, n: int) -> dict[str, Any]:
    return {"key": key, "value": value, "region": region, "gsd_m": gsd_m, "n": n}


def decided(key: str, value: str, coarsest: float | None) -> dict[str, Any]:
    row = {"key": key, "value": value, "text": f"{key} {value}", "p_visible": 0.5, "decided_by": "label"}
    return row | {"coarsest_gsd_m": coarsest}


def sized(key: str, value: str, kind: str, n: int, side_m: float, region: str = "a") -> dict[str, Any]:
    return {"key": key, "value": value, "region": region, "kind": kind, "n": n, "longer_side_m": side_m}


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    write_table(
        tmp_path / "plannable.parquet",
        rows_to_table(
            [
                counted("natural", "tree", "b", 0.3, 5),
                counted("natural", "tree", "a", 0.3, 4),
                counted("natural", "tree", "a", 1.0, 4),
                counted("building", "yes", "a", 1.0, 7),
                counted("lit", "yes", "a", 0.3, 9),
            ],
            PLANNABLE_SCHEMA,
        ),
    )
    sizes = [
        ("building", "yes", "area", 7, 20.0),
        ("building", "yes", "line", 9, 90.0),
        ("natural", "tree", "area", 2, 9.0),
    ]
    write_table(tmp_path / "vocabulary.parquet", rows_to_table([sized(*size) for size in sizes], VOCABULARY_SCHEMA))
    rows = [decided("natural", "tree", 0.6), decided("building", "yes", 1.0), decided("lit", "yes", None)]
    rows.append(decided("highway", "path", 0.6))
    write_table(tmp_path / "groundability.parquet", rows_to_table(rows, GROUNDABILITY_SCHEMA))
    return tmp_path


def test_only_visible_tags_at_gsds_where_they_show_are_frozen(inputs: Path) -> None:
    summary = freeze_snapshot(inputs, inputs, inputs)
    rows = pq.read_table(inputs / "snapshot.parquet", schema=SNAPSHOT_SCHEMA).to_pylist()
    assert [(r["key"], r["region"], r["gsd_m"], r["n_plannable"], r["coarsest_gsd_m"]) for r in rows] == [
        ("building", "a", 1.0, 7, 1.0),
        ("natural", "a", 0.3, 4, 0.6),
        ("natural", "b", 0.3, 5, 0.6),
    ]
    assert rows[1]["text"] == "natural tree"
    assert (summary["tags"], summary["rows"], summary["plannable"]) == (3, 3, {"0.3": 9, "1": 7})


def test_every_visible_tag_is_listed_with_its_gsd(inputs: Path) -> None:
    freeze_snapshot(inputs, inputs, inputs)
    rows = pq.read_table(inputs / "tags.parquet", schema=TAGS_SCHEMA).to_pylist()
    assert [(r["key"], r["value"], r["coarsest_gsd_m"]) for r in rows] == [
        ("building", "yes", 1.0),
        ("highway", "path", 0.6),
        ("natural", "tree", 0.6),
    ]


def test_the_preview_tells_tags_and_objects_by_resolution(inputs: Path) -> None:
    freeze_snapshot(inputs, inputs, inputs)
    assert tags_by_gsd(inputs).to_pylist() == [
        {"gsd_m": 0.3, "tags": 1, "n_plannable": 9},
        {"gsd_m": 1.0, "tags": 1, "n_plannable": 7},
    ]


def test_equal_inputs_make_equal_bytes(inputs: Path) -> None:
    freeze_snapshot(inputs, inputs, inputs)
    first = (inputs / "snapshot.parquet").read_bytes()
    freeze_snapshot(inputs, inputs, inputs)
    assert (inputs / "snapshot.parquet").read_bytes() == first


def test_nothing_to_plan_is_refused(inputs: Path) -> None:
    write_table(inputs / "plannable.parquet", PLANNABLE_SCHEMA.empty_table())
    with pytest.raises(TooLittleDataError, match="none of 3 visible tags"):
        freeze_snapshot(inputs, inputs, inputs)
    assert not (inputs / "snapshot.parquet").exists()


def test_missing_and_foreign_inputs_are_named(inputs: Path) -> None:
    write_table(inputs / "plannable.parquet", VOCABULARY_SCHEMA.empty_table())
    with pytest.raises(OutputSchemaError, match=r"plannable\.parquet"):
        freeze_snapshot(inputs, inputs, inputs)
    (inputs / "plannable.parquet").unlink()
    with pytest.raises(UpstreamMissingError, match=r"plannable\.parquet"):
        freeze_snapshot(inputs, inputs, inputs)


def test_points_of_what_is_larger_than_their_view_are_not_counted(inputs: Path) -> None:
    rows = [counted("amenity", "school", "a", gsd, 30) for gsd in (0.3, 1.0)] + [
        counted("place", "village", "a", 1.0, 5)
    ]
    write_table(inputs / "plannable.parquet", rows_to_table(rows, PLANNABLE_SCHEMA))
    sizes = [("amenity", "school", "area", 20, 110.0), ("amenity", "school", "node", 10, None)]
    sizes += [("place", "village", "node", 5, None)]
    write_table(inputs / "vocabulary.parquet", rows_to_table([sized(*size) for size in sizes], VOCABULARY_SCHEMA))
    decisions = [decided("amenity", "school", 1.0), decided("place", "village", 10.0)]
    write_table(inputs / "groundability.parquet", rows_to_table(decisions, GROUNDABILITY_SCHEMA))
    freeze_snapshot(inputs, inputs, inputs)
    rows = pq.read_table(inputs / "snapshot.parquet").to_pylist()
    assert [(r["value"], r["gsd_m"], r["n_plannable"]) for r in rows] == [("school", 0.3, 20), ("school", 1.0, 30)]
    assert pq.read_table(inputs / "tags.parquet")["area_side_m"].to_pylist() == [110.0, 500.0]


def test_what_cannot_be_told_counts_in_its_general_form_and_what_is_gone_for_nothing(inputs: Path) -> None:
    values = {"yes": 7, "school": 5, "house": 3, "no": 2, "proposed": 4}
    rows = [counted("building", value, "a", gsd, n) for value, n in values.items() for gsd in (0.3, 1.0)]
    write_table(inputs / "plannable.parquet", rows_to_table(rows, PLANNABLE_SCHEMA))
    steps = {"yes": 1.0, "school": None, "house": 0.6, "no": None, "proposed": 1.0}
    decisions = [decided("building", value, step) for value, step in steps.items()]
    write_table(inputs / "groundability.parquet", rows_to_table(decisions, GROUNDABILITY_SCHEMA))
    freeze_snapshot(inputs, inputs, inputs)
    rows = pq.read_table(inputs / "snapshot.parquet").to_pylist()
    found = {(r["value"], r["gsd_m"]): r["n_plannable"] for r in rows}
    assert found == {("house", 0.3): 3, ("yes", 0.3): 12, ("yes", 1.0): 15}
