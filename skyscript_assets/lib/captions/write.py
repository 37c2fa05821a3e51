"""The table of captions of a plan's chips.

The words of a tag belong to `phrases`, what is said of a chip and in which style to `compose`, what lies around its
focus object to `surroundings`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from skyscript_assets.lib.captions.compose import STYLES, compose, statements, texts, trace
from skyscript_assets.lib.captions.phrases import Phrase, as_neighbour, phrases
from skyscript_assets.lib.captions.rules import CaptionRules
from skyscript_assets.lib.captions.surroundings import (
    Near,
    Objects,
    Visible,
    read_objects,
    surroundings,
    visible,
    with_keys,
)
from skyscript_assets.lib.chips.plan import PLAN_FILE, PLAN_SCHEMA
from skyscript_assets.lib.chips.sampling import read_snapshot
from skyscript_assets.lib.chips.spread import collisions
from skyscript_assets.lib.progress import Progress, silent
from skyscript_assets.lib.registration.shift import NO_SHIFT
from skyscript_assets.lib.settings.base import read_yaml
from skyscript_assets.lib.settings.plant import CaptionSettings
from skyscript_assets.lib.tables import TAGS_TYPE, fields, read_table, rows_to_table, write_table
from skyscript_assets.lib.tags.features import base_counts

CAPTIONS_FILE = "captions.parquet"

_SURROUNDING = pa.struct([("object_id", pa.string()), ("tags", TAGS_TYPE), ("box", pa.list_(pa.int32()))])
_STATEMENT = pa.struct(
    [("object_id", pa.string()), ("focus", pa.bool_()), *fields(pa.string(), "clause", "main", "kind", "key", "value")]
)
_TRACE = pa.struct(fields(pa.string(), "key", "value", "phrase", "role"))
CAPTION_SCHEMA = pa.schema(
    [
        ("chip_id", pa.string()),
        *fields(pa.string(), *STYLES),
        ("center_tags", TAGS_TYPE),
        ("surrounding", pa.list_(_SURROUNDING)),
        ("statements", pa.list_(_STATEMENT)),
        ("trace", pa.list_(_TRACE)),
    ]
)
"""Columns of `captions.parquet`: a caption of each style, and what it is made of.

`surrounding` holds the objects that are named, each with its visible tags (values of one key joined by `;`) and the box
(x0, y0, x1, y1) of its overlap with the chip, in chip pixels, half open. `statements` is what `compose.statements` says
of the focus object and of each of these; `trace` tells which tag put which words into a caption.
"""

CANDIDATES = 4
"""Objects looked at for each one that may be named: some read like another and are passed over."""

TRAINING_BATCH = 512
"""Pairs in a batch of the paper's training, in which equal captions collide."""

BATCH = 512
"""Chips overlaid at a time: bounds the memory."""


@dataclass(frozen=True)
class CaptionSummary:
    """Counts of the captions of one region and source: accepted chips, captions, different ones of each style.

    Attributes:
        without_caption: Chips whose focus object has no tag that may be said at the chip's GSD.
        with_surrounding: Captions that name at least one surrounding object.
        longest: Characters of the longest caption.
        collisions: How many others of a batch of 512 carry a sample's caption on average, by style.
    """

    chips: int
    captions: int
    without_caption: int
    with_surrounding: int
    distinct: dict[str, int]
    longest: int
    collisions: dict[str, float]


def write_captions(
    plan_folder: Path,
    chips_folder: Path,
    objects_path: Path,
    snapshot_folder: Path,
    rules_path: Path,
    captions: CaptionSettings,
    out: Path,
    progress: Progress = silent,
) -> CaptionSummary:
    """Write `captions.parquet` for the accepted chips of a plan, in its order.

    Args:
        plan_folder: `chip_plan` of the region and source.
        chips_folder: `image_chips` of the same.
        objects_path: `objects.parquet` of the region.
        snapshot_folder: `sampling_snapshot`; its tags alone may be said, each where the GSD is fine enough.
        rules_path: Caption rules, YAML.
        captions: Limits.
        out: Existing folder for the table.
        progress: Told of chips done.

    Returns:
        Counts.

    Raises:
        UpstreamMissingError: an input table is missing.
        CorruptInputError: an input is broken, or the plan names objects that the extract does not have.
        SettingsError: the rules are wrong.
    """
    rules = read_yaml(rules_path, CaptionRules)
    status = read_table(chips_folder / "chips.parquet", columns=["chip_id", "status"])
    accepted = status.filter(pc.equal(status["status"], "ok"))["chip_id"].combine_chunks()
    plan = read_table(plan_folder / PLAN_FILE, PLAN_SCHEMA)
    chips = plan.filter(pc.is_in(plan["chip_id"], value_set=accepted)).to_pylist()
    snapshot = read_snapshot(snapshot_folder)
    lets = (*rules.paper_keys, *rules.let_through) if captions.policy == "paper" else ()
    if lets:
        snapshot = with_keys(snapshot, objects_path, lets)
    objects = read_objects(objects_path, snapshot, {chip["object_id"] for chip in chips}, lets)
    frequency = base_counts() if captions.order == "frequency" else None

    rows: dict[int, dict[str, Any]] = {}
    done = 0
    # Of the tags that can be seen at one GSD those of a coarser one are a subset: equal numbers are equal tags.
    for alike in _grouped(
        range(len(chips)), lambda i: (int(snapshot.visible(chips[i]["gsd_m"]).sum()), chips[i]["crs"])
    ):
        seen = visible(objects, snapshot, min(chips[i]["gsd_m"] for i in alike), paper=captions.policy == "paper")
        said = [phrases(dict(tags), rules, frequency, captions.policy) for tags in seen.sets]
        for moved in _grouped(alike, lambda i: tuple(chips[i]["osm_shift_m"] or NO_SHIFT)):
            for start in range(0, len(moved), BATCH):
                batch = moved[start : start + BATCH]
                limit = captions.max_surrounding * CANDIDATES
                around = surroundings([chips[i] for i in batch], objects, seen, limit)
                for i, near in zip(batch, around, strict=True):
                    row = _row(chips[i], near, objects, seen, said, captions)
                    if row is not None:
                        rows[i] = row
                done += len(batch)
                progress(done, len(chips), "chips")
    written = [rows[i] for i in sorted(rows)]
    write_table(out / CAPTIONS_FILE, rows_to_table(written, CAPTION_SCHEMA))
    texts_of = {style: Counter(row[style] for row in written) for style in STYLES}
    return CaptionSummary(
        chips=len(chips),
        captions=len(written),
        without_caption=len(chips) - len(written),
        with_surrounding=sum(bool(row["surrounding"]) for row in written),
        distinct={style: len(found) for style, found in texts_of.items()},
        longest=max((len(text) for found in texts_of.values() for text in found), default=0),
        collisions={style: collisions(found.values(), TRAINING_BATCH) for style, found in texts_of.items()},
    )


def _grouped(rows: Iterable[int], key: Callable[[int], Hashable]) -> list[list[int]]:
    """Row numbers of equal keys together."""
    groups: dict[Hashable, list[int]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return list(groups.values())


def _row(
    chip: Mapping[str, Any],
    near: Sequence[Near],
    objects: Objects,
    seen: Visible,
    said: Sequence[Sequence[Phrase]],
    captions: CaptionSettings,
) -> dict[str, Any] | None:
    """One row of `captions.parquet`, None where the focus object has nothing to say; `said` is by tag set."""
    focus = seen.set_of[objects.rows[chip["object_id"]]]
    around = [as_neighbour(said[one.tags]) for one in near]
    composed = compose(said[focus], around, captions.max_surrounding, captions.max_length)
    if composed is None:
        return None
    surrounding = [
        {"object_id": objects.ids[one.row], "tags": seen.sets[one.tags], "box": one.box}
        for one in (near[i] for i in composed.named)
    ]
    ids = [chip["object_id"], *(one["object_id"] for one in surrounding)]
    return {
        "chip_id": chip["chip_id"],
        **texts(composed, captions.max_length),
        "center_tags": seen.sets[focus],
        "surrounding": surrounding,
        "statements": statements(composed, ids, captions.max_length),
        "trace": trace(composed),
    }
