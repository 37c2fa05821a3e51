"""The tags: labels, vocabulary, what can be seen at which resolution, and the snapshot that plans use."""

import shutil
from typing import Annotated

import dagster as dg
import pyarrow as pa

from skyscript_assets import metadata
from skyscript_assets.asset import Counts, asset
from skyscript_assets.lib.settings.base import UNSEEN, Model, Shared
from skyscript_assets.lib.settings.load import GivenFile, Settings
from skyscript_assets.lib.settings.models import Base, PackagedWeights
from skyscript_assets.lib.settings.plant import SizeSettings, TagSettings
from skyscript_assets.lib.tables import read_table
from skyscript_assets.lib.tags import vocabulary
from skyscript_assets.lib.tags.embedding import load_encoder
from skyscript_assets.lib.tags.groundability import GROUNDABILITY_SCHEMA, LabelFiles, decide_groundability
from skyscript_assets.lib.tags.labels import read_labels
from skyscript_assets.lib.tags.plot import plot_groundability, read_report
from skyscript_assets.lib.tags.snapshot import SNAPSHOT_SCHEMA, TAGS_SCHEMA, freeze_snapshot, tags_by_gsd
from skyscript_assets.lib.tags.validation import figure_rows
from skyscript_assets.lib.towers.weights import weights_file
from skyscript_assets.partitions import Partition, Scheme
from skyscript_assets.provenance import Run


def _label_files(settings: Settings, partition: Partition) -> dict[str, GivenFile]:  # noqa: ARG001
    tags = settings.plant.tags
    named = {name: getattr(tags, name) for name in LabelFiles.__dataclass_fields__}
    return {
        f"{name}.csv": GivenFile.of(settings, f"tags.{name}", path) for name, path in named.items() if path is not None
    }


@asset(Scheme.SINGLE, group="tags", kinds=["csv"], config=_label_files)
def tag_labels(run: Run[dict[str, GivenFile]]) -> Counts:
    """Labels: which tags can be seen from above, and the coarsest resolution at which they still can."""
    counts = {}
    for name, file in run.config.items():
        counts[name] = len(read_labels(file.path))
        shutil.copyfile(file.path, run.out / name)
    return counts


class VocabularyConfig(Model):
    """What the vocabulary reads: sizes of objects that suit a chip."""

    sizes: SizeSettings
    rare_below: int


@asset(
    Scheme.SINGLE,
    group="tags",
    kinds=["duckdb", "parquet"],
    upstream=("osm_objects", "image_sources"),
    after=("region_overlap", "tag_labels", "pretrained_weights"),
    code_version="4",
    tables={
        "vocabulary.parquet": vocabulary.VOCABULARY_SCHEMA,
        "plannable.parquet": vocabulary.PLANNABLE_SCHEMA,
        "cooccurrence.parquet": vocabulary.COOCCURRENCE_SCHEMA,
    },
    config=lambda settings, _: VocabularyConfig(
        sizes=settings.plant.plan.sizes, rare_below=settings.plant.tags.rare_below
    ),
    preview=lambda run: {
        "tag counts": metadata.drawn(lambda path: vocabulary.plot_tag_counts(run.out, path), "Most frequent tags"),
        "most frequent tags": metadata.rows(vocabulary.most_frequent_tags(run.out)),
        "text tags": metadata.rows(vocabulary.text_tags_by_reason(run.out)),
        "tags that come together": metadata.parquet_rows(run.out / "cooccurrence.parquet", limit=8),
    },
)
def tag_vocabulary(run: Run[VocabularyConfig]) -> Counts:
    """How often every key=value occurs, by region and kind, how large its objects are, which come together."""
    objects = {region: folder / "objects.parquet" for (region,), folder in run.folders("osm_objects").items()}
    gsds_m = read_table(run.input("image_sources") / "sources.parquet")["gsd_m"].to_pylist()
    config = run.config
    return vocabulary.count_vocabulary(objects, gsds_m, config.sizes, run.out, config.rare_below, progress=run.progress)


class GroundabilityConfig(Model):
    """What groundability reads: limits, and what embeds the tags."""

    tags: TagSettings
    weights: dict[str, PackagedWeights]
    bases: dict[str, Base]
    shared: Annotated[Shared, UNSEEN]


def _groundability_config(settings: Settings, partition: Partition) -> GroundabilityConfig:  # noqa: ARG001
    tags = settings.plant.tags
    weights = {key: known for key, known in settings.weights.items() if key == tags.encoder}
    bases = {key: known for key, known in settings.bases.items() if key == tags.encoder}
    return GroundabilityConfig(tags=tags, weights=weights, bases=bases, shared=settings.shared)


def _groundability_preview(run: Run[GroundabilityConfig]) -> dict[str, dg.MetadataValue]:
    report = read_report(run.out)
    tables = {
        "label next": report["label_next"],
        "cross-validation": figure_rows(report),
        "disagreements": (report["agreement"] or {}).get("disagreements", []),
    }
    return {
        "decisions": metadata.drawn(
            lambda path: plot_groundability(run.out, path), "Decisions, and the model on unseen keys"
        ),
        **{name: metadata.rows(pa.Table.from_pylist(found), limit=30) for name, found in tables.items() if found},
        "report": dg.MetadataValue.json(report),
        "preview": metadata.parquet_rows(run.out / "groundability.parquet"),
    }


@asset(
    Scheme.SINGLE,
    group="tags",
    kinds=["scikitlearn", "parquet"],
    upstream=("tag_vocabulary", "tag_labels", "pretrained_weights"),
    code_version="4",
    tables={"groundability.parquet": GROUNDABILITY_SCHEMA},
    config=_groundability_config,
    preview=_groundability_preview,
)
def tag_groundability(run: Run[GroundabilityConfig]) -> Counts:
    """Whether each tag can be seen in an image, and at which resolution at the coarsest: the paper's two stages."""
    folder, config = run.input("tag_labels"), run.config
    given = {name: path for name in LabelFiles.__dataclass_fields__ if (path := folder / f"{name}.csv").exists()}
    bases = config.bases.values()
    file = next((weights_file(base, config.shared, run.store.cache("weights"), run.progress) for base in bases), None)
    encode = load_encoder(config.tags.encoder, config.weights, config.bases, file)
    return decide_groundability(run.input("tag_vocabulary"), LabelFiles(**given), encode, config.tags, run.out)


@asset(
    Scheme.SINGLE,
    group="tags",
    upstream=("tag_vocabulary", "tag_groundability"),
    code_version="2",
    tables={"snapshot.parquet": SNAPSHOT_SCHEMA, "tags.parquet": TAGS_SCHEMA},
    frozen_as=lambda settings: settings.plant.plan.snapshot,
    preview=lambda run: {
        "tags by resolution": metadata.rows(tags_by_gsd(run.out)),
        "preview": metadata.parquet_rows(run.out / "snapshot.parquet", limit=8),
    },
)
def sampling_snapshot(run: Run[None]) -> Counts:
    """The counts and decisions that plans use, frozen under the name in the settings until another is chosen."""
    return freeze_snapshot(run.input("tag_vocabulary"), run.input("tag_groundability"), run.out)
