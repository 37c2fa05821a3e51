"""Chips and captions together: `caption_shards`, and every pair in one table: `training_manifest`."""

import dagster as dg
import duckdb
import pyarrow.parquet as pq

from skyscript_assets import checks, metadata
from skyscript_assets.asset import Counts, asset
from skyscript_assets.lib.pairs.leaks import LEAK_SCHEMA, LEAKS_FILE
from skyscript_assets.lib.pairs.manifest import MANIFEST_SCHEMA, write_manifest
from skyscript_assets.lib.pairs.shards import SAMPLE_SCHEMA, write_caption_shards
from skyscript_assets.lib.pairs.table import MADE_OF, PartitionFolders, partition_folders
from skyscript_assets.lib.settings.base import STYLES
from skyscript_assets.lib.settings.plant import ManifestSettings, ShardSettings
from skyscript_assets.partitions import Scheme
from skyscript_assets.provenance import Run


@asset(
    Scheme.REGION_SOURCE,
    group="captions",
    kinds=["tar"],
    upstream=(*MADE_OF, "osm_objects"),
    code_version="2",
    tables={"samples.parquet": SAMPLE_SCHEMA},
    columns_from={"chip_plan": ["chip_id"]},
    config=lambda settings, _: settings.plant.shards,
    unique="chip_id",
    empty="warns",
    preview=lambda run: {"preview": metadata.parquet_rows(run.out / "samples.parquet")},
)
def caption_shards(run: Run[ShardSettings]) -> Counts:
    """WebDataset shards of image, text and json under train/, val/ and test/, read by open_clip's own loader."""
    folders = PartitionFolders(*(run.input(name) for name in (*MADE_OF, "osm_objects")))
    return write_caption_shards(folders, run.config, run.out, run.progress)


def _manifest_preview(run: Run[ManifestSettings]) -> dict[str, dg.MetadataValue]:
    with duckdb.connect() as db:
        summary = db.sql(
            "SELECT region, source, split, count(*) AS pairs, count(*) FILTER (eligible) AS eligible, "
            "count(DISTINCT title) AS captions, count(DISTINCT cell) AS cells "
            "FROM read_parquet(?) GROUP BY ALL ORDER BY ALL",
            params=[str(run.out / "manifest.parquet")],
        ).to_arrow_table()
    rows = {
        partition: pq.read_metadata(folder / "captions.parquet").num_rows
        for partition, folder in run.folders("captions").items()
    }
    partitions = {
        "present": ["|".join(partition) for partition, count in rows.items() if count],
        "empty": ["|".join(partition) for partition, count in rows.items() if not count],
        "missing": list(run.missing),
    }
    found = metadata.parquet_rows(run.out / LEAKS_FILE)
    return {"pairs": metadata.rows(summary, limit=50), "partitions": dg.MetadataValue.json(partitions), "leaked": found}


@asset(
    Scheme.SINGLE,
    group="model",
    kinds=["parquet"],
    upstream=(*MADE_OF, "benchmark_data"),
    optional=frozenset({"benchmark_data"}),
    code_version="4",
    tables={"manifest.parquet": MANIFEST_SCHEMA, LEAKS_FILE: LEAK_SCHEMA},
    columns_from={
        "chip_plan": ["chip_id", "region", "source", "cell", "split"],
        "captions": list(STYLES),
        "clip_scores": ["score", "scorer", "scores"],
    },
    config=lambda settings, _: settings.plant.manifest,
    unique="chip_id",
    more_checks=(checks.SHARED_GROUND, checks.HELD_OUT, checks.LEAKS, checks.TRAINABLE),
    unversioned=frozenset({LEAKS_FILE}),
    preview=_manifest_preview,
)
def training_manifest(run: Run[ManifestSettings]) -> Counts:
    """Every pair with its place, split and rank share, and why it may not be used."""
    folders = partition_folders(run.pairs)
    benchmarks = {name: folder for (name,), folder in run.folders("benchmark_data").items()}
    unseen = [name for name in run.missing if name.startswith("benchmark_data/")]
    return write_manifest(folders, run.out, run.config.rank_within, run.progress, benchmarks) | {
        "unseen_benchmarks": unseen
    }
