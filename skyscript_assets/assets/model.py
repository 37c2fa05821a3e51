"""The model's side: `pretrained_weights`, `chip_features`, `clip_scores`, `trained_checkpoint`."""

from pathlib import Path
from typing import Annotated, Any, Self

import dagster as dg
import pyarrow.compute as pc

from skyscript_assets import checks, metadata
from skyscript_assets.asset import Counts, asset
from skyscript_assets.lib.files import digest
from skyscript_assets.lib.pairs.features import FEATURE_KEYS, accepted_chips, write_chip_features
from skyscript_assets.lib.pairs.scores import SCORE_SCHEMA, write_scores
from skyscript_assets.lib.plugins import of_package
from skyscript_assets.lib.settings.base import UNSEEN, Crop, Model, Shared
from skyscript_assets.lib.settings.load import Settings
from skyscript_assets.lib.settings.models import (
    AlignRecipe,
    Base,
    ClipRecipe,
    JointBase,
    PackagedWeights,
    ScorerBase,
    TrainedModel,
)
from skyscript_assets.lib.settings.plant import ScoredText, TrainingSettings
from skyscript_assets.lib.storage import OutputKey
from skyscript_assets.lib.tables import read_table
from skyscript_assets.lib.towers.bases import load_base
from skyscript_assets.lib.towers.model import ClipModel
from skyscript_assets.lib.towers.scorers import Encoder, PairScorer, scorer_kind
from skyscript_assets.lib.towers.weights import weights_file, write_weights
from skyscript_assets.lib.training.align import train_alignment
from skyscript_assets.lib.training.checkpoint import HISTORY_SCHEMA, plot_history, write_untrained
from skyscript_assets.partitions import Partition, Scheme
from skyscript_assets.provenance import Run
from skyscript_assets.training.launch import train_apart
from skyscript_assets.training.worker import Job


class WeightsConfig(Model):
    """Every weight and base of the profile."""

    weights: dict[str, PackagedWeights]
    bases: dict[str, Base]
    shared: Annotated[Shared, UNSEEN]


def _weights_config(settings: Settings, partition: Partition) -> WeightsConfig:  # noqa: ARG001
    return WeightsConfig(weights=settings.weights, bases=settings.bases, shared=settings.shared)


@asset(Scheme.SINGLE, group="model", kinds=["pytorch"], config=_weights_config, code_version="2")
def pretrained_weights(run: Run[WeightsConfig]) -> Counts:
    """Pretrained weights that installed packages carry, with their digests checked."""
    return write_weights(run.config.weights, run.config.bases, run.config.shared, run.out)


class BaseConfig(Model):
    """A base and the packaged weights that it is joined from."""

    base: Base
    weights: dict[str, PackagedWeights]
    shared: Annotated[Shared, UNSEEN]

    @classmethod
    def of(cls, settings: Settings, name: str) -> Self:
        """A base of the settings by its name."""
        base = settings.bases[name]
        used = (base.image, base.text) if isinstance(base, JointBase) else ()
        weights = {key: settings.weights[key] for key in used}
        return cls(base=base, weights=weights, shared=settings.shared)

    def file(self, run: Run[Any]) -> Path | None:
        """Its weights where open_clip does not find them by itself, fetched if need be."""
        return weights_file(self.base, self.shared, run.store.cache("weights"), run.progress)

    def load(self, seed: int, run: Run[Any]) -> ClipModel:
        """The base as a model; `seed` draws what is not pretrained."""
        return load_base(self.base, self.weights, seed, self.file(run))

    def named(self, name: str, run: Run[Any]) -> tuple[str, ClipModel]:
        """The base as a scorer, with its whole name."""
        model = self.load(0, run)
        return f"{name}@{model.digest[:12]}", model


class OwnScorer(Model):
    """A scorer of a package, and what its scores depend on, as its kind tells."""

    own: Annotated[ScorerBase, UNSEEN]
    shared: Annotated[Shared, UNSEEN]
    depends_on: dict[str, Any]

    @classmethod
    def of(cls, settings: Settings, name: str) -> Self:
        """A scorer of the settings by its name."""
        own, shared = settings.scorers[name], settings.shared
        return cls(own=own, shared=shared, depends_on=scorer_kind(own.kind).depends_on(own, shared))

    def named(self, name: str, run: Run[Any]) -> tuple[str, Encoder | PairScorer]:  # noqa: ARG002
        """The scorer with its whole name."""
        load = scorer_kind(self.own.kind).load
        with of_package(f"scorer {name}", load):
            return f"{name}@{digest(self.depends_on)[:12]}", load(self.own, self.shared)


class FeaturesConfig(Model):
    """What features read: the scorer's towers, how many views of a chip, and of what."""

    scorer: BaseConfig
    views: int
    crop: Crop


@asset(
    Scheme.REGION_SOURCE,
    group="model",
    kinds=["pytorch", "parquet"],
    upstream=("chip_plan", "image_chips", "pretrained_weights"),
    tables={"features.parquet": FEATURE_KEYS},
    columns_from={"image_chips": ["chip_id"]},
    config=lambda settings, _: FeaturesConfig(
        scorer=BaseConfig.of(settings, settings.plant.scores.scorer),
        views=settings.plant.scores.views,
        crop=settings.plant.scores.crop,
    ),
    code_version="3",
    empty="warns",
    pool="training",
)
def chip_features(run: Run[FeaturesConfig]) -> Counts:
    """Features of each chip, and of augmented views of it, by the frozen image tower of the scorer."""
    chips, plan = run.input("image_chips"), run.input("chip_plan")
    config = run.config
    scorer = config.scorer.load(0, run)
    return write_chip_features(chips, plan, scorer, config.views, 0, run.out, run.progress, config.crop)


class ScoresConfig(Model):
    """What scores read: the scorers by name, and which caption ranks pairs."""

    scorer: BaseConfig
    name: str
    text: ScoredText
    further: dict[str, BaseConfig | OwnScorer]


def _scores_config(settings: Settings, partition: Partition) -> ScoresConfig:  # noqa: ARG001
    scores = settings.plant.scores
    first, *others = scores.scorers
    further = {name: (OwnScorer if name in settings.scorers else BaseConfig).of(settings, name) for name in others}
    scorer = BaseConfig.of(settings, first)
    return ScoresConfig(scorer=scorer, name=first, text=scores.text, further=further)


def _scores_preview(run: Run[ScoresConfig]) -> dict[str, dg.MetadataValue]:
    table = read_table(run.out / "scores.parquet", columns=["chip_id", "column", "score", "scorer"])
    return {"highest scores": metadata.rows(table.take(pc.sort_indices(table, [("score", "descending")])))}


@asset(
    Scheme.REGION_SOURCE,
    group="model",
    kinds=["pytorch", "parquet"],
    upstream=("captions", "chip_features", "chip_plan", "image_chips", "pretrained_weights"),
    tables={"scores.parquet": SCORE_SCHEMA},
    columns_from={"captions": ["chip_id"]},
    config=_scores_config,
    code_version="2",
    empty="warns",
    preview=_scores_preview,
)
def clip_scores(run: Run[ScoresConfig]) -> Counts:
    """Similarity of each chip and its captions by the scorers of the settings, never by a model trained here."""
    features, captions, config = run.input("chip_features"), run.input("captions"), run.config
    chips = accepted_chips(run.input("image_chips"), run.input("chip_plan"))
    first = config.scorer.named(config.name, run)
    further = dict(scorer.named(name, run) for name, scorer in config.further.items())
    return write_scores(features, captions, chips, first, config.text, run.out, further, run.progress)


class TrainingConfig(Model):
    """What training reads: the model's recipe, its base, and what it is computed on."""

    model: TrainedModel
    base: BaseConfig
    machine: Annotated[TrainingSettings, UNSEEN]


def _training_config(settings: Settings, partition: Partition) -> TrainingConfig:
    model, machine = settings.models[partition[0]], settings.plant.training
    if machine.tensorboard:
        folder = settings.shared.resolve(machine.tensorboard) / partition[0]
        machine = machine.model_copy(update={"tensorboard": str(folder)})
    return TrainingConfig(model=model, base=BaseConfig.of(settings, model.base), machine=machine)


def _needs_of_recipe(settings: Settings, partition: Partition, key: OutputKey) -> bool:
    model = settings.models[partition[0]]
    if key.asset in ("chip_features", "image_chips"):
        named = zip((model.regions, model.sources), key.partition, strict=True)
        if any(some and one not in some for some, one in named):
            return False
    read = {"align": ("training_manifest", "chip_features"), "clip": ("training_manifest", "image_chips")}
    return key.asset in ("pretrained_weights", *read.get(model.recipe.kind, ()))


def _checkpoint_preview(run: Run[TrainingConfig]) -> dict[str, dg.MetadataValue]:
    if not (run.out / "history.parquet").exists():
        return {}
    history = read_table(run.out / "history.parquet", HISTORY_SCHEMA)
    return {"training curve": metadata.drawn(lambda path: plot_history(history, path), "Loss by step")}


@asset(
    Scheme.MODEL,
    group="model",
    kinds=["pytorch"],
    upstream=("pretrained_weights", "training_manifest", "chip_features", "image_chips"),
    config=_training_config,
    code_version="4",
    needs=_needs_of_recipe,
    preview=_checkpoint_preview,
    more_checks=(checks.WEIGHTS_MOVE,),
    pool="training",
)
def trained_checkpoint(run: Run[TrainingConfig]) -> Counts:
    """A model trained by its recipe on the share of pairs that it names; a baseline is its base as it is."""
    model, base = run.config.model, run.config.base
    if isinstance(model.recipe, ClipRecipe):
        given = {"model": model, "base": base.base, "weights": base.weights, "machine": run.config.machine}
        chips = {"/".join(key): folder for key, folder in run.pairs("image_chips").items()}
        manifest = run.input("training_manifest") / "manifest.parquet"
        return train_apart(Job(manifest=manifest, chips=chips, out=run.out, file=base.file(run), **given), run.progress)
    loaded = base.load(model.seed, run)
    if not isinstance(model.recipe, AlignRecipe):
        return vars(write_untrained(loaded, model, run.out))
    manifest = run.input("training_manifest") / "manifest.parquet"
    return vars(train_alignment(manifest, run.pairs("chip_features"), loaded, model, run.out, run.progress))
