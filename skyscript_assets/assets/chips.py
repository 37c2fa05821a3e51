"""Which objects become chips, and the chips: `chip_plan`, `image_chips`."""

from functools import partial
from typing import Annotated, Self

import dagster as dg
import pyarrow.compute as pc

from skyscript_assets import checks, metadata
from skyscript_assets.asset import Counts, asset
from skyscript_assets.lib.chips.cut import CHIP_SCHEMA, CUT_VERSION, CutInputs, cut_chips
from skyscript_assets.lib.chips.estimate import Estimate, estimate
from skyscript_assets.lib.chips.failures import FAILURE_SCHEMA, FAILURES_FILE
from skyscript_assets.lib.chips.map import plot_chips
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
from skyscript_assets.lib.chips.sheet import SHEETS, sheet_preview, write_sheets
from skyscript_assets.lib.imagery.choice import data_time
from skyscript_assets.lib.imagery.sources.kind import open_scene
from skyscript_assets.lib.osm.region_overlap import OVERLAP_FILE
from skyscript_assets.lib.settings.base import UNSEEN, Model
from skyscript_assets.lib.settings.load import Settings
from skyscript_assets.lib.settings.plant import ChipSettings, PlanSettings, RateSettings
from skyscript_assets.lib.settings.sources import SceneChoice, SourceBase
from skyscript_assets.lib.storage import OutputKey, Store
from skyscript_assets.lib.tables import read_table
from skyscript_assets.partitions import Partition, Scheme
from skyscript_assets.provenance import Run


class EstimateConfig(Model):
    """What an estimate reads; nothing is made of it."""

    source: SourceBase
    chips: ChipSettings
    rates: RateSettings

    @classmethod
    def of(cls, settings: Settings, partition: Partition) -> Self:
        """That of a region and source."""
        return cls(source=settings.sources[partition[1]], chips=settings.plant.chips, rates=settings.plant.rates)


def estimate_of(config: EstimateConfig, store: Store, partition: Partition) -> Estimate:
    """What cutting the chips of a region and source will take, once its plan is made."""
    before = OutputKey("image_chips", partition)
    cut = store.head(before)
    return estimate(
        store.folder(OutputKey("chip_plan", partition)),
        store.folder(OutputKey("scene_index", partition)),
        config.source,
        config.chips,
        config.rates,
        store.folder(before) if cut is not None and not cut.problem else None,
    )


class PlanConfig(Model):
    """What a plan reads: the draws and sizes, which scene shows an object, the tiles that are never divided."""

    plan: PlanSettings
    choice: SceneChoice
    gsd_m: float
    resolution: str
    zoom: int
    estimate: Annotated[EstimateConfig, UNSEEN]


def _plan_config(settings: Settings, partition: Partition) -> PlanConfig:
    source = settings.sources[partition[1]]
    return PlanConfig(
        plan=settings.plant.plan,
        choice=source.choice,
        gsd_m=source.gsd_m,
        resolution=source.resolution,
        zoom=settings.plant.split.zoom,
        estimate=EstimateConfig.of(settings, partition),
    )


def plan_materials(run: Run[PlanConfig]) -> tuple[Ground, PlanInputs, PlanRules]:
    """What the plan of a run's region and source is made from."""
    region, source = run.partition
    config = run.config
    ground = Ground(region, source, run.region_bbox(), config.gsd_m, data_time(run.region_facts()["timestamp"]))
    inputs = PlanInputs(
        objects=run.input("osm_objects") / "objects.parquet",
        overlap=run.input("region_overlap") / OVERLAP_FILE,
        scenes=run.input("scene_index"),
        snapshot=run.input("sampling_snapshot"),
        offsets=next(iter(run.folders("scene_offsets").values()), None),
    )
    return ground, inputs, PlanRules(config.plan, config.zoom, config.choice, config.resolution == "effective")


def _plan_preview(run: Run[PlanConfig]) -> dict[str, dg.MetadataValue]:
    columns = ["chip_id", "stratum", "gsd_m", "width", "height", "cell", "split"]
    report = read_table(run.out / REPORT_FILE)
    return {
        "map": metadata.drawn(lambda path: plot_chips(run.out, path), "Where the chips lie"),
        "wanted and planned": metadata.drawn(lambda path: plot_plan(run.out, path), "What became of the plan"),
        "estimate": dg.MetadataValue.json(vars(estimate_of(run.config.estimate, run.store, run.partition))),
        "short tags": metadata.rows(short_tags(report)),
        "wanted against achieved": metadata.rows(report.take(pc.sort_indices(report, [("planned", "descending")]))),
        "preview": metadata.parquet_rows(run.out / PLAN_FILE, columns),
    }


@asset(
    Scheme.REGION_SOURCE,
    group="imagery",
    upstream=("osm_extract", "osm_objects", "region_overlap", "sampling_snapshot", "scene_index", "scene_offsets"),
    needs=lambda settings, _, key: key.asset != "scene_offsets" or settings.plant.plan.apply_offsets,
    code_version="7",
    tables={PLAN_FILE: PLAN_SCHEMA, REPORT_FILE: REPORT_SCHEMA, OUTCOMES_FILE: OUTCOME_SCHEMA},
    columns_from={"osm_objects": ["object_id"], "scene_index": ["scene_id", "gsd_m"]},
    config=_plan_config,
    unique="chip_id",
    empty="warns",
    more_checks=(checks.MOST_PLANNED,),
    preview=_plan_preview,
)
def chip_plan(run: Run[PlanConfig]) -> Counts:
    """Which objects become chips: scene, window, focus box, stratum, cell and split, by hash sampling with quotas."""
    return vars(write_plan(*plan_materials(run), run.out, run.progress))


class CutConfig(Model):
    """What cutting reads; the images themselves are told by the scenes."""

    chips: ChipSettings
    source: Annotated[SourceBase, UNSEEN]
    max_failed_share: Annotated[float, UNSEEN]


def _chips_preview(run: Run[CutConfig]) -> dict[str, dg.MetadataValue]:
    columns = ["chip_id", "status", "reason", "shard", "width", "height", "sharpness", "contrast", "attribution"]
    shown = {}
    for name, rejected in (("contact sheet", False), ("rejected chips", True)):
        picture = sheet_preview(run.out, run.input("chip_plan"), metadata.MAX_PREVIEW_BYTES, rejected=rejected)
        if picture:
            shown[name] = metadata.image_bytes(picture, name.capitalize(), "jpeg")
    return shown | {
        "preview": metadata.parquet_rows(run.out / "chips.parquet", columns),
        "failures": metadata.parquet_rows(run.out / FAILURES_FILE),
    }


@asset(
    Scheme.REGION_SOURCE,
    group="imagery",
    kinds=["jpeg", "parquet"],
    upstream=("chip_plan", "scene_index"),
    code_version=CUT_VERSION,
    tables={"chips.parquet": CHIP_SCHEMA, FAILURES_FILE: FAILURE_SCHEMA},
    columns_from={
        "chip_plan": ["chip_id", "width", "height"],
        "scene_index": ["datetime", "licence", "attribution", "synthetic"],
    },
    unversioned=frozenset({FAILURES_FILE, *SHEETS}),
    config=lambda settings, partition: CutConfig(
        chips=settings.plant.chips,
        source=settings.sources[partition[1]],
        max_failed_share=settings.plant.failures.max_failed_share,
    ),
    unique="chip_id",
    empty="warns",
    more_checks=(checks.REJECTED_SHARE,),
    preview=_chips_preview,
    pool="imagery",
)
def image_chips(run: Run[CutConfig]) -> Counts:
    """JPEG chips in tar shards, with quality measures; what is rejected is kept in the table with its reason.

    Chips that could not be read are in a list of failures; launchpad config `retry: true` tries them again.
    """
    config, plan = run.config, run.input("chip_plan")
    reader = partial(open_scene, source=config.source, cache=run.store.cache("tiles"))
    counts = cut_chips(
        CutInputs(plan, run.input("scene_index"), reader, run.replaced()),
        config.chips,
        run.out,
        run.progress,
        max_failed_share=config.max_failed_share,
        only_failed=run.retry,
    )
    write_sheets(run.out, plan)
    return counts
