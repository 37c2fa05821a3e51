"""Which objects become chips, and the chips: `chip_plan`, `image_chips`."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow.compute as pc

from skyscript_assets import metadata
from skyscript_assets.lib.chips.cut import CHIP_SCHEMA, CUT_VERSION, CutInputs, cut_chips
from skyscript_assets.lib.chips.estimate import Estimate, estimate
from skyscript_assets.lib.chips.failures import FAILURE_SCHEMA, FAILURES_FILE
from skyscript_assets.lib.chips.plan import PLAN_FILE, PLAN_SCHEMA, Ground, PlanInputs, PlanRules
from skyscript_assets.lib.chips.plan_report import (
    OUTCOME_SCHEMA,
    OUTCOMES_FILE,
    REPORT_FILE,
    REPORT_SCHEMA,
    plot_plan,
    short_tags,
)
from skyscript_assets.lib.chips.planning import write_plan
from skyscript_assets.lib.chips.sheet import SHEETS, reject_preview, sheet_preview, write_sheets
from skyscript_assets.lib.imagery.choice import data_time
from skyscript_assets.lib.imagery.scenes import covers
from skyscript_assets.lib.imagery.sources.access import open_scene
from skyscript_assets.lib.osm.region_overlap import OVERLAP_FILE, write_region_overlap
from skyscript_assets.lib.settings.load import Settings
from skyscript_assets.lib.storage import OutputKey, Store
from skyscript_assets.lib.tables import read_table
from skyscript_assets.stages import Counts, Parts, Scheme, StageRun, stage


def _reads_plan(settings: Settings, parts: Parts) -> Any:
    return {
        "plan": settings.plant.plan.model_dump(),
        "choice": settings.sources[parts[1]].choice.model_dump(),
        "gsd_m": settings.sources[parts[1]].gsd_m,
        "zoom": settings.plant.split.zoom,
    }


def _objects_of_earlier_regions(settings: Settings, parts: Parts, key: OutputKey) -> bool:
    """Objects in two regions belong to the first by name, so a plan must know those of the regions before its own."""
    if key.asset not in ("osm_extract", "osm_objects") or key.parts[0] >= parts[0]:
        return False
    return covers(settings.regions[parts[0]].bbox, settings.regions[key.parts[0]].bbox)


def estimate_of(settings: Settings, store: Store, parts: Parts) -> Estimate:
    """What cutting the chips of a region and source will take, once its plan is made."""
    earlier = OutputKey("image_chips", parts)
    return estimate(
        store.folder(OutputKey("chip_plan", parts)),
        store.folder(OutputKey("scene_index", parts)),
        settings.sources[parts[1]],
        settings.plant.chips,
        settings.plant.rates,
        store.folder(earlier) if store.manifest(earlier) is not None else None,
    )


def _needs_offsets_to_apply(settings: Settings, parts: Parts, key: OutputKey) -> bool:  # noqa: ARG001
    return key.asset != "scene_offsets" or settings.plant.plan.apply_offsets


def _plan_preview(run: StageRun) -> dict[str, dg.MetadataValue]:
    columns = ["chip_id", "stratum", "gsd_m", "width", "height", "cell", "split"]
    with tempfile.TemporaryDirectory() as folder:
        plot = Path(folder) / "plan.png"
        plot_plan(run.out, plot)
        shown = metadata.image(plot, "What became of the plan")
    report = read_table(run.out / REPORT_FILE)
    return {
        "wanted and planned": shown,
        "estimate": dg.MetadataValue.json(vars(estimate_of(run.settings, run.store, run.parts))),
        "short tags": metadata.rows(short_tags(report)),
        "wanted against achieved": metadata.rows(report.take(pc.sort_indices(report, [("planned", "descending")]))),
        "preview": metadata.parquet_rows(run.out / PLAN_FILE, columns),
    }


@stage(
    Scheme.REGION_SOURCE,
    group="imagery",
    kinds=["parquet"],
    upstream=("osm_extract", "osm_objects", "sampling_snapshot", "scene_index", "scene_offsets"),
    needs=_needs_offsets_to_apply,
    beside=_objects_of_earlier_regions,
    code_version="4",
    tables={PLAN_FILE: PLAN_SCHEMA, REPORT_FILE: REPORT_SCHEMA, OUTCOMES_FILE: OUTCOME_SCHEMA},
    reads=_reads_plan,
    unique="chip_id",
    may_be_empty=True,
    preview=_plan_preview,
)
def chip_plan(run: StageRun) -> Counts:
    """Which objects become chips: scene, window, focus box, stratum, cell and split, by hash sampling with quotas."""
    region, key = run.parts
    plant, source, bbox = run.settings.plant, run.settings.sources[key], run.region_bbox()
    objects = {name: folder / "objects.parquet" for (name,), folder in run.folders("osm_objects").items()}
    earlier = {name: (path, run.region_bbox(name)) for name, path in objects.items() if name != region}
    ground = Ground(region, key, bbox, source.gsd_m, data_time(run.region_facts()["timestamp"]))
    with tempfile.TemporaryDirectory() as folder:
        write_region_overlap(region, bbox, objects[region], earlier, Path(folder))
        inputs = PlanInputs(
            objects=objects[region],
            overlap=Path(folder) / OVERLAP_FILE,
            scenes=run.input("scene_index"),
            snapshot=run.input("sampling_snapshot"),
            offsets=next(iter(run.folders("scene_offsets").values()), None),
        )
        rules = PlanRules(plant.plan, plant.split.zoom, source.choice)
        return vars(write_plan(ground, inputs, rules, run.out, run.progress))


def _reads_cut(settings: Settings, parts: Parts) -> Any:  # noqa: ARG001
    return settings.plant.chips.model_dump()


def _chips_preview(run: StageRun) -> dict[str, dg.MetadataValue]:
    columns = ["chip_id", "status", "reason", "shard", "width", "height", "sharpness", "contrast", "attribution"]
    shown = {"preview": metadata.parquet_rows(run.out / "chips.parquet", columns)}
    for name, sheet in (("contact sheet", sheet_preview), ("rejected chips", reject_preview)):
        picture = sheet(run.out, run.input("chip_plan"), limit_bytes=metadata.MAX_PREVIEW_BYTES)
        if picture:
            shown[name] = metadata.image_bytes(picture, name.capitalize(), "jpeg")
    return shown | {"failures": metadata.parquet_rows(run.out / FAILURES_FILE)}


@stage(
    Scheme.REGION_SOURCE,
    group="imagery",
    kinds=["jpeg", "parquet"],
    upstream=("chip_plan", "scene_index"),
    code_version=CUT_VERSION,
    tables={"chips.parquet": CHIP_SCHEMA, FAILURES_FILE: FAILURE_SCHEMA},
    unversioned=frozenset({FAILURES_FILE, *SHEETS}),
    reads=_reads_cut,
    unique="chip_id",
    may_be_empty=True,
    preview=_chips_preview,
    pool="imagery",
    retries=2,
)
def image_chips(run: StageRun) -> Counts:
    """JPEG chips in tar shards, with quality measures; what is rejected is kept in the table with its reason.

    Chips that could not be read are in a ledger; launchpad config `retry: true` tries them again.
    """
    plant, plan = run.settings.plant, run.input("chip_plan")
    reader = partial(open_scene, source=run.settings.sources[run.parts[1]], cache=run.store.cache("tiles"))
    replaced = None if run.previous is None else run.store.folder(run.previous)
    summary = cut_chips(
        CutInputs(plan, run.input("scene_index"), reader, replaced),
        plant.chips,
        run.out,
        run.progress,
        max_failed_share=plant.failures.max_failed_share,
        only_failed=run.retry,
    )
    write_sheets(run.out, plan)
    return vars(summary)
