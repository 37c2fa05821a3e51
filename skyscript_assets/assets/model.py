"""The model's side: `pretrained_weights`, `chip_features`, `clip_scores`, `trained_checkpoint`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import pyarrow.compute as pc

from skyscript_assets import metadata
from skyscript_assets.lib.pairs.features import FEATURE_KEYS, write_chip_features
from skyscript_assets.lib.pairs.scores import SCORE_SCHEMA, write_scores
from skyscript_assets.lib.settings.load import Settings
from skyscript_assets.lib.settings.models import AlignRecipe, ClipRecipe
from skyscript_assets.lib.storage import OutputKey
from skyscript_assets.lib.tables import read_table
from skyscript_assets.lib.towers.bases import load_base
from skyscript_assets.lib.towers.weights import write_weights
from skyscript_assets.lib.training.align import train_alignment
from skyscript_assets.lib.training.checkpoint import plot_history, write_untrained
from skyscript_assets.lib.training.pretrain import train_clip
from skyscript_assets.stages import Counts, Parts, Scheme, StageRun, stage

if TYPE_CHECKING:
    from skyscript_assets.lib.towers.model import ClipModel


def _reads_weights(settings: Settings, parts: Parts) -> Any:  # noqa: ARG001
    given = {**settings.weights, **settings.bases}
    return {name: described.model_dump() for name, described in given.items()}


@stage(Scheme.SINGLE, group="model", kinds=["pytorch"], reads=_reads_weights)
def pretrained_weights(run: StageRun) -> Counts:
    """Pretrained weights that installed packages carry, with their digests checked."""
    return vars(write_weights(run.settings.weights, run.settings.bases, run.out))


def _scorer(settings: Settings) -> ClipModel:
    return load_base(settings.bases[settings.plant.scores.scorer], settings.weights, seed=0)


def _reads_features(settings: Settings, parts: Parts) -> Any:  # noqa: ARG001
    scores = settings.plant.scores
    return {"features": scores.features.model_dump(), "base": settings.bases[scores.scorer].model_dump()}


@stage(
    Scheme.REGION_SOURCE,
    group="model",
    kinds=["pytorch", "parquet"],
    upstream=("chip_plan", "image_chips", "pretrained_weights"),
    tables={"features.parquet": FEATURE_KEYS},
    reads=_reads_features,
    may_be_empty=True,
    pool="training",
)
def chip_features(run: StageRun) -> Counts:
    """Features of each chip, and of augmented views of it, by the frozen image tower of the scorer."""
    views = run.settings.plant.scores.views
    chips, plan = run.input("image_chips"), run.input("chip_plan")
    return vars(write_chip_features(chips, plan, _scorer(run.settings), views, 0, run.out, run.progress))


def _reads_scores(settings: Settings, parts: Parts) -> Any:  # noqa: ARG001
    scores = settings.plant.scores
    base = settings.bases[scores.scorer].model_dump()
    return {"scorer": scores.scorer, "text": scores.text.model_dump(), "base": base}


def _scores_preview(run: StageRun) -> dict[str, dg.MetadataValue]:
    table = read_table(run.out / "scores.parquet")
    return {"highest scores": metadata.rows(table.take(pc.sort_indices(table, [("score", "descending")])))}


@stage(
    Scheme.REGION_SOURCE,
    group="model",
    kinds=["pytorch", "parquet"],
    upstream=("captions", "chip_features"),
    tables={"scores.parquet": SCORE_SCHEMA},
    reads=_reads_scores,
    may_be_empty=True,
    preview=_scores_preview,
)
def clip_scores(run: StageRun) -> Counts:
    """Similarity of each chip and its caption by the scorer of the settings, never by a model trained here."""
    scores = run.settings.plant.scores
    features, captions = run.input("chip_features"), run.input("captions")
    return vars(write_scores(features, captions, _scorer(run.settings), scores.scorer, scores.text, run.out))


def _reads_model(settings: Settings, parts: Parts) -> Any:
    model = settings.models[parts[0]]
    read = model.model_dump(exclude={"title", "group", "benchmarks"})
    return {"model": read, "base": settings.bases[model.base].model_dump()}


def _needs_of_recipe(settings: Settings, parts: Parts, key: OutputKey) -> bool:
    model = settings.models[parts[0]]
    if key.asset in ("chip_features", "image_chips") and model.sources and key.parts[1] not in model.sources:
        return False
    match model.recipe:
        case AlignRecipe():
            return key.asset in ("pretrained_weights", "training_manifest", "chip_features")
        case ClipRecipe():
            return key.asset in ("pretrained_weights", "training_manifest", "image_chips")
        case _:
            return key.asset == "pretrained_weights"


def _checkpoint_preview(run: StageRun) -> dict[str, dg.MetadataValue]:
    if not (run.out / "history.parquet").exists():
        return {}
    with tempfile.TemporaryDirectory() as folder:
        plot = Path(folder) / "history.png"
        plot_history(run.out, plot)
        return {"training curve": metadata.image(plot, "Loss by step")}


@stage(
    Scheme.MODEL,
    group="model",
    kinds=["pytorch"],
    upstream=("pretrained_weights", "training_manifest", "chip_features", "image_chips"),
    reads=_reads_model,
    needs=_needs_of_recipe,
    preview=_checkpoint_preview,
    pool="training",
)
def trained_checkpoint(run: StageRun) -> Counts:
    """A model trained by its recipe on the share of pairs that it names; a baseline is its base as it is."""
    model = run.settings.models[run.parts[0]]
    base = load_base(run.settings.bases[model.base], run.settings.weights, model.seed)
    match model.recipe:
        case AlignRecipe():
            manifest = run.input("training_manifest") / "manifest.parquet"
            return vars(train_alignment(manifest, run.pairs("chip_features"), base, model, run.out, run.progress))
        case ClipRecipe():
            manifest = run.input("training_manifest") / "manifest.parquet"
            run.pairs("image_chips")
            chips = run.store.asset_folder("image_chips")
            return vars(train_clip(manifest, chips, base, model, run.out, run.progress))
        case _:
            return vars(write_untrained(base, model, run.out))
