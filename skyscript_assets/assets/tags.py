"""The tags: labels, vocabulary, what can be seen at which resolution, and the snapshot that plans use."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa

from skyscript_assets import metadata
from skyscript_assets.lib.files import file_sha256
from skyscript_assets.lib.settings.load import Settings, packaged_or_path
from skyscript_assets.lib.tags.embedding import load_encoder
from skyscript_assets.lib.tags.groundability import (
    GROUNDABILITY_SCHEMA,
    LabelFiles,
    decide_groundability,
)
from skyscript_assets.lib.tags.labels import read_labels
from skyscript_assets.lib.tags.plot import plot_groundability, read_report
from skyscript_assets.lib.tags.snapshot import SNAPSHOT_SCHEMA, TAGS_SCHEMA, freeze_snapshot, tags_by_gsd
from skyscript_assets.lib.tags.validation import figure_rows
from skyscript_assets.lib.tags.vocabulary import (
    COOCCURRENCE_SCHEMA,
    PLANNABLE_SCHEMA,
    VOCABULARY_SCHEMA,
    count_vocabulary,
    most_frequent_tags,
    plot_tag_counts,
    text_tags_by_reason,
)
from skyscript_assets.stages import Counts, Parts, Scheme, StageRun, stage


def _label_files(settings: Settings) -> dict[str, Path]:
    tags = settings.plant.tags
    named = {
        "labels.csv": tags.labels,
        "overrides.csv": tags.overrides,
        "first_pass.csv": tags.first_pass,
        "second_pass.csv": tags.second_pass,
    }
    return {name: packaged_or_path(settings, path) for name, path in named.items() if path is not None}


def _reads_labels(settings: Settings, parts: Parts) -> Any:  # noqa: ARG001
    return {name: file_sha256(path) for name, path in _label_files(settings).items()}


@stage(Scheme.SINGLE, group="tags", kinds=["csv"], reads=_reads_labels)
def tag_labels(run: StageRun) -> Counts:
    """Labels: which tags can be seen from above, and the coarsest resolution at which they still can."""
    counts = {}
    for name, path in _label_files(run.settings).items():
        counts[name] = len(read_labels(path))
        shutil.copyfile(path, run.out / name)
    return counts


def _reads_vocabulary(settings: Settings, parts: Parts) -> Any:  # noqa: ARG001
    sizes = {"rule", "min_object_px", "min_tile_px", "max_tile_px", "context"}
    return {
        "gsds_m": _gsds_m(settings),
        "sizes": settings.plant.chips.model_dump(include=sizes),
        "rare_below": settings.plant.tags.rare_below,
    }


def _gsds_m(settings: Settings) -> list[float]:
    return sorted({source.gsd_m for source in settings.sources.values()})


def _vocabulary_preview(run: StageRun) -> dict[str, dg.MetadataValue]:
    with tempfile.TemporaryDirectory() as folder:
        plot = Path(folder) / "tag_counts.png"
        plot_tag_counts(run.out, plot)
        shown = metadata.image(plot, "Most frequent tags")
    return {
        "tag counts": shown,
        "most frequent tags": metadata.rows(most_frequent_tags(run.out)),
        "text tags": metadata.rows(text_tags_by_reason(run.out)),
        "tags that come together": metadata.parquet_rows(run.out / "cooccurrence.parquet", limit=8),
    }


@stage(
    Scheme.SINGLE,
    group="tags",
    kinds=["duckdb", "parquet"],
    upstream=("osm_objects",),
    code_version="2",
    tables={
        "vocabulary.parquet": VOCABULARY_SCHEMA,
        "plannable.parquet": PLANNABLE_SCHEMA,
        "cooccurrence.parquet": COOCCURRENCE_SCHEMA,
    },
    reads=_reads_vocabulary,
    preview=_vocabulary_preview,
)
def tag_vocabulary(run: StageRun) -> Counts:
    """How often every key=value occurs, by region and kind, how large its objects are, which come together."""
    objects = {region: folder / "objects.parquet" for (region,), folder in run.folders("osm_objects").items()}
    plant = run.settings.plant
    return vars(
        count_vocabulary(
            objects, _gsds_m(run.settings), plant.chips, run.out, plant.tags.rare_below, progress=run.progress
        )
    )


def _reads_groundability(settings: Settings, parts: Parts) -> Any:  # noqa: ARG001
    tags = settings.plant.tags
    given = {**settings.weights, **settings.bases}
    return {
        "min_count": tags.min_count,
        "threshold": tags.threshold,
        "encoder": given[tags.encoder].model_dump(mode="json"),
    }


def _groundability_preview(run: StageRun) -> dict[str, dg.MetadataValue]:
    with tempfile.TemporaryDirectory() as folder:
        plot = Path(folder) / "groundability.png"
        plot_groundability(run.out, plot)
        shown = metadata.image(plot, "Decisions, and the model on unseen keys")
    report = read_report(run.out)
    shown_rows = {
        "label next": report["label_next"],
        "cross-validation": figure_rows(report),
        "disagreements": (report["agreement"] or {}).get("disagreements", []),
    }
    return {
        "decisions": shown,
        **{name: metadata.rows(pa.Table.from_pylist(found), limit=30) for name, found in shown_rows.items() if found},
        "report": dg.MetadataValue.json(report),
        "preview": metadata.parquet_rows(run.out / "groundability.parquet"),
    }


@stage(
    Scheme.SINGLE,
    group="tags",
    kinds=["scikitlearn", "parquet"],
    upstream=("tag_vocabulary", "tag_labels", "pretrained_weights"),
    code_version="2",
    tables={"groundability.parquet": GROUNDABILITY_SCHEMA},
    reads=_reads_groundability,
    preview=_groundability_preview,
)
def tag_groundability(run: StageRun) -> Counts:
    """Whether each tag can be seen in an image, and at which resolution at the coarsest: the paper's two stages."""
    folder = run.input("tag_labels")
    tags = run.settings.plant.tags
    given = {name: path for name in LabelFiles.__dataclass_fields__ if (path := folder / f"{name}.csv").exists()}
    encode = load_encoder(tags.encoder, run.settings.weights, run.settings.bases)
    return vars(decide_groundability(run.input("tag_vocabulary"), LabelFiles(**given), encode, tags, run.out))


def _snapshot_preview(run: StageRun) -> dict[str, dg.MetadataValue]:
    return {
        "tags by resolution": metadata.rows(tags_by_gsd(run.out)),
        "preview": metadata.parquet_rows(run.out / "snapshot.parquet", limit=8),
    }


@stage(
    Scheme.SINGLE,
    group="tags",
    kinds=["parquet"],
    upstream=("tag_vocabulary", "tag_groundability"),
    tables={"snapshot.parquet": SNAPSHOT_SCHEMA, "tags.parquet": TAGS_SCHEMA},
    frozen_as=lambda settings: settings.plant.chips.snapshot,
    preview=_snapshot_preview,
)
def sampling_snapshot(run: StageRun) -> Counts:
    """The counts and decisions that plans use, frozen under the name in the settings until another is chosen."""
    return vars(freeze_snapshot(run.input("tag_vocabulary"), run.input("tag_groundability"), run.out))
