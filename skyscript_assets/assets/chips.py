"""Which objects become chips, and the chips: `chip_plan`, `image_chips`."""

from __future__ import annotations

from functools import partial
from typing import Any

import dagster as dg
import pyarrow.compute as pc

from skyscript_assets import metadata
from skyscript_assets.lib.chips.cut import CHIP_SCHEMA, CUT_VERSION, cut_chips
from skyscript_assets.lib.chips.ledger import FAILURE_SCHEMA, FAILURES_FILE
from skyscript_assets.lib.chips.plan import PLAN_SCHEMA, REPORT_SCHEMA, write_plan
from skyscript_assets.lib.chips.sheet import SHEETS, reject_preview, sheet_preview, write_sheets
from skyscript_assets.lib.imagery.access import open_scene
from skyscript_assets.lib.settings import Settings
from skyscript_assets.lib.tables import read_table
from skyscript_assets.stages import Counts, Parts, Scheme, StageRun, stage

_PLAN_FIELDS = {
    "rule",
    "quota",
    "min_object_px",
    "min_tile_px",
    "max_tile_px",
    "context",
    "point_tile_px",
    "shift",
    "seed",
}


def _reads_plan(settings: Settings, parts: Parts) -> Any:  # noqa: ARG001
    return {"chips": settings.plant.chips.model_dump(include=_PLAN_FIELDS), "zoom": settings.plant.split.zoom}


def _plan_preview(run: StageRun) -> dict[str, dg.MetadataValue]:
    columns = ["chip_id", "stratum", "gsd_m", "width", "height", "cell", "split"]
    report = read_table(run.out / "report.parquet")
    return {
        "preview": metadata.parquet_rows(run.out / "plan.parquet", columns),
        "wanted against achieved": metadata.rows(report.take(pc.sort_indices(report, [("planned", "descending")]))),
    }


@stage(
    Scheme.REGION_SOURCE,
    group="imagery",
    kinds=["parquet"],
    upstream=("osm_extract", "osm_objects", "sampling_snapshot", "scene_index"),
    code_version="2",
    tables={"plan.parquet": PLAN_SCHEMA, "report.parquet": REPORT_SCHEMA},
    reads=_reads_plan,
    unique="chip_id",
    may_be_empty=True,
    preview=_plan_preview,
)
def chip_plan(run: StageRun) -> Counts:
    """Which objects become chips: scene, window, focus box, stratum, cell and split, by hash sampling with quotas."""
    region, source = run.parts
    plant = run.settings.plant
    return vars(
        write_plan(
            region,
            source,
            run.region_bbox(),
            run.input("osm_objects") / "objects.parquet",
            run.input("scene_index"),
            run.input("sampling_snapshot"),
            plant.chips,
            plant.split.zoom,
            run.out,
            progress=run.progress,
        )
    )


def _reads_cut(settings: Settings, parts: Parts) -> Any:  # noqa: ARG001
    # The share of failures that is put up with decides whether there are chips, not which.
    return settings.plant.chips.model_dump(exclude=_PLAN_FIELDS | {"snapshot", "max_failed_share"})


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
    plan, scenes, chips = run.input("chip_plan"), run.input("scene_index"), run.settings.plant.chips
    reader = partial(open_scene, source=run.settings.sources[run.parts[1]], cache=run.store.cache("tiles"))
    earlier = None if run.previous is None else run.store.folder(run.previous)
    summary = cut_chips(
        plan, scenes, chips, run.out, run.progress, open_scene=reader, earlier=earlier, only_failed=run.retry
    )
    write_sheets(run.out, plan)
    return vars(summary)
