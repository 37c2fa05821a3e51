"""Asset checks: what a stage declares of its tables, and more where it names more, judged on the partition just made.

A blocking check is judged before an output takes its place: where it fails, the earlier output stays and nothing later
can read the broken one. The others are judged on the finished output.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import dagster as dg
import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from skyscript_assets import metadata
from skyscript_assets.lib.imagery.scenes import UNUSABLE_FILE
from skyscript_assets.partitions import Partition, key_of
from skyscript_assets.provenance import Outcome, Outputs, State

if TYPE_CHECKING:
    from skyscript_assets.asset import Stage

MAX_REJECTED_SHARE = 0.5
"""Share of planned chips above which a source deserves a look."""

SHOWN = 20
"""Most examples that a check gives."""


class Verdict(NamedTuple):
    """Whether an output passed, and what was found, as JSON values by name."""

    passed: bool
    evidence: Mapping[str, Any]


@dataclass(frozen=True)
class Check:
    """A check of one output.

    Attributes:
        name: Its name in Dagster.
        description: What holds where it passes.
        judge: Told the folder and the counts of an output.
        blocking: Whether an output that fails is refused.
        warn: Whether failing is a warning only.
    """

    name: str
    description: str
    judge: Callable[[Path, Mapping[str, Any]], Verdict]
    blocking: bool = False
    warn: bool = False


FRESH = "fresh"
"""The check that every stage has: it asks the store, the others look at the output alone."""


def of_tables(tables: Mapping[str, pa.Schema], unique: str | None, empty: str) -> Iterator[Check]:
    """Checks of the tables that a stage declares, see there; the first one is its main table."""
    if not tables:
        return
    main = next(iter(tables))
    yield Check("columns", "Each table has the declared columns.", lambda folder, _: _columns(folder, tables))
    if empty != "passes":
        yield Check(
            "rows", "The main table has rows.", lambda folder, told: _rows(folder / main, told), warn=empty == "warns"
        )
    if unique is not None:
        description = f"No {unique} occurs twice."
        yield Check("unique_ids", description, lambda folder, _: _unique(folder / main, unique), blocking=True)


def _columns(folder: Path, tables: Mapping[str, pa.Schema]) -> Verdict:
    wrong = [
        f"{name}: {field.name} should be {field.type}"
        for name, schema in tables.items()
        for field in schema
        if field not in list(pq.read_schema(folder / name))
    ]
    return Verdict(not wrong, {"wrong": wrong})


def _rows(table: Path, counts: Mapping[str, Any]) -> Verdict:
    rows = pq.read_metadata(table).num_rows
    return Verdict(rows > 0, {"rows": rows} if rows else {**counts, "rows": rows})


def _unique(table: Path, column: str) -> Verdict:
    query = f"SELECT {column} FROM read_parquet(?) GROUP BY 1 HAVING count(*) > 1 ORDER BY 1 LIMIT {SHOWN}"  # noqa: S608
    twice = [str(value) for (value,) in duckdb.execute(query, [str(table)]).fetchall()]
    return Verdict(not twice, {"twice": twice})


def _rejected(folder: Path, counts: Mapping[str, Any]) -> Verdict:  # noqa: ARG001
    query = "SELECT coalesce(reason, 'ok'), count(*) FROM read_parquet(?) GROUP BY 1 ORDER BY 2 DESC, 1"
    reasons = dict(duckdb.execute(query, [str(folder / "chips.parquet")]).fetchall())
    total = sum(reasons.values())
    share = 1 - reasons.get("ok", 0) / total if total else 0.0
    return Verdict(share <= MAX_REJECTED_SHARE, {"share": share, "reasons": reasons})


MOST_SHAPED = Check(
    "most_shaped",
    "Most tagged ways and relations have a geometry.",
    lambda _, counts: Verdict(
        counts["invalid"] <= counts["lines"] + counts["areas"] + counts["outside"],
        {name: counts[name] for name in ("nodes", "lines", "areas", "outside", "invalid", "invalid_reasons")},
    ),
    warn=True,
)

PROVEN = Check(
    "proven_sentences",
    "Sentences of a sample are proved again, from the objects and the chip's window alone.",
    lambda _, counts: Verdict(not counts["unproven"], {name: counts[name] for name in ("verified", "unproven")}),
    blocking=True,
)

REJECTED_SHARE = Check("rejected_share", "Most planned chips were accepted.", _rejected, warn=True)


def _usable(folder: Path, counts: Mapping[str, Any]) -> Verdict:
    listed = json.loads((folder / UNUSABLE_FILE).read_text("utf-8")) if (folder / UNUSABLE_FILE).exists() else []
    hidden = counts.get("mostly_hidden", 0)
    found = {"unusable": len(listed), "first": listed[:3], "mostly hidden by alpha": hidden}
    return Verdict(not listed and not hidden, found)


IMAGES_USABLE = Check(
    "images_usable",
    "Every image is used, and no alpha band hides most of one (else `alpha: ignore`).",
    _usable,
    warn=True,
)

MOST_PLANNED = Check(
    "most_planned",
    "Most drawn objects have a chip, or a chip beside them has one that says the same.",
    lambda _, counts: Verdict(
        2 * sum(n for reason, n in counts["dropped"].items() if reason != "near") <= counts["drawn"],
        {name: counts[name] for name in ("objects", "drawn", "planned", "dropped")},
    ),
    warn=True,
)

SHARED_GROUND = Check(
    "shared_ground",
    "Splits share no ground.",
    lambda _, counts: Verdict(
        counts["shared_ground"] == 0, {"chips": counts["shared_ground"], "examples": counts["shared_ground_examples"]}
    ),
    blocking=True,
)

HELD_OUT = Check(
    "held_out",
    "No eligible pair shows an object or a benchmark's image that is held out, or an image twice.",
    lambda _, counts: Verdict(counts["leaks_left"] == 0, {"pairs": counts["leaks_left"]}),
    blocking=True,
)

TRAINABLE = Check(
    "trainable",
    "Some pairs may be trained on.",
    lambda _, counts: Verdict(counts["splits"]["train"] > 0, {name: counts[name] for name in ("splits", "dropped")}),
    warn=True,
)


def _leaks(folder: Path, counts: Mapping[str, Any]) -> Verdict:  # noqa: ARG001
    leaks, unseen = counts["leaks"], counts["unseen_benchmarks"]
    held_out = {kind: leaks["kinds"].get(kind, 0) for kind in ("object", "benchmark")}
    found = {**held_out, "duplicates across splits": leaks["across_splits"], "benchmarks not compared": len(unseen)}
    examples = {kind: some for kind, some in leaks["examples"].items() if held_out.get(kind, leaks["across_splits"])}
    shown = {"examples": examples, "not compared": unseen[:SHOWN]}
    return Verdict(not any(found.values()), {name: value for name, value in (found | shown).items() if value})


LEAKS = Check(
    "leaks",
    "No pair had to be dropped for an object, image or benchmark of another split, and every benchmark was compared.",
    _leaks,
    warn=True,
)

WEIGHTS_MOVE = Check(
    "weights_move",
    "The learning rate can move weights near 1, such as gains, in float32.",
    lambda _, counts: Verdict(
        (counts["unmoved_from"] or 2) > 1, {"no weight of this absolute value or more can move": counts["unmoved_from"]}
    ),
    warn=True,
)

CLASSES_SHOWN = Check(
    "classes_shown",
    "Every class is shown by a test image.",
    lambda _, counts: Verdict(
        not counts["without_images"],
        {"without images": len(counts["without_images"]), "first": counts["without_images"][:SHOWN]},
    ),
    warn=True,
)


def freshness(outputs: Outputs, stage: Stage, partition: Partition) -> Verdict:
    """Whether the direct inputs of an output are current, and a frozen output is what would be made now.

    The evidence lists each difference: what, before, now.
    """
    found = []
    if stage.frozen_as is not None:
        found += [(stage.name, difference) for difference in outputs.differences(stage, partition)]
    for key in outputs.provenance(stage, partition).inputs:
        made_by = outputs.stages[key.asset]
        theirs = () if made_by.frozen_as else key.partition
        if outputs.state(made_by, theirs) is State.STALE:
            found += [(str(key), difference) for difference in outputs.differences(made_by, theirs)]
    shown = [{"output": name, **difference._asdict()} for name, difference in found[:SHOWN]]
    return Verdict(not found, {"differences": shown, "count": len(found)})


def specs(stage: Stage) -> list[dg.AssetCheckSpec]:
    """What Dagster is told of a stage's checks."""
    told = [(FRESH, "Its inputs are current; else each difference is listed.", False)]
    told += [(check.name, check.description, check.blocking) for check in stage.checks]
    return [dg.AssetCheckSpec(name, asset=stage.name, description=text, blocking=stops) for name, text, stops in told]


def results(outputs: Outputs, stage: Stage, partition: Partition, outcome: Outcome) -> Iterator[dg.AssetCheckResult]:
    """All checks of a stage on a finished output."""
    yield result(FRESH, freshness(outputs, stage, partition), partition, warn=True)
    for check in stage.checks:
        yield result(check.name, check.judge(outcome.run.out, outcome.record.counts), partition, warn=check.warn)


def result(name: str, verdict: Verdict, partition: Partition, *, warn: bool) -> dg.AssetCheckResult:
    """A verdict as Dagster takes it; the partition is in the metadata, since plain checks have none."""
    return dg.AssetCheckResult(
        check_name=name,
        passed=verdict.passed,
        severity=dg.AssetCheckSeverity.WARN if warn else dg.AssetCheckSeverity.ERROR,
        metadata={"partition": key_of(partition) or "-", **metadata.counts(verdict.evidence)},
    )
