"""Chips and captions together: `caption_shards`, and every pair in one table: `training_manifest`."""

from __future__ import annotations

from typing import Any

import dagster as dg
import duckdb
import pyarrow.parquet as pq

from skyscript_assets import metadata
from skyscript_assets.lib.errors import TooLittleDataError
from skyscript_assets.lib.pairs.manifest import MANIFEST_SCHEMA, write_manifest
from skyscript_assets.lib.pairs.shards import SAMPLE_SCHEMA, write_caption_shards
from skyscript_assets.lib.pairs.table import PartitionFolders
from skyscript_assets.lib.settings.load import Settings
from skyscript_assets.stages import Counts, Parts, Scheme, StageRun, stage


def _reads_shards(settings: Settings, parts: Parts) -> Any:  # noqa: ARG001
    return settings.plant.shards.model_dump()


def _shards_preview(run: StageRun) -> dict[str, dg.MetadataValue]:
    return {"preview": metadata.parquet_rows(run.out / "samples.parquet")}


@stage(
    Scheme.REGION_SOURCE,
    group="captions",
    kinds=["tar"],
    upstream=("chip_plan", "image_chips", "captions", "clip_scores", "osm_objects"),
    tables={"samples.parquet": SAMPLE_SCHEMA},
    reads=_reads_shards,
    unique="chip_id",
    may_be_empty=True,
    preview=_shards_preview,
)
def caption_shards(run: StageRun) -> Counts:
    """WebDataset shards of image, text and json under train/, val/ and test/, read by open_clip's own loader."""
    folders = PartitionFolders(
        plan=run.input("chip_plan"),
        chips=run.input("image_chips"),
        captions=run.input("captions"),
        scores=run.input("clip_scores"),
        objects=run.input("osm_objects"),
    )
    return vars(write_caption_shards(folders, run.settings.plant.shards, run.out, run.progress))


def _manifest_preview(run: StageRun) -> dict[str, dg.MetadataValue]:
    with duckdb.connect() as db:
        summary = db.sql(
            "SELECT region, source, split, count(*) AS pairs, count(*) FILTER (eligible) AS eligible, "
            "count(DISTINCT title) AS captions, count(DISTINCT cell) AS cells "
            "FROM read_parquet(?) GROUP BY ALL ORDER BY ALL",
            params=[str(run.out / "manifest.parquet")],
        ).to_arrow_table()
    rows = {
        parts: pq.read_metadata(folder / "captions.parquet").num_rows
        for parts, folder in run.folders("captions").items()
    }
    partitions = {
        "present": ["|".join(parts) for parts, count in rows.items() if count],
        "empty": ["|".join(parts) for parts, count in rows.items() if not count],
        "missing": list(run.missing),
    }
    return {"pairs": metadata.rows(summary, limit=50), "partitions": dg.MetadataValue.json(partitions)}


@stage(
    Scheme.SINGLE,
    group="model",
    kinds=["parquet"],
    upstream=("chip_plan", "image_chips", "captions", "clip_scores"),
    tables={"manifest.parquet": MANIFEST_SCHEMA},
    preview=_manifest_preview,
)
def training_manifest(run: StageRun) -> Counts:
    """Every pair with its place, split and rank share, and why it may not be used."""
    chips, captions, scores = run.pairs("image_chips"), run.pairs("captions"), run.pairs("clip_scores")
    folders = {
        pair: PartitionFolders(plan=plan, chips=chips[pair], captions=captions[pair], scores=scores[pair])
        for pair, plan in run.pairs("chip_plan").items()
        if pair in chips and pair in captions and pair in scores
    }
    summary = write_manifest(folders, run.out)
    if not summary.pairs:
        raise TooLittleDataError(
            f"none of {len(folders)} partitions has a chip with a caption: the reports of chip_plan tell what was "
            "wanted and planned, image_chips why chips were rejected"
        )
    return vars(summary)
