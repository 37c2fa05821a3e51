"""The audit of captions: the page, and what verdicts say."""

import base64
import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from skyscript_assets.cli import main
from skyscript_assets.lib.captions.audit import (
    AUDIT_FILE,
    AUDIT_SCHEMA,
    FAULTS,
    VERDICT_COLUMNS,
    Captioned,
    Verdict,
    judged,
    read_verdicts,
    write_audit,
    write_verdicts,
)
from skyscript_assets.lib.captions.write import CAPTION_SCHEMA
from skyscript_assets.lib.chips.cut import CHIP_SCHEMA
from skyscript_assets.lib.chips.plan import PLAN_SCHEMA
from skyscript_assets.lib.errors import CorruptInputError, TooLittleDataError
from skyscript_assets.lib.settings.base import SENTENCES
from skyscript_assets.lib.tables import read_table, rows_to_table, write_table
from skyscript_assets.lib.tar import TarShard

HOSTILE = '</script><script>alert("1")</script> $items & "quotes"'
JPEG = b"\xff\xd8 not looked at \xff\xd9"


def partition(folder: Path, name: str, n: int, *, synthetic: bool = False) -> Captioned:
    """Plan, chips and captions of a region, whose first chip has hostile text."""
    here = folder / name
    here.mkdir()
    with TarShard(here / "part.tar") as tar:
        entry = tar.add("a.jpg", JPEG)
    plan, chips, captions = [], [], []
    for number in range(n):
        chip_id = f"{name}_{number}"
        empty = {schema: dict.fromkeys(schema.names) for schema in (PLAN_SCHEMA, CHIP_SCHEMA, CAPTION_SCHEMA)}
        plan.append(
            empty[PLAN_SCHEMA]
            | {"chip_id": chip_id, "gsd_m": 0.3, "focus_box": [10, 20, 30, 40], "width": 100, "height": 80}
        )
        chips.append(
            empty[CHIP_SCHEMA]
            | {"chip_id": chip_id, "synthetic": synthetic, "shard": "part.tar", "licence": "CC0", "attribution": "A"}
            | {"offset": entry.offset, "length": entry.length}
        )
        captions.append(
            empty[CAPTION_SCHEMA]
            | {
                "chip_id": chip_id,
                "title": HOSTILE if number == 0 else f"building {number}",
                "title_multi_objects": f"building {number}, surrounded by natural tree",
                "center_tags": [("building", "yes")],
                "trace": [
                    {"style": style, "object_ids": ids}
                    for style, ids in (
                        ("title", ["a1"]),
                        ("title_multi_objects", ["n1"]),
                        ("natural_long", ["n1", "n2"]),
                    )
                ],
                "regions": [
                    {"object_id": "a1", "focus": True, "phrase": "building", "box": [10, 20, 30, 40]},
                    {"object_id": "n1", "focus": False, "phrase": "natural tree", "box": [1, 2, 3, 4]},
                    {"object_id": "n2", "focus": False, "phrase": "natural tree", "box": [5, 6, 7, 8]},
                ],
                **dict.fromkeys(SENTENCES, f"A building {number}."),
            }
        )
    for file, rows, schema in (
        ("plan.parquet", plan, PLAN_SCHEMA),
        ("chips.parquet", chips, CHIP_SCHEMA),
        ("captions.parquet", captions, CAPTION_SCHEMA),
    ):
        write_table(here / file, rows_to_table(rows, schema))
    return Captioned(here, here, here)


def items(page: Path) -> list[dict[str, Any]]:
    found = re.search(r'<script id="items" type="application/json">(.*?)</script>', page.read_text("utf-8"), re.DOTALL)
    assert found is not None
    told = json.loads(found[1])
    assert tuple(told["faults"]) == FAULTS
    return list(told["items"])


def test_a_sample_of_all_partitions_stands_on_one_page_that_is_the_same_again(tmp_path: Path) -> None:
    made = [
        partition(tmp_path, "a", 30),
        partition(tmp_path, "b", 10),
        partition(tmp_path, "painted", 9, synthetic=True),
    ]
    styles = ("title", "title_multi_objects")
    assert write_audit(made, 12, 1, styles, tmp_path / "page.html", synthetic=False) == 24
    drawn = items(tmp_path / "page.html")
    assert {one["chip_id"].split("_")[0] for one in drawn} == {"a", "b"}
    assert [one["id"] for one in drawn] == [str(i) for i in range(24)]
    assert [one["style"] for one in drawn].count("title") == 12
    assert {one["style"] for one in drawn[:12]} == set(styles)
    for one in drawn:
        assert base64.b64decode(one["image"].removeprefix("data:image/jpeg;base64,")) == JPEG
        alone = one["style"] == "title"
        assert one["boxes"] == ([[10, 20, 30, 40]] if alone else [[10, 20, 30, 40], [1, 2, 3, 4]])
        assert one["facts"]["tags"] == "building=yes"
        assert one["facts"]["imagery"] == "A (CC0)"
    write_audit(reversed(made), 12, 1, styles, tmp_path / "again.html", synthetic=False)
    assert (tmp_path / "again.html").read_bytes() == (tmp_path / "page.html").read_bytes()
    write_audit(made, 12, 2, styles, tmp_path / "other.html", synthetic=False)
    assert {one["chip_id"] for one in items(tmp_path / "other.html")} != {one["chip_id"] for one in drawn}
    assert write_audit(made, 99, 1, ("title",), tmp_path / "all.html", synthetic=True) == 49


def test_text_of_the_map_is_text_on_the_page(tmp_path: Path) -> None:
    write_audit([partition(tmp_path, "a", 1)], 1, 0, ("title",), tmp_path / "page.html", synthetic=False)
    (one,) = items(tmp_path / "page.html")
    assert one["caption"] == HOSTILE
    page = (tmp_path / "page.html").read_text("utf-8")
    assert page.count("</script>") == 2
    assert "default-src 'none'" in page
    assert "innerHTML" not in page


def test_without_a_photograph_it_says_what_to_do(tmp_path: Path) -> None:
    painted = [partition(tmp_path, "painted", 3, synthetic=True)]
    with pytest.raises(TooLittleDataError, match="--synthetic"):
        write_audit(painted, 5, 0, ("title",), tmp_path / "page.html", synthetic=False)
    assert not (tmp_path / "page.html").exists()


def verdict(number: int, *, right: bool, reader: str = "ann", fault: str = "", style: str = "title") -> Verdict:
    return Verdict(reader, f"c{number}", style, f"caption {number}", right, fault)


def written(path: Path, verdicts: list[Verdict]) -> Path:
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerows([VERDICT_COLUMNS, *((*one[:4], int(one.right), one.fault) for one in verdicts)])
    return path


def test_verdicts_are_told_as_shares_with_intervals_and_kinds_of_faults() -> None:
    one = [verdict(i, right=i != 0, fault="" if i else FAULTS[0]) for i in range(10)]
    (figures,) = judged(one)
    assert {name: figures[name] for name in ("style", "captions", "right", "share")} == {
        "style": "title",
        "captions": 10,
        "right": 9,
        "share": 0.9,
    }
    # Brown, Cai, DasGupta 2001, of 9 in 10.
    assert (round(figures["low"], 4), round(figures["high"], 4)) == (0.5958, 0.9821)
    assert figures["kappa"] is None
    assert figures["faults"] == {FAULTS[0]: 1}


def test_a_caption_is_right_where_all_its_readers_say_so() -> None:
    ann = [verdict(i, right=i > 2) for i in range(10)]
    ben = [verdict(i, right=i > 1, reader="ben") for i in range(10)]
    (figures,) = judged([*ann, *ben])
    assert (figures["captions"], figures["right"]) == (10, 7)
    # 9 of 10 agree; by chance 0.7 * 0.8 + 0.3 * 0.2 would.
    assert figures["kappa"] == pytest.approx((0.9 - 0.62) / (1 - 0.62), abs=1e-3)
    assert figures["faults"] == {"not told": 5}


def test_intervals_stay_within_shares() -> None:
    def interval(right: int, n: int) -> tuple[float, float]:
        (figures,) = judged(verdict(number, right=number < right) for number in range(n))
        return figures["low"], figures["high"]

    assert interval(0, 5)[0] == pytest.approx(0.0, abs=1e-12)
    assert interval(5, 5)[1] == pytest.approx(1.0)
    assert interval(295, 300) == pytest.approx((0.9616, 0.9928), abs=1e-4)


def test_what_the_page_saves_is_read_back(tmp_path: Path) -> None:
    told = [verdict(0, right=True), verdict(1, right=False, fault=FAULTS[2], style="title_multi_objects")]
    path = written(tmp_path / "verdicts.csv", told)
    assert read_verdicts(path) == told
    done = CliRunner().invoke(main, ["audit", "--read", str(path), "--json"], catch_exceptions=False)
    assert [(one["style"], one["right"]) for one in json.loads(done.output)] == [
        ("title", 1),
        ("title_multi_objects", 0),
    ]
    done = CliRunner().invoke(main, ["audit", "--read", str(path)], env={"COLUMNS": "200"}, catch_exceptions=False)
    assert "another kind of thing 1" in done.output.replace("\n", "")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("chip_id,right\n", "its columns are not reader,chip_id"),
        ("reader,chip_id,style,caption,right,fault\na,b,title,c,yes,\n", "line 2: right is 0 or 1"),
        ("reader,chip_id,style,caption,right,fault\na,b,rhyme,c,1,\n", "style one of title"),
        ("reader,chip_id,style,caption,right,fault\na,b,title,c,0,ugly\n", "fault empty or of the page"),
        ("\0", "verdicts"),
    ],
)
def test_other_files_are_refused_with_the_line(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "verdicts.csv"
    path.write_text(text)
    with pytest.raises(CorruptInputError, match=told):
        read_verdicts(path)
    with pytest.raises(CorruptInputError, match="cannot be read"):
        read_verdicts(tmp_path / "none.csv")


def test_verdicts_become_a_table_that_knows_which_captions_still_stand(tmp_path: Path) -> None:
    made = partition(tmp_path, "a", 3)
    rows = [
        ("ann", f"a_{i}", "title_multi_objects", f"building {i}, surrounded by natural tree", i < 2) for i in range(3)
    ]
    rows += [("ben", *row[1:]) for row in rows[:1]] + [("ann", "a_1", "title", "said before", True)]
    lines = [",".join(VERDICT_COLUMNS), *(f'{a},{b},{c},"{d}",{int(e)},' for a, b, c, d, e in rows)]
    (tmp_path / "ann.csv").write_text("\n".join(lines), encoding="utf-8")
    counts = write_verdicts([tmp_path / "ann.csv"], [made.captions], tmp_path)
    assert counts == {"verdicts": 5, "captions": 4, "standing": 3}
    title, several = read_table(tmp_path / AUDIT_FILE, AUDIT_SCHEMA).to_pylist()
    assert (title["style"], title["right"], title["standing"]) == ("title", 1, 0)
    assert (several["captions"], several["right"], several["standing"]) == (3, 2, 3)
    assert several["faults"] == [("not told", 1)]
    assert write_verdicts([], [tmp_path / "nowhere"], tmp_path) == {"verdicts": 0, "captions": 0, "standing": 0}
    assert read_table(tmp_path / AUDIT_FILE, AUDIT_SCHEMA).num_rows == 0
