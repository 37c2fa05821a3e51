"""What models are measured on and how they did: `benchmark_data`, `benchmark_scores`, `scoreboard`."""

from typing import Annotated, Any

import dagster as dg
import pyarrow.compute as pc

from skyscript_assets import metadata
from skyscript_assets.asset import Counts, asset
from skyscript_assets.assets.model import BaseConfig
from skyscript_assets.checks import CLASSES_SHOWN
from skyscript_assets.lib.benchmarks.evaluate import evaluate
from skyscript_assets.lib.benchmarks.items import ITEM_SCHEMA, without_images, write_fingerprints
from skyscript_assets.lib.benchmarks.kind import benchmark_kind
from skyscript_assets.lib.benchmarks.scoreboard import (
    BOARD_SCHEMA,
    COMPARISON_SCHEMA,
    Board,
    BoardModel,
    is_control,
    write_scoreboard,
)
from skyscript_assets.lib.benchmarks.scoring import RecipeKind, takes_part
from skyscript_assets.lib.pairs.leaks import FINGERPRINT_SCHEMA, FINGERPRINTS_FILE
from skyscript_assets.lib.settings.base import UNSEEN, Model, Shared
from skyscript_assets.lib.settings.benchmarks import TRACKS, BenchmarkBase, Track
from skyscript_assets.lib.settings.load import Settings
from skyscript_assets.lib.storage import OutputKey
from skyscript_assets.lib.tables import read_table
from skyscript_assets.lib.training.checkpoint import load_checkpoint
from skyscript_assets.partitions import Partition, Scheme
from skyscript_assets.provenance import Run


class DataConfig(Model):
    """What a benchmark's data reads, as its kind tells."""

    benchmark: Annotated[BenchmarkBase, UNSEEN]
    shared: Annotated[Shared, UNSEEN]
    depends_on: dict[str, Any]


def _data_config(settings: Settings, partition: Partition) -> DataConfig:
    benchmark = settings.benchmarks.benchmarks[partition[0]]
    depends_on = benchmark_kind(benchmark.kind).depends_on(benchmark, settings.shared)
    return DataConfig(benchmark=benchmark, shared=settings.shared, depends_on=depends_on)


def _needs_of_benchmark(settings: Settings, partition: Partition, key: OutputKey) -> bool:
    """Its kind's assets, of its sources; plans also of the others: an object may be trained on in any of them."""
    benchmark = settings.benchmarks.benchmarks[partition[0]]
    wanted = key.asset in benchmark_kind(benchmark.kind).made_of
    return wanted and (key.asset == "chip_plan" or key.partition[1] in benchmark.cut_from)


@asset(
    Scheme.BENCHMARK,
    group="benchmarks",
    upstream=("scene_index", "chip_plan", "image_chips", "captions", "clip_scores"),
    needs=_needs_of_benchmark,
    tables={"items.parquet": ITEM_SCHEMA, FINGERPRINTS_FILE: FINGERPRINT_SCHEMA},
    config=_data_config,
    code_version="2",
    more_checks=(CLASSES_SHOWN,),
    preview=lambda run: {"benchmark": metadata.json_file(run.out / "benchmark.json")},
)
def benchmark_data(run: Run[DataConfig]) -> Counts:
    """Images and truth of a benchmark, what its images are known by: windows of scenes, or what others publish."""
    config = run.config
    kind = benchmark_kind(config.benchmark.kind)
    inputs = {name: run.pairs(name) for name in kind.made_of}
    counts = kind.build(config.benchmark, config.shared, inputs, run.out, run.progress)
    write_fingerprints(run.out, run.progress)
    return {**counts, "without_images": without_images(run.out)}


class EvaluationConfig(Model):
    """What scoring reads: the base that a checkpoint is put onto, how it was trained, tracks and intervals."""

    base: BaseConfig
    recipe: RecipeKind
    bootstrap: int
    tracks: tuple[Track, ...]
    ensemble: tuple[str, ...]


def _evaluation_config(settings: Settings, partition: Partition) -> EvaluationConfig:
    model, shown = settings.models[partition[1]], settings.benchmarks
    benchmark, recipe = shown.benchmarks[partition[0]], model.recipe.kind
    of_kind = benchmark_kind(benchmark.kind).labels
    tracks = tuple(track for track in TRACKS if track in shown.tracks and takes_part(of_kind, recipe, track))
    return EvaluationConfig(
        base=BaseConfig.of(settings, model.base),
        recipe=recipe,
        bootstrap=shown.bootstrap,
        tracks=tracks,
        ensemble=benchmark.ensemble if "prompt-ensemble" in tracks else (),
    )


@asset(
    Scheme.BENCHMARK_MODEL,
    group="benchmarks",
    kinds=["pytorch"],
    upstream=("benchmark_data", "trained_checkpoint", "pretrained_weights"),
    config=_evaluation_config,
    code_version="4",
    preview=lambda run: {"scores": metadata.json_file(run.out / "scores.json")},
    pool="training",
)
def benchmark_scores(run: Run[EvaluationConfig]) -> Counts:
    """Zero-shot and retrieval figures of a model on a benchmark, per class, with intervals."""
    config, base = run.config, run.config.base
    encoder = load_checkpoint(run.input("trained_checkpoint"), base.base, base.weights, base.file(run))
    data, cache = run.input("benchmark_data"), run.store.cache("benchmark_features")
    how = (run.partition[0], data, encoder, config.recipe, cache, config.bootstrap)
    for track in config.tracks:
        (run.out / track).mkdir(exist_ok=True)
        evaluate(*how, run.out / track, run.progress, track, config.ensemble)
    return evaluate(*how, run.out, run.progress).counts


def _board(settings: Settings, partition: Partition) -> Board:  # noqa: ARG001
    models = {
        key: BoardModel(
            title=model.title,
            group=model.group or key,
            recipe=model.recipe.kind,
            control=is_control(model, settings.sources),
        )
        for key, model in settings.models.items()
    }
    shown = settings.benchmarks
    return Board(
        title=settings.plant.title,
        models=models,
        benchmarks=tuple(shown.benchmarks),
        means=shown.means,
        comparisons=shown.comparisons,
        published=shown.published,
        bootstrap=shown.bootstrap,
    )


def _scoreboard_preview(run: Run[Board]) -> dict[str, dg.MetadataValue]:
    columns = ["benchmark", "title", "metric", "value", "low", "high", "seeds", "items", "control", "synthetic"]
    columns.append("classification_protocol")
    board = read_table(run.out / "scoreboard.parquet")
    primary = board.filter(pc.and_(pc.equal(board["level"], "group"), board["primary"]))
    return {
        "plot": metadata.image(run.out / "scoreboard.png", "Every model on every benchmark"),
        "scoreboard": metadata.rows(
            primary.sort_by([("benchmark", "ascending"), ("value", "descending")]).select(columns), limit=100
        ),
        "comparisons": metadata.parquet_rows(run.out / "comparisons.parquet", limit=100),
    }


@asset(
    Scheme.SINGLE,
    group="benchmarks",
    kinds=["parquet", "markdown"],
    upstream=("benchmark_scores",),
    tables={"scoreboard.parquet": BOARD_SCHEMA, "comparisons.parquet": COMPARISON_SCHEMA},
    config=_board,
    code_version="5",
    preview=_scoreboard_preview,
)
def scoreboard(run: Run[Board]) -> Counts:
    """Every model against every benchmark, the controls, paired comparisons and the published figures."""
    return write_scoreboard(run.pairs("benchmark_scores"), run.config, run.out)
