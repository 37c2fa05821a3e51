"""The table of captions of a plan's chips.

The words of a tag belong to `phrases`, what is said of a chip and in which style to `compose`, what lies around its
focus object to `surroundings`.
"""

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely

from skyscript_assets.lib.captions.compose import compose, statements, texts, trace
from skyscript_assets.lib.captions.facts import Fact, Named, facts, named
from skyscript_assets.lib.captions.grammar import packaged_grammar
from skyscript_assets.lib.captions.overlay import Overlay, overlay
from skyscript_assets.lib.captions.phrases import Phrase, as_neighbour, clause, phrases
from skyscript_assets.lib.captions.rules import CaptionRules
from skyscript_assets.lib.captions.sentences import sentences
from skyscript_assets.lib.captions.surroundings import Near, Visible, read_objects, surroundings, visible, with_keys
from skyscript_assets.lib.captions.verify import unproven
from skyscript_assets.lib.chips.plan import PLAN_FILE, PLAN_SCHEMA
from skyscript_assets.lib.chips.sampling import read_snapshot
from skyscript_assets.lib.chips.spread import collisions, effective_number
from skyscript_assets.lib.geometry import unit_hash
from skyscript_assets.lib.progress import Progress, silent
from skyscript_assets.lib.registration.shift import NO_SHIFT
from skyscript_assets.lib.settings.base import SENTENCES, STYLES, read_yaml
from skyscript_assets.lib.settings.plant import CaptionSettings
from skyscript_assets.lib.tables import TAGS_TYPE, fields, read_batches, read_table, rows_to_table, write_tables
from skyscript_assets.lib.tags.features import base_counts

CAPTIONS_FILE = "captions.parquet"

_BOX = pa.list_(pa.int32())
_SURROUNDING = pa.struct([("object_id", pa.string()), ("tags", TAGS_TYPE), ("box", _BOX)])
_STATEMENT = pa.struct(
    [("object_id", pa.string()), ("focus", pa.bool_()), *fields(pa.string(), "clause", "main", "kind", "key", "value")]
)
_TRACE = pa.struct(
    [*fields(pa.string(), "style", "role", "phrase", "key", "value", "fact"), ("object_ids", pa.list_(pa.string()))]
)
_REGION = pa.struct(
    [
        ("object_id", pa.string()),
        ("focus", pa.bool_()),
        ("phrase", pa.string()),
        ("box", _BOX),
        ("geometry", pa.binary()),
    ]
)
CAPTION_SCHEMA = pa.schema(
    [
        ("chip_id", pa.string()),
        *fields(pa.string(), *STYLES),
        ("center_tags", TAGS_TYPE),
        ("surrounding", pa.list_(_SURROUNDING)),
        ("statements", pa.list_(_STATEMENT)),
        ("trace", pa.list_(_TRACE)),
        ("regions", pa.list_(_REGION)),
    ]
)
"""Columns of `captions.parquet`: a caption of each style, and what it is made of.

`surrounding` holds the objects that `title_multi_objects` names, each with its visible tags (values of one key joined
by `;`) and the box (x0, y0, x1, y1) of its overlap with the chip, in chip pixels, half open. `statements` is what
`compose.statements` says of the focus object and of each of these. `trace` has a row for each phrase of each style: the
objects and the tag that it is of, its role (of sentences, the slot), and what was counted or measured for it. `regions`
are the objects that any style is about: what is said of them, box, and geometry as WKB, clipped, in chip pixels.
"""

CANDIDATES = 4
"""Objects looked at for each one that may be named: some read like another and are passed over."""

TRAINING_BATCH = 512
"""Pairs in a batch of the paper's training, in which equal captions collide."""

BATCH = 512
"""Chips overlaid at a time: bounds the memory."""

ROWS = 8_192
"""Rows in memory at a time, and in a row group."""

VERIFIED = 100
"""Chips of a partition whose sentences are proved once more, from objects and window alone."""


class _Level(NamedTuple):
    """What can be seen and said at one GSD, by number of the set of tags."""

    seen: Visible
    said: list[list[Phrase]]
    names: Named


@dataclass(frozen=True)
class CaptionInputs:
    """What captions of one region and source are made from.

    Attributes:
        plan: `chip_plan` folder of the region and source.
        chips: `image_chips` folder of the same.
        objects: `objects.parquet` of the region.
        snapshot: `sampling_snapshot` folder; its tags alone may be said, each where the GSD is fine enough.
        rules: Caption rules, YAML.
    """

    plan: Path
    chips: Path
    objects: Path
    snapshot: Path
    rules: Path


def write_captions(
    inputs: CaptionInputs, captions: CaptionSettings, out: Path, progress: Progress = silent
) -> dict[str, Any]:
    """Write `captions.parquet` for the accepted chips of a plan, in its order.

    Returns:
        Numbers of accepted `chips`, of `captions`, of chips `without_caption`, whose focus object has no tag that may
            be said at the chip's GSD, and of captions `with_surrounding` objects; by style, how many are `distinct`,
            how many equally frequent ones would be as varied (`effective`: the exponential of the entropy) and how many
            others of a batch of 512 carry a sample's caption on average (`collisions`); characters of the `longest`;
            chips whose sentences were `verified` once more by `verify`, and what it refused, by chip: `unproven`.

    Raises:
        UpstreamMissingError: an input table is missing.
        CorruptInputError: an input is broken, or the plan names objects that the extract does not have.
        SettingsError: the rules are wrong.
    """
    writer = Writer(inputs, captions)
    tables = (rows_to_table(writer.rows(chips, progress), CAPTION_SCHEMA) for chips in writer.chips())
    write_tables(out / CAPTIONS_FILE, CAPTION_SCHEMA, tables)
    return writer.summary()


class Writer:
    """Makes rows of `captions.parquet` and counts them; arguments are those of `write_captions`."""

    def __init__(self, inputs: CaptionInputs, captions: CaptionSettings) -> None:
        self._captions, self._grammar = captions, packaged_grammar()
        self._rules = read_yaml(inputs.rules, CaptionRules)
        self._frequency = base_counts() if captions.order == "frequency" else None
        status = read_table(inputs.chips / "chips.parquet", columns=["chip_id", "status"])
        self._accepted = status.filter(pc.equal(status["status"], "ok"))["chip_id"].combine_chunks()
        self._plan = inputs.plan / PLAN_FILE
        plan = read_table(self._plan, PLAN_SCHEMA, ["chip_id", "object_id", "gsd_m"])
        plan = plan.filter(pc.is_in(plan["chip_id"], value_set=self._accepted))
        self._chips, self._done = plan.num_rows, 0
        by_hash = sorted(plan["chip_id"].to_pylist(), key=lambda chip_id: unit_hash("verify", chip_id))
        self._to_verify = set(by_hash[:VERIFIED])
        self._paper = captions.policy == "paper"
        lets = (*self._rules.paper_keys, *self._rules.let_through) if self._paper else ()
        self._snapshot = read_snapshot(inputs.snapshot)
        if lets:
            self._snapshot = with_keys(self._snapshot, inputs.objects, lets)
        self._objects = read_objects(inputs.objects, self._snapshot, set(plan["object_id"].to_pylist()), lets)
        # Of the tags that can be seen at one GSD those of a coarser one are a subset: equal numbers are equal tags.
        gsds = pc.unique(plan["gsd_m"]).to_pylist()
        self._tags_at = {gsd_m: int(self._snapshot.visible(gsd_m).sum()) for gsd_m in gsds}
        self._finest = {n: min(gsd_m for gsd_m in gsds if self._tags_at[gsd_m] == n) for n in self._tags_at.values()}
        self._levels: dict[int, _Level] = {}
        self._with_surrounding = self._longest = self._verified = 0
        self._unproven: dict[str, list[str]] = {}
        # Of each text its hash alone is kept.
        self._hashes = {style: array("q") for style in STYLES}

    def chips(self) -> Iterator[list[dict[str, Any]]]:
        """The accepted chips, in the order of the plan, some at a time."""
        for batch in read_batches(self._plan, PLAN_SCHEMA, ROWS):
            yield batch.filter(pc.is_in(batch["chip_id"], value_set=self._accepted)).to_pylist()

    def rows(self, chips: Sequence[Mapping[str, Any]], progress: Progress = silent) -> list[dict[str, Any]]:
        """The rows of chips, in their order; there is none of a chip whose focus object has nothing to say."""
        groups: dict[tuple[int, str, tuple[float, ...]], list[int]] = {}
        for i, chip in enumerate(chips):
            alike = (self._tags_at[chip["gsd_m"]], chip["crs"], tuple(chip["osm_shift_m"] or NO_SHIFT))
            groups.setdefault(alike, []).append(i)
        rows: dict[int, dict[str, Any]] = {}
        for (tags, *_), group in groups.items():
            level = self._level(tags)
            for start in range(0, len(group), BATCH):
                numbers = group[start : start + BATCH]
                for i, row in zip(numbers, self._batch([chips[i] for i in numbers], level), strict=True):
                    if row is not None:
                        rows[i] = row
                        self._count(row, chips[i], level)
                self._done += len(numbers)
                progress(self._done, self._chips, "chips")
        return [rows[i] for i in sorted(rows)]

    def _count(self, row: Mapping[str, Any], chip: Mapping[str, Any], level: _Level) -> None:
        """Count a row, and prove its sentences where it is one of the sample."""
        self._with_surrounding += bool(row["surrounding"])
        for style, hashes in self._hashes.items():
            self._longest = max(self._longest, len(row[style]))
            hashes.append(hash(row[style]))
        if row["chip_id"] in self._to_verify:
            self._verified += 1
            if wrong := unproven(row, chip, self._objects, level.seen, level.names, self._grammar):
                self._unproven[row["chip_id"]] = wrong

    def summary(self) -> dict[str, Any]:
        """Counts of all rows that were made."""
        counts = {style: np.unique(np.array(found), return_counts=True)[1] for style, found in self._hashes.items()}
        n = len(self._hashes["title"])
        return {
            "chips": self._chips,
            "captions": n,
            "without_caption": self._chips - n,
            "with_surrounding": self._with_surrounding,
            "distinct": {style: len(found) for style, found in counts.items()},
            "longest": self._longest,
            "effective": {style: effective_number(found.tolist()) for style, found in counts.items()},
            "collisions": {style: collisions(found.tolist(), TRAINING_BATCH) for style, found in counts.items()},
            "verified": self._verified,
            "unproven": dict(sorted(self._unproven.items())),
        }

    def _level(self, tags: int) -> _Level:
        if tags not in self._levels:
            seen = visible(self._objects, self._snapshot, self._finest[tags], paper=self._paper)
            said = [phrases(dict(own), self._rules, self._frequency, self._captions.policy) for own in seen.sets]
            self._levels[tags] = _Level(seen, said, named(seen.sets, said, self._grammar))
        return self._levels[tags]

    def _batch(self, chips: Sequence[Mapping[str, Any]], level: _Level) -> Iterator[dict[str, Any] | None]:
        objects, seen = self._objects, level.seen
        focus = np.array([objects.rows[chip["object_id"]] for chip in chips], dtype=np.int64)
        over = overlay(chips, focus, objects.geometry, seen.candidates, seen.tree, seen.ground_set_of > 0)
        around = surroundings(over, objects, seen, self._captions.max_surrounding * CANDIDATES)
        true = facts(chips, over, objects, seen, level.names, self._grammar)
        shapes = shapely.to_wkb(over.piece)
        for i, overlaps in enumerate(over.by_chip()):
            yield self._row(chips[i], around[i], true[i], over, shapes, overlaps, level)

    def _row(
        self,
        chip: Mapping[str, Any],
        near: Sequence[Near],
        true: Sequence[Fact],
        over: Overlay,
        shapes: Sequence[bytes],
        overlaps: Sequence[int],
        level: _Level,
    ) -> dict[str, Any] | None:
        """One row of `captions.parquet`; `overlaps` are the chip's, that of its focus object first, `shapes` of all."""
        objects, (seen, said, names), most = self._objects, level, self._captions.max_length
        focus = seen.set_of[over.row[overlaps[0]]]
        around = [as_neighbour(said[one.tags]) for one in near]
        composed = compose(said[focus], around, self._captions.max_surrounding, most)
        if composed is None:
            return None
        others = [near[i] for i in composed.named]
        surrounding = [
            {"object_id": objects.ids[one.row], "tags": seen.sets[one.tags], "box": one.box} for one in others
        ]
        ids = [chip["object_id"], *(one["object_id"] for one in surrounding)]
        written = {style: sentences(style, true, most) for style in SENTENCES}
        told = {i for _, used in written.values() for fact in used for i in fact.object_ids}
        in_view = {objects.ids[over.row[j]]: j for j in overlaps}
        clauses = dict(zip(ids, map(clause, (composed.focus, *composed.around)), strict=True))
        return {
            "chip_id": chip["chip_id"],
            **texts(composed, most),
            **{style: text for style, (text, _) in written.items()},
            "center_tags": seen.sets[focus],
            "surrounding": surrounding,
            "statements": statements(composed, ids, most),
            "trace": [*trace(composed, ids), *_traced(written, names.attributes[focus])],
            "regions": [
                {
                    "object_id": object_id,
                    "focus": object_id == chip["object_id"],
                    "phrase": clauses.get(object_id)
                    or clause(as_neighbour(said[seen.near_set_of[over.row[in_view[object_id]]]])),
                    "box": over.box[in_view[object_id]].tolist(),
                    "geometry": shapes[in_view[object_id]],
                }
                for object_id in (*ids, *sorted(told - set(ids)))
            ],
        }


def _traced(
    written: Mapping[str, tuple[str, Sequence[Fact]]], attributes: Sequence[tuple[tuple[str, str], str]]
) -> Iterator[dict[str, Any]]:
    """Rows of the trace for captions in sentences: a row for each fact, and for each attribute of the thing."""
    for style, (_, used) in written.items():
        for fact in used:
            same = {"key": fact.key, "value": fact.value, "fact": fact.fact, "object_ids": list(fact.object_ids)}
            row = {"style": style, "role": fact.slot, "phrase": fact.phrase, **same}
            yield row
            for (key, value), words in attributes if fact.slot == "thing" else ():
                yield {**row, "role": "attribute", "phrase": words, "key": key, "value": value}
