"""Which objects become chips, and the chips: `chip_plan`, `image_chips`."""

from __future__ import annotations

from functools import partial
from typing import Any

import dagster as dg
import pyarrow.compute as pc

from skyscript_assets import metadata
from skyscript_assets.lib.chips.cut import CHIP_SCHEMA, cut_chips
from skyscript_assets.lib.chips.plan import PLAN_SCHEMA, REPORT_SCHEMA, write_plan
from skyscript_assets.lib.chips.sheet import sheet_preview
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
    return settings.plant.chips.model_dump(exclude=_PLAN_FIELDS | {"snapshot"})


def _chips_preview(run: StageRun) -> dict[str, dg.MetadataValue]:
    columns = ["chip_id", "status", "reason", "shard", "width", "height", "sharpness", "contrast", "attribution"]
    shown = {"preview": metadata.parquet_rows(run.out / "chips.parquet", columns)}
    sheet = sheet_preview(run.out, run.input("chip_plan"), captions=None, limit_bytes=metadata.MAX_PREVIEW_BYTES)
    return shown | ({"contact sheet": metadata.image_bytes(sheet, "Chips", "jpeg")} if sheet else {})


@stage(
    Scheme.REGION_SOURCE,
    group="imagery",
    kinds=["jpeg", "parquet"],
    upstream=("chip_plan", "scene_index"),
    tables={"chips.parquet": CHIP_SCHEMA},
    reads=_reads_cut,
    unique="chip_id",
    may_be_empty=True,
    preview=_chips_preview,
    pool="imagery",
    retries=2,
)
def image_chips(run: StageRun) -> Counts:
    """JPEG chips in tar shards, with quality measures; what is rejected is kept in the table with its reason."""
    plan, scenes, chips = run.input("chip_plan"), run.input("scene_index"), run.settings.plant.chips
    reader = partial(open_scene, source=run.settings.sources[run.parts[1]], cache=run.store.cache("tiles"))
    return vars(cut_chips(plan, scenes, chips, run.out, run.progress, open_scene=reader))
