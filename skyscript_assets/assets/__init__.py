"""What exists, in pipeline order: every stage, and the levels in which they run.

A level is a stretch of the pipeline with one partition scheme, in which no run needs another; it becomes a job. Across
levels, use an asset backfill in the UI, or `skyscript run`. Add a stage here when it is declared in one of the modules
of this package.
"""

from dataclasses import dataclass
from functools import cached_property

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from skyscript_assets.asset import Stage
from skyscript_assets.assets.benchmarks import benchmark_data, benchmark_scores, scoreboard
from skyscript_assets.assets.captions import caption_audit, caption_rules, captions
from skyscript_assets.assets.chips import chip_plan, image_chips
from skyscript_assets.assets.imagery import image_sources, scene_index, scene_offsets
from skyscript_assets.assets.model import chip_features, clip_scores, pretrained_weights, trained_checkpoint
from skyscript_assets.assets.osm import osm_extract, osm_objects, region_overlap
from skyscript_assets.assets.release import dataset_release
from skyscript_assets.assets.shards import caption_shards, training_manifest
from skyscript_assets.assets.tags import sampling_snapshot, tag_groundability, tag_labels, tag_vocabulary
from skyscript_assets.partitions import Scheme


@dataclass(frozen=True)
class Level:
    """A stretch of the pipeline with one partition scheme, in which no partition is made from another.

    `spared_by` names the levels that go on where a partition of this one has failed.
    """

    name: str
    description: str
    stages: tuple[Stage, ...]
    spared_by: tuple[str, ...] = ()

    @property
    def scheme(self) -> Scheme:
        """The partition scheme of all stages of the level."""
        return self.stages[0].scheme

    @cached_property
    def job(self) -> UnresolvedAssetJobDefinition:
        """The job over its assets and their checks; partitions are those of the assets."""
        selection = dg.AssetSelection.assets(*(stage.name for stage in self.stages))
        return dg.define_asset_job(self.name, selection, description=self.description)


GIVEN = Level(
    "given",
    "What people and sources state, checked before anything is made of it.",
    (tag_labels, caption_rules, pretrained_weights, image_sources),
)
REGIONS = Level("regions", "Extracts and their objects, a region a run.", (osm_extract, osm_objects))
OVERLAPS = Level("overlaps", "Which objects belong to an earlier region, a region a run.", (region_overlap,))
TAGS = Level(
    "tags",
    "The vocabulary of all regions, its groundability, the snapshot that plans use.",
    (tag_vocabulary, tag_groundability, sampling_snapshot),
)
PAIRS = Level(
    "pairs",
    "From scenes to caption shards, a region and source a run.",
    (scene_index, scene_offsets, chip_plan, image_chips, captions, chip_features, clip_scores, caption_shards),
)
BENCHMARKS = Level(
    "benchmarks",
    "Images and truth of each benchmark, a benchmark a run.",
    (benchmark_data,),
    spared_by=("manifest", "models"),
)
MANIFEST = Level(
    "manifest", "Every pair, with its split and share; verdicts on captions.", (training_manifest, caption_audit)
)
MODELS = Level("models", "Training by each model's recipe, a model a run.", (trained_checkpoint,))
SCORES = Level("scores", "Every model on every benchmark, a pair a run.", (benchmark_scores,))
SCOREBOARD = Level("scoreboard_table", "All scores side by side.", (scoreboard,))
RELEASE = Level("release", "The data set as it is given away.", (dataset_release,))

LEVELS = (GIVEN, REGIONS, OVERLAPS, TAGS, PAIRS, BENCHMARKS, MANIFEST, MODELS, SCORES, SCOREBOARD, RELEASE)
"""Levels in the order in which they run."""

STAGES: dict[str, Stage] = {stage.name: stage for level in LEVELS for stage in level.stages}
"""Every stage by its asset's name, in pipeline order."""
