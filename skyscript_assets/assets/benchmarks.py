"""What models are measured on and how they did: `benchmark_data`, `benchmark_scores`, `scoreboard`."""

from __future__ import annotations

import json
from typing import Any

import dagster as dg

from skyscript_assets import metadata
from skyscript_assets.lib.benchmarks.evaluate import evaluate
from skyscript_assets.lib.benchmarks.items import ITEM_SCHEMA
from skyscript_assets.lib.benchmarks.kind import benchmark_kind
from skyscript_assets.lib.benchmarks.scoreboard import BOARD_SCHEMA, COMPARISON_SCHEMA, write_scoreboard
from skyscript_assets.lib.settings.load import Settings
from skyscript_assets.lib.storage import OutputKey
from skyscript_assets.lib.training.checkpoint import load_checkpoint
from skyscript_assets.stages import Counts, Parts, Scheme, StageRun, stage


def _reads_benchmark(settings: Settings, parts: Parts) -> Any:
    benchmark = settings.benchmarks.benchmarks[parts[0]]
    return benchmark_kind(benchmark.kind).depends_on(benchmark, settings)


def _needs_scenes(settings: Settings, parts: Parts, key: OutputKey) -> bool:
    return key.parts[1] in settings.benchmarks.benchmarks[parts[0]].cut_from


def _data_preview(run: StageRun) -> dict[str, dg.MetadataValue]:
    described = json.loads((run.out / "benchmark.json").read_text(encoding="utf-8"))
    return {"benchmark": dg.MetadataValue.json(described)}


@stage(
    Scheme.BENCHMARK,
    group="benchmarks",
    kinds=["parquet"],
    upstream=("scene_index",),
    needs=_needs_scenes,
    tables={"items.parquet": ITEM_SCHEMA},
    reads=_reads_benchmark,
    preview=_data_preview,
)
def benchmark_data(run: StageRun) -> Counts:
    """Images and truth of a benchmark: windows of synthetic scenes, or a folder that others publish."""
    benchmark = run.settings.benchmarks.benchmarks[run.parts[0]]
    build = benchmark_kind(benchmark.kind).build
    return vars(build(benchmark, run.settings, run.pairs("scene_index"), run.out, run.progress))


def _reads_evaluation(settings: Settings, parts: Parts) -> Any:
    return {"bootstrap": settings.benchmarks.bootstrap, "recipe": settings.models[parts[1]].recipe.kind}


def _evaluation_preview(run: StageRun) -> dict[str, dg.MetadataValue]:
    scores = json.loads((run.out / "scores.json").read_text(encoding="utf-8"))
    return {"scores": dg.MetadataValue.json(scores)}


@stage(
    Scheme.BENCHMARK_MODEL,
    group="benchmarks",
    kinds=["pytorch"],
    upstream=("benchmark_data", "trained_checkpoint", "pretrained_weights"),
    reads=_reads_evaluation,
    preview=_evaluation_preview,
    pool="training",
)
def benchmark_scores(run: StageRun) -> Counts:
    """Zero-shot and retrieval figures of a model on a benchmark, per class, with intervals."""
    benchmark, model = run.parts
    settings = run.settings
    described = settings.models[model]
    encoder = load_checkpoint(run.input("trained_checkpoint"), settings.bases[described.base], settings.weights)
    return vars(
        evaluate(
            benchmark,
            run.input("benchmark_data"),
            encoder,
            described.recipe.kind,
            run.store.cache("benchmark_features"),
            settings.benchmarks.bootstrap,
            run.out,
            run.progress,
        )
    )


def _reads_scoreboard(settings: Settings, parts: Parts) -> Any:  # noqa: ARG001
    titles = {key: (model.title, model.group) for key, model in settings.models.items()}
    shown = settings.benchmarks.model_dump(include={"comparisons", "published", "bootstrap"})
    return {"models": titles, "benchmarks": list(settings.benchmarks.benchmarks), "shown": shown}


def _scoreboard_preview(run: StageRun) -> dict[str, dg.MetadataValue]:
    return {
        "scoreboard": dg.MetadataValue.md((run.out / "scoreboard.md").read_text(encoding="utf-8")),
        "plot": metadata.image(run.out / "scoreboard.png", "Every model on every benchmark"),
    }


@stage(
    Scheme.SINGLE,
    group="benchmarks",
    kinds=["parquet", "markdown"],
    upstream=("benchmark_scores",),
    tables={"scoreboard.parquet": BOARD_SCHEMA, "comparisons.parquet": COMPARISON_SCHEMA},
    reads=_reads_scoreboard,
    preview=_scoreboard_preview,
)
def scoreboard(run: StageRun) -> Counts:
    """Every model against every benchmark, the controls, paired comparisons and the published figures."""
    scores = {(benchmark, model): folder for (benchmark, model), folder in run.folders("benchmark_scores").items()}
    return vars(write_scoreboard(scores, run.settings, run.out))
