"""Counting tags, and the size rule as SQL and as Python."""

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from skyscript_assets.lib.errors import CorruptInputError, OutputSchemaError, UpstreamMissingError
from skyscript_assets.lib.settings.plant import SizeSettings
from skyscript_assets.lib.tables import write_table
from skyscript_assets.lib.tags import counting
from skyscript_assets.lib.tags.counting import MAX_OTHERS, MAX_TAGS, MIN_OBJECTS, MIN_SHARE
from skyscript_assets.lib.tags.normalise import normal_values
from skyscript_assets.lib.tags.text import text_reason
from skyscript_assets.lib.tags.vocabulary import (
    COOCCURRENCE_SCHEMA,
    PLANNABLE_SCHEMA,
    VOCABULARY_SCHEMA,
    count_vocabulary,
    limits_px,
    most_frequent_tags,
    plot_tag_counts,
    text_tags_by_reason,
)

Writer = Callable[..., Path]
Chips = Callable[..., SizeSettings]


def folder(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


def vocabulary_of(out: Path) -> dict[tuple[str, str, str, str], tuple[int, int]]:
    rows = pq.read_table(out / "vocabulary.parquet").to_pylist()
    return {(r["key"], r["value"], r["region"], r["kind"]): (r["n"], r["n_plannable"]) for r in rows}


def test_tags_are_counted_by_region_and_kind(tmp_path: Path, write_objects_table: Writer, chip_settings: Chips) -> None:
    objects = {
        "b": write_objects_table(tmp_path / "b/objects.parquet", [("n7", {"natural": "tree"}, 0, 0)]),
        "a": write_objects_table(
            tmp_path / "a/objects.parquet",
            [
                ("n1", {"natural": "tree", "name": "Oak"}, 0, 0),
                ("w1", {"natural": "tree_row"}, 20, 0),
                ("a1", {"building": "yes"}, 20, 10),
                ("r1", {"building": "yes"}, 5, 2),
            ],
        ),
    }
    out = folder(tmp_path / "out")
    summary = count_vocabulary(objects, [1.0, 0.3, 1.0], chip_settings(), out)
    assert vocabulary_of(out) == {
        ("building", "yes", "a", "area"): (2, 2),
        ("name", "oak", "a", "node"): (1, 1),
        ("natural", "tree", "a", "node"): (1, 1),
        ("natural", "tree", "b", "node"): (1, 1),
        ("natural", "tree_row", "a", "line"): (1, 1),
    }
    assert pq.read_schema(out / "vocabulary.parquet").equals(VOCABULARY_SCHEMA)
    rows = pq.read_table(out / "plannable.parquet", schema=PLANNABLE_SCHEMA).to_pylist()
    assert {(r["key"], r["region"], r["gsd_m"]): r["n"] for r in rows if r["value"] == "yes"} == {
        ("building", "a", 0.3): 2,
        ("building", "a", 1.0): 1,
    }
    assert summary["objects"] == {"a": 4, "b": 1}
    assert (summary["tags"], summary["text_tags"], summary["rare_tags"], summary["occurrences"]) == (4, 1, 3, 6)
    assert summary["plannable"] == {"0.3": 6, "1": 5}


def test_the_text_of_a_tag_is_in_plain_words(tmp_path: Path, write_objects_table: Writer, chip_settings: Chips) -> None:
    path = write_objects_table(tmp_path / "a/objects.parquet", [("n1", {"roof:shape": "half_hipped"}, 0, 0)])
    out = folder(tmp_path / "out")
    count_vocabulary({"a": path}, [1.0], chip_settings(), out)
    assert pq.read_table(out / "vocabulary.parquet")["text"].to_pylist() == ["roof shape half hipped"]


def test_an_object_in_two_regions_belongs_to_the_first_by_name(
    tmp_path: Path, write_objects_table: Writer, chip_settings: Chips
) -> None:
    tree, wall = ("n1", {"natural": "tree"}, 0, 0), ("w1", {"barrier": "wall"}, 30, 0)
    objects = {
        "west": write_objects_table(tmp_path / "w/objects.parquet", [tree, wall, ("n2", {"natural": "tree"}, 0, 0)]),
        "east": write_objects_table(tmp_path / "e/objects.parquet", [wall, tree]),
        "mid": write_objects_table(tmp_path / "m/objects.parquet", [tree]),
    }
    out = folder(tmp_path / "out")
    summary = count_vocabulary(objects, [1.0], chip_settings(), out)
    assert vocabulary_of(out) == {
        ("barrier", "wall", "east", "line"): (1, 1),
        ("natural", "tree", "east", "node"): (1, 1),
        ("natural", "tree", "west", "node"): (1, 1),
    }
    assert summary["shared_objects"] == 2
    assert summary["objects"] == {"east": 2, "mid": 0, "west": 1}


@pytest.mark.parametrize("rule", ["focus", "paper"])
def test_sql_and_python_agree_on_what_is_plannable(
    tmp_path: Path, write_objects_table: Writer, chip_settings: Chips, rule: str
) -> None:
    rng = np.random.default_rng(7)
    sides = np.concatenate([rng.uniform(0, 40, 300), rng.uniform(0, 1200, 300), [0.0, 4.8, 16.0, 100.0]])
    rows = [
        (f"{letter}{i}", {"kind": letter}, side, side / 2) for letter in "nwar" for i, side in enumerate(sides.tolist())
    ]
    chips = chip_settings(rule=rule, context=1.3)
    out = folder(tmp_path / "out")
    path = write_objects_table(tmp_path / "a/objects.parquet", rows)
    count_vocabulary({"a": path}, [0.3, 1.0, 10.0], chips, out)
    # The sides that DuckDB sees went through degrees and back.
    box = pq.read_table(path)["bbox"].to_pylist()[: len(sides)]
    metres = np.array([b["xmax"] * 111_319.49079327358 * np.cos(np.radians(b["ymax"] / 2)) for b in box])
    found = {(r["value"], r["gsd_m"]): r["n"] for r in pq.read_table(out / "plannable.parquet").to_pylist() if r["n"]}
    for letter, kind in (("n", "node"), ("w", "line"), ("a", "area"), ("r", "area")):
        for gsd in (0.3, 1.0, 10.0):
            assert found.get((letter, gsd), 0) == plannable(kind, metres, gsd, chips).sum()


def plannable(kind: str, longer_side_m: np.ndarray, gsd_m: float, chips: SizeSettings) -> np.ndarray:
    """Whether objects of a kind have a size that suits a chip at a GSD, as the planner has it."""
    least, most = limits_px(kind, chips)
    return (longer_side_m >= least * gsd_m) & (longer_side_m <= most * gsd_m)


def test_nodes_always_suit_and_areas_must_be_neither_small_nor_large(chip_settings: Chips) -> None:
    sides = np.array([0.0, 15.9, 16.0, 666.0, 667.0])
    chips = chip_settings()
    assert plannable("node", sides, 1.0, chips).tolist() == [True] * 5
    assert plannable("line", sides, 1.0, chips).tolist() == [False, False, True, True, True]
    assert plannable("area", sides, 1.0, chips).tolist() == [False, False, True, True, False]


def test_the_paper_rule_wants_areas_between_the_tile_sizes(chip_settings: Chips) -> None:
    sides = np.array([0.0, 99.0, 100.0, 1000.0, 1001.0])
    chips = chip_settings(rule="paper")
    assert plannable("line", sides, 1.0, chips).tolist() == [True] * 5
    assert plannable("area", sides, 1.0, chips).tolist() == [False, False, True, True, False]


def test_the_width_of_a_box_shrinks_with_latitude(tmp_path: Path, chip_settings: Chips) -> None:
    box = {"xmin": 20.0, "xmax": 20.0 + 30 / 111_319.5, "ymin": 60.0, "ymax": 60.0}
    schema = pq.read_schema(written_empty(tmp_path))
    path = tmp_path / "objects.parquet"
    write_table(path, pa.Table.from_pylist([{"object_id": "w1", "tags": [("a", "b")], "bbox": box}], schema=schema))
    out = folder(tmp_path / "out")
    # 30 m on the equator are 15 m at 60 degrees: fewer than 16 px of 1 m.
    assert count_vocabulary({"a": path}, [1.0], chip_settings(), out)["plannable"] == {"1": 0}


def written_empty(tmp_path: Path) -> Path:
    from skyscript_assets.lib.tables import BBOX_TYPE, TAGS_TYPE

    path = tmp_path / "empty.parquet"
    schema = pa.schema([("object_id", pa.string()), ("tags", TAGS_TYPE), ("bbox", BBOX_TYPE)])
    write_table(path, schema.empty_table())
    return path


def test_no_objects_no_regions_and_no_gsds_make_empty_tables(tmp_path: Path, chip_settings: Chips) -> None:
    for name, objects, gsds in (
        ("no_objects", {"a": written_empty(tmp_path)}, [1.0]),
        ("no_regions", {}, [1.0]),
        ("no_gsds", {"a": written_empty(tmp_path)}, []),
    ):
        out = folder(tmp_path / name)
        summary = count_vocabulary(objects, gsds, chip_settings(), out)
        assert summary["tags"] == 0
        assert pq.read_table(out / "vocabulary.parquet").num_rows == 0
        assert pq.read_table(out / "plannable.parquet", schema=PLANNABLE_SCHEMA).num_rows == 0
        assert pq.read_table(out / "cooccurrence.parquet", schema=COOCCURRENCE_SCHEMA).num_rows == 0
        assert most_frequent_tags(out).num_rows == text_tags_by_reason(out).num_rows == 0
        plot_tag_counts(out, out / "plot.png")


def test_equal_inputs_make_equal_bytes(tmp_path: Path, write_objects_table: Writer, chip_settings: Chips) -> None:
    rng = np.random.default_rng(3)
    rows = [(f"a{i}", {f"k{k}": f"v{v}" for k, v in rng.integers(20, size=(3, 2))}, i % 70, i % 9) for i in range(5000)]
    path = write_objects_table(tmp_path / "a/objects.parquet", rows)
    first, second = folder(tmp_path / "1"), folder(tmp_path / "2")
    for out in (first, second):
        count_vocabulary({"a": path}, [0.3, 1.0], chip_settings(), out)
    for name in ("vocabulary.parquet", "plannable.parquet", "cooccurrence.parquet"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_a_missing_broken_or_foreign_table_is_named(tmp_path: Path, chip_settings: Chips) -> None:
    with pytest.raises(UpstreamMissingError, match=r"absent\.parquet does not exist: materialize its asset"):
        count_vocabulary({"a": tmp_path / "absent.parquet"}, [1.0], chip_settings(), tmp_path)
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1 and no more")
    with pytest.raises(CorruptInputError, match=r"broken\.parquet"):
        count_vocabulary({"a": broken}, [1.0], chip_settings(), tmp_path)
    foreign = tmp_path / "foreign.parquet"
    write_table(foreign, pa.table({"object_id": ["n1"]}))
    with pytest.raises(OutputSchemaError, match="column tags should be map"):
        count_vocabulary({"a": foreign}, [1.0], chip_settings(), tmp_path)


def test_a_table_cut_in_the_middle_is_named(tmp_path: Path, write_objects_table: Writer, chip_settings: Chips) -> None:
    rows = [(f"n{i}", {"k": f"value {i}"}, 0, 0) for i in range(20_000)]
    path = write_objects_table(tmp_path / "a/objects.parquet", rows)
    data = bytearray(path.read_bytes())
    data[200:4000] = bytes(3800)
    path.write_bytes(data)
    with pytest.raises(CorruptInputError, match="not a whole Parquet file"):
        count_vocabulary({"a": path}, [1.0], chip_settings(), tmp_path)


def test_the_plot_of_counts_is_a_small_png(tmp_path: Path, write_objects_table: Writer, chip_settings: Chips) -> None:
    rows = [(f"n{i}", {f"k{i % 50}": "yes", "name": f"n{i}"}, 0, 0) for i in range(500)]
    objects = {
        "a": write_objects_table(tmp_path / "a/objects.parquet", rows[:300]),
        "b": write_objects_table(tmp_path / "b/objects.parquet", rows[300:]),
    }
    out = folder(tmp_path / "out")
    count_vocabulary(objects, [1.0], chip_settings(), out)
    plot_tag_counts(out, tmp_path / "counts.png")
    data = (tmp_path / "counts.png").read_bytes()
    assert data.startswith(b"\x89PNG")
    assert len(data) < 100_000


def test_an_object_counts_for_each_normal_value_that_it_lists_once(
    tmp_path: Path, write_objects_table: Writer, chip_settings: Chips
) -> None:
    rows = [
        ("a1", {"sport": "tennis;soccer"}, 20, 10),
        ("a2", {"sport": "soccer; Soccer;soccer"}, 20, 10),
        ("n1", {"plant:output": "19,9MW"}, 0, 0),
        ("n2", {"plant:output": "19.90 MW", "source": " ;"}, 0, 0),
    ]
    out = folder(tmp_path / "out")
    path = write_objects_table(tmp_path / "a/objects.parquet", rows)
    summary = count_vocabulary({"a": path}, [1.0], chip_settings(), out)
    assert vocabulary_of(out) == {
        ("plant:output", "19.9 MW", "a", "node"): (2, 2),
        ("sport", "soccer", "a", "area"): (2, 2),
        ("sport", "tennis", "a", "area"): (1, 1),
    }
    assert (summary["occurrences"], summary["text_tags"]) == (5, 1)
    assert summary["plannable"] == {"1": 5}


def test_tags_on_few_objects_of_all_regions_together_are_rare(
    tmp_path: Path, write_objects_table: Writer, chip_settings: Chips
) -> None:
    objects = {
        region: write_objects_table(
            tmp_path / f"{region}/objects.parquet",
            [(f"n{i}", {"natural": "tree"}, 0, 0) for i in ids] + [(f"w{ids[0]}", {"barrier": "wall"}, 9, 9)],
        )
        for region, ids in (("a", range(1, 3)), ("b", range(3, 6)))
    }
    out = folder(tmp_path / "out")
    for below, expected in ((5, {"tree": False, "wall": True}), (6, {"tree": True, "wall": True})):
        summary = count_vocabulary(objects, [1.0], chip_settings(), out, below)
        table = pq.read_table(out / "vocabulary.parquet", schema=VOCABULARY_SCHEMA)
        assert dict(zip(table["value"].to_pylist(), table["rare"].to_pylist(), strict=True)) == expected
        assert summary["rare_tags"] == sum(expected.values())


def test_sides_are_lower_medians_of_boxes_for_what_has_a_size_and_is_no_text(
    tmp_path: Path, write_objects_table: Writer, chip_settings: Chips
) -> None:
    rows = [
        ("a1", {"building": "yes", "name": "x"}, 30.04, 10),
        ("a2", {"building": "yes"}, 10, 40),
        ("r3", {"building": "Yes"}, 12, 20),
        ("a4", {"building": "yes;shed"}, 50, 50),
        ("w5", {"building": "yes"}, 7, 0),
        ("n6", {"building": "yes"}, 0, 0),
    ]
    out = folder(tmp_path / "out")
    path = write_objects_table(tmp_path / "a/objects.parquet", rows)
    count_vocabulary({"a": path}, [1.0], chip_settings(), out)
    found = {
        (row["value"], row["kind"]): (row["longer_side_m"], row["shorter_side_m"])
        for row in pq.read_table(out / "vocabulary.parquet").to_pylist()
    }
    assert found == {
        ("yes", "area"): (30.0, 10.0),
        ("shed", "area"): (50.0, 50.0),
        ("yes", "line"): (7.0, 0.0),
        ("yes", "node"): (None, None),
        ("x", "area"): (None, None),
    }


def random_rows(seed: int, n: int) -> list[tuple[str, dict[str, str], float, float]]:
    """Objects with lists, spellings, text and shared ids."""
    rng = np.random.default_rng(seed)
    values = ["a", "A", "b", "a;b", "b; c", "Old oak", "3", "3.0", "03;4", "c;C;d", "é", "\u200b", "x:12:30", "12 m"]
    keys = ["building", "sport", "name", "lanes", "surface", "natural"]
    rows = []
    for i in range(n):
        own = rng.choice(keys, rng.integers(1, 5), replace=False)
        tags = {str(key): values[rng.integers(len(values))] for key in own}
        letter = "nwar"[rng.integers(4)]
        sides = (0.0, 0.0) if letter == "n" else tuple(rng.integers(1, 60, 2).astype(float).tolist())
        rows.append((f"{letter}{i}", tags, *sides))
    return rows


def test_sql_and_python_agree_on_counts_sides_and_company(
    tmp_path: Path, write_objects_table: Writer, chip_settings: Chips
) -> None:
    rows = random_rows(5, 600)
    regions = {"a": rows[:400], "b": rows[300:]}
    objects = {
        region: write_objects_table(tmp_path / f"{region}/objects.parquet", own) for region, own in regions.items()
    }
    out = folder(tmp_path / "out")
    count_vocabulary(objects, [0.3, 1.0], chip_settings(), out)

    owned = {row[0]: ("a" if i < 400 else "b", *row[1:]) for i, row in enumerate(rows)}
    sides: dict[tuple[str, str, str, str], list[tuple[float, float]]] = defaultdict(list)
    carriers: dict[tuple[str, str], set[str]] = defaultdict(set)
    for object_id, (region, tags, width, height) in owned.items():
        kind = {"n": "node", "w": "line"}.get(object_id[0], "area")
        for key, value in ((key, each) for key, listed in tags.items() for each in normal_values(listed)):
            sides[key, value, region, kind].append((max(width, height), min(width, height)))
            if text_reason(key, value) is None:
                carriers[key, value].add(object_id)
    table = pq.read_table(out / "vocabulary.parquet").to_pylist()
    assert [(r["key"], r["value"], r["region"], r["kind"]) for r in table] == sorted(sides)
    for row in table:
        group = sides[row["key"], row["value"], row["region"], row["kind"]]
        able = [plannable(row["kind"], np.array([longer]), 0.3, chip_settings())[0] for longer, _ in group]
        assert (row["n"], row["n_plannable"]) == (len(group), sum(able))
        has_sides = row["kind"] != "node" and text_reason(row["key"], row["value"]) is None
        for name, i in (("longer_side_m", 0), ("shorter_side_m", 1)):
            middle = sorted(pair[i] for pair in group)[(len(group) - 1) // 2]
            assert row[name] == (middle if has_sides else None)

    expected = []
    for tag, ids in sorted(carriers.items()):
        if len(ids) >= MIN_OBJECTS:
            others = [(-len(ids & carriers[other]), other) for other in carriers if other != tag]
            kept = [(n, other) for n, other in sorted(others) if -n / len(ids) >= MIN_SHARE][:MAX_OTHERS]
            expected += [(*tag, *other, pytest.approx(-n / len(ids), abs=6e-5)) for n, other in kept]
    together = pq.read_table(out / "cooccurrence.parquet", schema=COOCCURRENCE_SCHEMA)
    assert [tuple(row.values()) for row in together.to_pylist()] == expected


def test_tags_that_get_the_same_number_are_numbered_anew(
    tmp_path: Path, write_objects_table: Writer, chip_settings: Chips, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_objects_table(tmp_path / "a/objects.parquet", random_rows(6, 50))
    plain, colliding = folder(tmp_path / "plain"), folder(tmp_path / "colliding")
    count_vocabulary({"a": path}, [1.0], chip_settings(), plain)
    monkeypatch.setattr(counting, "TAG_HASH", "CASE WHEN {salt} < 2 THEN 7 ELSE hash({key}, {value}) END")
    count_vocabulary({"a": path}, [1.0], chip_settings(), colliding)
    for name in ("vocabulary.parquet", "plannable.parquet", "cooccurrence.parquet"):
        assert (plain / name).read_bytes() == (colliding / name).read_bytes()


def test_rare_tags_and_text_keep_no_company(tmp_path: Path, write_objects_table: Writer, chip_settings: Chips) -> None:
    rows = [(f"n{i}", {"natural": "tree", "leaf_type": "broadleaved", "name": "oak"}, 0, 0) for i in range(2)]
    rows += [("n9", {"natural": "tree", "name": "oak"}, 0, 0)]
    out = folder(tmp_path / "out")
    path = write_objects_table(tmp_path / "a/objects.parquet", rows)
    summary = count_vocabulary({"a": path}, [1.0], chip_settings(), out)
    rows_found = pq.read_table(out / "cooccurrence.parquet").to_pylist()
    assert rows_found == [
        {"key": "natural", "value": "tree", "other_key": "leaf_type", "other_value": "broadleaved", "share": 0.6667}
    ]
    assert summary["cooccurrences"] == 1


def test_an_object_of_very_many_tags_is_looked_at_in_part(
    tmp_path: Path, write_objects_table: Writer, chip_settings: Chips
) -> None:
    tags = {f"k{i:03d}": "yes" for i in range(200)}
    out = folder(tmp_path / "out")
    path = write_objects_table(tmp_path / "a/objects.parquet", [(f"n{i}", tags, 0, 0) for i in range(3)])
    count_vocabulary({"a": path}, [1.0], chip_settings(), out)
    keys = pq.read_table(out / "cooccurrence.parquet")["key"].to_pylist()
    assert sorted(set(keys)) == sorted(tags)[:MAX_TAGS]
    assert len(keys) == MAX_TAGS * MAX_OTHERS


def test_the_preview_lists_frequent_tags_and_reasons_of_text(
    tmp_path: Path, write_objects_table: Writer, chip_settings: Chips
) -> None:
    rows = [(f"n{i}", {"natural": "tree", "name": f"Tree {i}", "ref": "7"}, 0, 0) for i in range(6)]
    rows += [("w1", {"natural": "tree_row", "barrier": "wall"}, 2, 0)]
    out = folder(tmp_path / "out")
    path = write_objects_table(tmp_path / "a/objects.parquet", rows)
    count_vocabulary({"a": path}, [1.0], chip_settings(), out)
    assert most_frequent_tags(out, 2).to_pylist() == [
        {"tag": "natural=tree", "n": 6, "n_plannable": 6, "rare_values_of_key": 0.5},
        {"tag": "barrier=wall", "n": 1, "n_plannable": 0, "rare_values_of_key": 1.0},
    ]
    assert text_tags_by_reason(out).to_pylist() == [
        {"reason": "identifier", "tags": 1, "n": 6},
        {"reason": "name", "tags": 6, "n": 6},
    ]
