"""The audit of captions: a blind sample on one page for people to judge, and what their verdicts say.

A verdict is of one caption of one chip by one reader: is all that it says true of the picture, and can it be seen?
The page holds its pictures and asks nobody for anything; what it saves is read back by `read_verdicts`.
"""

import base64
import csv
import heapq
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from skyscript_assets.lib.captions.write import CAPTION_SCHEMA, CAPTIONS_FILE
from skyscript_assets.lib.chips.cut import CHIP_SCHEMA, CHIPS_FILE
from skyscript_assets.lib.chips.plan import PLAN_FILE, PLAN_SCHEMA
from skyscript_assets.lib.errors import CorruptInputError, TooLittleDataError
from skyscript_assets.lib.files import inside
from skyscript_assets.lib.geometry import unit_hash
from skyscript_assets.lib.settings.base import STYLES
from skyscript_assets.lib.tables import fields, read_table, rows_to_table, write_table
from skyscript_assets.lib.tar import read_member

FAULTS = (
    *("not there", "there, but cannot be seen", "another kind of thing", "wrong attribute"),
    *("wrong count, size or place", "unreadable", "the image cannot be judged"),
)
"""Kinds of faults that a reader chooses from."""

AUDIT_FILE = "audit.parquet"
AUDIT_SCHEMA = pa.schema(
    [
        ("style", pa.string()),
        *fields(pa.int64(), "captions", "right", "standing"),
        *fields(pa.float64(), "share", "low", "high", "kappa"),
        ("faults", pa.map_(pa.string(), pa.int64())),
    ]
)
"""Columns of `audit.parquet`: see `judged`; `standing` are the captions judged that are written just so today."""

VERDICT_COLUMNS = ("reader", "chip_id", "style", "caption", "right", "fault")


class Captioned(NamedTuple):
    """Folders of one region and source: its plan, its chips and their captions."""

    plan: Path
    chips: Path
    captions: Path


class Verdict(NamedTuple):
    """What one reader says of one caption; `fault` is empty where it is right."""

    reader: str
    chip_id: str
    style: str
    caption: str
    right: bool
    fault: str


def write_audit(
    partitions: Iterable[Captioned], n: int, seed: int, styles: Sequence[str], out: Path, *, synthetic: bool
) -> int:
    """Draw captions and write the page on which they are judged.

    Args:
        partitions: What is drawn from: each caption is equally likely, and drawn or not whatever else is there.
        n: Captions of each style.
        seed: Another one draws another sample.
        styles: Styles that are judged; the page shows them mixed and does not name them.
        out: The page, HTML.
        synthetic: Whether chips of synthetic imagery are drawn too.

    Returns:
        Captions on the page.

    Raises:
        TooLittleDataError: there is no caption.
        UpstreamMissingError: a table is missing.
        CorruptInputError: a table or a chip is broken.
    """
    found = list(_candidates(partitions, n, seed, styles, synthetic=synthetic))
    drawn = sorted(each for style in styles for each in heapq.nsmallest(n, (one for one in found if one[3] == style)))
    if not drawn:
        raise TooLittleDataError(
            "no caption of a photograph is here: run `captions` of a region, or pass --synthetic for painted chips"
        )
    by_partition: dict[Captioned, dict[str, dict[str, Any]]] = {}
    for folders in {folders for _, folders, _, _ in drawn}:
        by_partition[folders] = _rows(folders, {chip_id for _, other, chip_id, _ in drawn if other == folders})
    items = [
        _item(by_partition[folders][chip_id], folders, style) | {"id": str(number)}
        for number, (_, folders, chip_id, style) in enumerate(drawn)
    ]
    told = json.dumps({"audit": f"audit {seed} {n} {','.join(styles)}", "faults": FAULTS, "items": items})
    # Text of OpenStreetMap cannot end the element that it stands in.
    page = Template(Path(__file__).with_name("audit.html").read_text(encoding="utf-8"))
    out.write_text(page.substitute(items=told.replace("<", "\\u003c")), encoding="utf-8")
    return len(items)


def _candidates(
    partitions: Iterable[Captioned], n: int, seed: int, styles: Sequence[str], *, synthetic: bool
) -> Iterable[tuple[float, Captioned, str, str]]:
    """The `n` first captions of each partition and style by hash: more of one are never drawn."""
    for folders in partitions:
        chips = read_table(folders.chips / CHIPS_FILE, CHIP_SCHEMA, ("chip_id", "synthetic")).to_pylist()
        judged = {chip["chip_id"] for chip in chips if synthetic or not chip["synthetic"]}
        ids = read_table(folders.captions / CAPTIONS_FILE, columns=["chip_id"])["chip_id"].to_pylist()
        for style in styles:
            hashed = ((unit_hash("audit", seed, style, one), folders, one, style) for one in ids if one in judged)
            yield from heapq.nsmallest(n, hashed)


def _rows(folders: Captioned, wanted: set[str]) -> dict[str, dict[str, Any]]:
    """What plan, chips and captions tell of some chips, by chip."""
    files = ((PLAN_FILE, PLAN_SCHEMA), (CHIPS_FILE, CHIP_SCHEMA), (CAPTIONS_FILE, CAPTION_SCHEMA))
    found: dict[str, dict[str, Any]] = {chip_id: {} for chip_id in wanted}
    for folder, (name, schema) in zip(folders, files, strict=True):
        table = read_table(folder / name, schema)
        for row in table.filter(pc.is_in(table["chip_id"], value_set=pa.array(sorted(wanted)))).to_pylist():
            found[row["chip_id"]] |= row
    return found


def _item(row: Mapping[str, Any], folders: Captioned, style: str) -> dict[str, Any]:
    """What the page shows of one caption."""
    image = read_member(inside(folders.chips, row["shard"]), row["offset"], row["length"])
    named = {i for one in row["trace"] if one["style"] == style for i in one["object_ids"]}
    around = [one for one in row["regions"] if one["object_id"] in named and not one["focus"]]
    facts = {"tags": ", ".join(map("=".join, row["center_tags"])), "GSD": f"{row['gsd_m']:.3g} m"}
    facts |= {one["object_id"]: one["phrase"] for one in around}
    return {
        **{name: row[name] for name in ("chip_id", "width", "height")},
        "style": style,
        "caption": row[style],
        "image": f"data:image/jpeg;base64,{base64.b64encode(image).decode('ascii')}",
        "boxes": [row["focus_box"], *(one["box"] for one in around)],
        "facts": facts | {"imagery": f"{row['attribution']} ({row['licence']})"},
    }


def read_verdicts(path: Path) -> list[Verdict]:
    """Verdicts as the page saves them: a CSV of `VERDICT_COLUMNS`.

    Raises:
        CorruptInputError: it is no such file; the message names the line.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            if tuple(rows.fieldnames or ()) != VERDICT_COLUMNS:
                raise CorruptInputError(
                    f"{path}: its columns are not {','.join(VERDICT_COLUMNS)}: save it from the page"
                )
            return [_verdict(row, f"{path}, line {rows.line_num}") for row in rows]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CorruptInputError(f"{path} cannot be read as verdicts ({error})") from error


def _verdict(row: Mapping[str, str | None], where: str) -> Verdict:
    right, fault, style = (row[name] or "" for name in ("right", "fault", "style"))
    if right not in ("0", "1") or style not in STYLES or (fault and fault not in FAULTS):
        raise CorruptInputError(
            f"{where}: right is 0 or 1, style one of {', '.join(STYLES)}, fault empty or of the page"
        )
    return Verdict(row["reader"] or "", row["chip_id"] or "", style, row["caption"] or "", right == "1", fault)


def judged(verdicts: Iterable[Verdict]) -> list[dict[str, Any]]:
    """What verdicts say of each style: a caption is right where every reader of it says so.

    Returns:
        For each style: captions judged, how many are right, the share and its 95 % interval (Wilson 1927), kinds of
        faults with how often a reader named them, and, where readers judged the same captions, Cohen's kappa of the
        first two.
    """
    by_style: dict[str, dict[tuple[str, str], dict[str, Verdict]]] = {}
    for one in verdicts:
        by_style.setdefault(one.style, {}).setdefault((one.chip_id, one.caption), {})[one.reader] = one
    return [_figures(style, list(found.values())) for style, found in sorted(by_style.items())]


def _figures(style: str, items: Sequence[Mapping[str, Verdict]]) -> dict[str, Any]:
    from scipy.stats import binomtest

    right = sum(all(one.right for one in item.values()) for item in items)
    low, high = map(float, binomtest(right, len(items)).proportion_ci(method="wilson"))
    faults = Counter(one.fault or "not told" for item in items for one in item.values() if not one.right)
    readers = sorted({reader for item in items for reader in item})[:2]
    both = [[item[reader].right for reader in readers] for item in items if all(reader in item for reader in readers)]
    kappa = None
    if len(readers) == 2 and len({answer for pair in both for answer in pair}) == 2:
        from sklearn.metrics import cohen_kappa_score

        kappa = round(float(cohen_kappa_score(*zip(*both, strict=True))), 3)
    counts = {"captions": len(items), "right": right, "share": right / len(items), "low": low, "high": high}
    return {"style": style, **counts, "kappa": kappa, "faults": dict(faults.most_common())}


def write_verdicts(paths: Iterable[Path], captions: Iterable[Path], out: Path) -> dict[str, int]:
    """Write `audit.parquet`: what readers say of each style, and how many of the captions that they judged still stand.

    Returns the numbers of verdicts and of captions judged.

    Raises:
        CorruptInputError: a file holds no verdicts.
        UpstreamMissingError: a table of captions is missing.
    """
    verdicts = [one for path in paths for one in read_verdicts(path)]
    asked = {(one.chip_id, one.style, one.caption) for one in verdicts}
    chips = pa.array(sorted({chip_id for chip_id, _, _ in asked}), pa.string())
    standing = Counter[str]()
    for folder in captions if asked else ():
        table = read_table(folder / CAPTIONS_FILE, columns=["chip_id", *STYLES])
        for row in table.filter(pc.is_in(table["chip_id"], value_set=chips)).to_pylist():
            standing.update(style for style in STYLES if (row["chip_id"], style, row[style]) in asked)
    rows = [{**one, "standing": standing[one["style"]]} for one in judged(verdicts)]
    write_table(out / AUDIT_FILE, rows_to_table(rows, AUDIT_SCHEMA))
    return {"verdicts": len(verdicts), "captions": len(asked), "standing": standing.total()}
