"""Asset checks, from one factory: what a stage declares of its tables is what is checked, on every stored partition."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pyarrow.parquet as pq

from skyscript_assets.lib.storage import OutputKey, Store
from skyscript_assets.partitions import parts_to_key
from skyscript_assets.provenance import State, state_of
from skyscript_assets.resources import Plant
from skyscript_assets.stages import Stage, partitions_of

MAX_REJECTED_SHARE = 0.5
"""Share of planned chips above which a source deserves a look."""

Verdict = tuple[bool, Mapping[str, Any]]
Judge = Callable[[Stage, Plant, Mapping[str, Stage]], Verdict]


def all_checks(stages: Mapping[str, Stage]) -> list[dg.AssetChecksDefinition]:
    """Every check of every stage."""
    return [check for stage in stages.values() for check in _checks_of(stage, stages)]


def _checks_of(stage: Stage, stages: Mapping[str, Stage]) -> Iterable[dg.AssetChecksDefinition]:
    yield _check(stage, stages, "fresh", _fresh, "Made from what its inputs and settings are now.", warn=True)
    if stage.tables:
        yield _check(stage, stages, "columns", _columns, "Each table has the declared columns.")
        yield _check(stage, stages, "rows", _rows, "The main table has rows.", warn=stage.may_be_empty)
    if stage.unique is not None:
        yield _check(stage, stages, "unique_ids", _unique, f"No {stage.unique} occurs twice.", blocking=True)
    if stage.name == "image_chips":
        yield _check(stage, stages, "rejected_share", _rejected, "Most planned chips were accepted.", warn=True)
    if stage.name == "training_manifest":
        yield _check(stage, stages, "shared_ground", _shared_ground, "Splits share no ground.", blocking=True)


def _check(
    stage: Stage,
    stages: Mapping[str, Stage],
    name: str,
    judge: Judge,
    description: str,
    *,
    blocking: bool = False,
    warn: bool = False,
) -> dg.AssetChecksDefinition:
    @dg.asset_check(asset=stage.name, name=name, description=description, blocking=blocking)
    def check(plant: Plant) -> dg.AssetCheckResult:
        passed, evidence = judge(stage, plant, stages)
        severity = dg.AssetCheckSeverity.WARN if warn else dg.AssetCheckSeverity.ERROR
        return dg.AssetCheckResult(passed=passed, severity=severity, metadata=dict(evidence))

    return check


def _outputs(stage: Stage, plant: Plant) -> dict[OutputKey, Path]:
    """Folders of the partitions that exist and that the settings still name."""
    store, settings = plant.store(), plant.settings()
    keys = {stage.key(settings, parts) for parts in partitions_of(stage.scheme, settings)}
    return {key: store.folder(key) for key in sorted(keys) if store.manifest(key) is not None}


def _fresh(stage: Stage, plant: Plant, stages: Mapping[str, Stage]) -> Verdict:
    settings, store = plant.settings(), plant.store()
    stale = [
        parts_to_key(parts) or stage.name
        for parts in partitions_of(stage.scheme, settings)
        if state_of(stage, stages, settings, store, parts) is State.STALE
    ]
    return not stale, {"stale": dg.MetadataValue.json(stale)}


def _columns(stage: Stage, plant: Plant, stages: Mapping[str, Stage]) -> Verdict:  # noqa: ARG001
    wrong = [
        f"{key}/{name}: {field.name} should be {field.type}"
        for key, folder in _outputs(stage, plant).items()
        for name, schema in stage.tables.items()
        for field in schema
        if field not in list(pq.read_schema(folder / name))
    ]
    return not wrong, {"wrong": dg.MetadataValue.json(wrong)}


def _rows(stage: Stage, plant: Plant, stages: Mapping[str, Stage]) -> Verdict:  # noqa: ARG001
    table = next(iter(stage.tables))
    counts = {str(key): pq.read_metadata(folder / table).num_rows for key, folder in _outputs(stage, plant).items()}
    empty = [key for key, count in counts.items() if count == 0]
    return not empty, {"rows": sum(counts.values()), "empty": dg.MetadataValue.json(empty)}


def _unique(stage: Stage, plant: Plant, stages: Mapping[str, Stage]) -> Verdict:  # noqa: ARG001
    table = next(iter(stage.tables))
    files = [str(folder / table) for folder in _outputs(stage, plant).values()]
    if not files:
        return True, {"twice": dg.MetadataValue.json([])}
    # An object may lie in two regions; a chip id may not occur twice anywhere, an object id not within its region.
    grouping = "filename, id" if stage.name == "osm_objects" else "id"
    query = (
        f"SELECT {grouping} FROM (SELECT filename, {stage.unique} AS id FROM read_parquet(?, filename = true)) "  # noqa: S608
        f"GROUP BY {grouping} HAVING count(*) > 1 LIMIT 20"
    )
    twice = [str(row[-1]) for row in duckdb.execute(query, [files]).fetchall()]
    return not twice, {"twice": dg.MetadataValue.json(twice)}


def _rejected(stage: Stage, plant: Plant, stages: Mapping[str, Stage]) -> Verdict:  # noqa: ARG001
    files = [str(folder / "chips.parquet") for folder in _outputs(stage, plant).values()]
    if not files:
        return True, {}
    reasons = duckdb.execute(
        "SELECT coalesce(reason, 'ok'), count(*) FROM read_parquet(?) GROUP BY 1 ORDER BY 2 DESC", [files]
    ).fetchall()
    total = sum(count for _, count in reasons)
    rejected = sum(count for reason, count in reasons if reason != "ok")
    share = rejected / total if total else 0.0
    return share <= MAX_REJECTED_SHARE, {"share": share, "reasons": dg.MetadataValue.json(dict(reasons))}


def _shared_ground(stage: Stage, plant: Plant, stages: Mapping[str, Stage]) -> Verdict:  # noqa: ARG001
    store: Store = plant.store()
    manifest = store.manifest(OutputKey(stage.name))
    if manifest is None:
        return True, {}
    shared = int(manifest.counts["shared_ground"])
    return shared == 0, {"chips": shared, "examples": dg.MetadataValue.json(manifest.counts["shared_ground_examples"])}
