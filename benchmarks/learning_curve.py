"""Is another region worth adding? A model's figure by number of training pairs, and without each region and source.

    python benchmarks/learning_curve.py --plot docs/figures/learning_curve.png

Trains copies of a model of recipe `align` on few pairs, twice, four times as many ... and on all, each with several
seeds; a seed also draws the pairs. All take as many optimiser steps, so that it is pairs that differ. Pairs, features
and the benchmark's data are those in the data folder; nothing else is written there than features of the benchmark's
images. Bars are 95 % intervals of the mean over seeds (Student's), on the same test items: they do not say how another
benchmark would turn out. SKYSCRIPT_SETTINGS and SKYSCRIPT_DATA choose settings and data folder.
"""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from measuring import options_of, parser_of, print_head, print_row
from scipy.stats import t

from skyscript_assets.definitions import plant_from_environment
from skyscript_assets.lib.benchmarks.evaluate import evaluate
from skyscript_assets.lib.benchmarks.items import BENCHMARK_FILE, BenchmarkSpec, read_model
from skyscript_assets.lib.benchmarks.kind import benchmark_kind
from skyscript_assets.lib.benchmarks.scoreboard_text import METRIC_NAMES
from skyscript_assets.lib.files import picture_file
from skyscript_assets.lib.settings.load import Settings, load_settings
from skyscript_assets.lib.settings.models import AlignRecipe, TrainedModel
from skyscript_assets.lib.storage import OutputKey, Store
from skyscript_assets.lib.threads import limit_libraries
from skyscript_assets.lib.towers.bases import load_base
from skyscript_assets.lib.training.align import train_alignment
from skyscript_assets.lib.training.selection import select_pairs

ALL = "all"
Curve = dict[int, list[float]]
"""Figures of each seed by number of pairs."""


class Plant:
    """What models are trained from and measured on."""

    def __init__(self, settings: Settings, store: Store, benchmark: str) -> None:
        keys = [(region, source) for region in settings.regions for source in settings.sources]
        folders = {key: OutputKey("chip_features", key) for key in keys}
        heads = {key: store.head(of) for key, of in folders.items()}
        self.features = {key: store.folder(of) for key, of in folders.items() if heads[key] is not None}
        self.manifest = store.folder(OutputKey("training_manifest")) / "manifest.parquet"
        self.data = store.folder(OutputKey("benchmark_data", (benchmark,)))
        self.settings, self.cache, self.benchmark = settings, store.cache("benchmark_features"), benchmark

    def pairs(self, model: TrainedModel) -> int:
        """Training pairs that a model may use."""
        return len(select_pairs(self.manifest, model, (), 2)[0])

    def figure(self, model: TrainedModel) -> float:
        """The benchmark's first figure of a model, trained here."""
        base = load_base(self.settings.bases[model.base], self.settings.weights, model.seed)
        with tempfile.TemporaryDirectory() as out:
            train_alignment(self.manifest, self.features, base, model, Path(out))
            scores = evaluate(self.benchmark, self.data, base, "align", self.cache, 100, Path(out))
        return float(scores.figures[scores.primary].value or 0.0)


def figures_of(plant: Plant, model: TrainedModel, size: int, seeds: Sequence[int], steps: int) -> list[float]:
    """The figures of a model with so many pairs, by seed."""
    epochs = max(1, round(steps / max(1, size // model.recipe.batch_size)))
    recipe = model.recipe.model_copy(update={"epochs": epochs})
    several = (model.model_copy(update={"recipe": recipe, "pairs": size, "seed": seed}) for seed in seeds)
    return [plant.figure(one) for one in several]


def shown(values: Sequence[float], sign: str = "") -> str:
    """Mean and 95 % interval of the mean."""
    mean, half = interval(values)
    return f"{mean:{sign}.3f} [{mean - half:{sign}.3f}, {mean + half:{sign}.3f}]"


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and half the length of its interval."""
    half = t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
    return float(np.mean(values)), float(half)


def less(some: Sequence[float], others: Sequence[float]) -> list[float]:
    """Differences seed by seed."""
    return [one - other for one, other in zip(some, others, strict=True)]


def draw(curves: Mapping[str, Curve], titles: Mapping[str, str], path: Path) -> None:
    """One line a set of pairs, with the intervals of its points; `titles` are of the plot and of its vertical axis."""
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    for number, (name, curve) in enumerate(curves.items()):
        means, halves = zip(*map(interval, curve.values()), strict=True)
        # Side by side, so that bars of one number of pairs do not hide each other.
        places = [size * 1.02 ** (number - len(curves) // 2) for size in curve]
        axes.errorbar(places, means, halves, marker="o", markersize=4, capsize=2, linewidth=1.2, label=name)
    axes.set_xscale("log", base=2)
    most = max(curves[ALL])
    ticks = [min(curves[ALL]) << n for n in range(most.bit_length()) if min(curves[ALL]) << n < 0.8 * most]
    axes.set_xticks([*ticks, most], [f"{size:,}" for size in (*ticks, most)], fontsize=8)
    axes.set_xticks([], minor=True)
    axes.set(xlabel="training pairs", **titles)
    axes.title.set_fontsize(9)
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    with picture_file(path) as buffer:
        figure.savefig(buffer, dpi=100, format="png", metadata={"Software": None})


def main() -> None:
    """Train, score, print and draw."""
    parser = parser_of(__doc__)
    parser.add_argument("--model", default="aligned-0", help="of models.yaml, with recipe align")
    parser.add_argument("--benchmark", default="ground-cover", help="of benchmarks.yaml")
    parser.add_argument("--fewest", type=int, default=256, help="pairs to begin with")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10, 18)), help="two at least")
    parser.add_argument("--plot", type=Path, default=Path("learning_curve.png"))
    options = options_of(parser, scores=True)
    limit_libraries()
    given = plant_from_environment()
    settings, store = load_settings(Path(given.settings_folder)), given.store()
    model = settings.models.get(options.model)
    if model is None or not isinstance(model.recipe, AlignRecipe) or len(options.seeds) < 2:
        sys.exit(f"--model {options.model}: a model of recipe align is wanted, and two seeds at least")
    plant = Plant(settings, store, options.benchmark)
    sources = model.sources or tuple(settings.sources)
    arms = {ALL: model}
    for word, names in (("regions", model.regions or tuple(settings.regions)), ("sources", sources)):
        for name in names if len(names) > 1 else ():
            others = tuple(other for other in names if other != name)
            arms[f"without {name}"] = model.model_copy(update={word: others})
    counted = {name: plant.pairs(arm) for name, arm in arms.items()}
    whole = {name: pairs for name, pairs in counted.items() if pairs >= model.recipe.batch_size}
    for name in counted.keys() - whole.keys():
        print(f"{name}: {counted[name]} pairs are no batch of {model.recipe.batch_size}, left out\n")
    if ALL not in whole:
        sys.exit("make more pairs first: skyscript run training_manifest")
    steps = model.recipe.epochs * (whole[ALL] // model.recipe.batch_size)
    doubled = {options.fewest << n for n in range(whole[ALL].bit_length())}
    curves: dict[str, Curve] = {}
    print_head("pairs of", "pairs", "mean over seeds", "gain over half as many", "gain of as many of all over these")
    for name in whole:
        wanted = {*doubled, *(whole.values() if name == ALL else ())}
        curves[name] = curve = {}
        for size in [*sorted(size for size in wanted if size < whole[name]), whole[name]]:
            curve[size] = figures_of(plant, arms[name], size, options.seeds, steps)
            gain = shown(less(curve[size], curve[size // 2]), "+") if size // 2 in curve else ""
            other = "" if name == ALL else shown(less(curves[ALL][size], curve[size]), "+")
            print_row(name, f"{size:,}", shown(curve[size]), gain, other)
    print()
    print_head("what it brought", "pairs more", "gain of all pairs over all without it")
    best = curves[ALL][whole[ALL]]
    for name in list(whole)[1:]:
        gain = less(best, curves[name][whole[name]])
        print_row(name.removeprefix("without "), f"{whole[ALL] - whole[name]:,}", shown(gain, "+"))
    spec = read_model(plant.data / BENCHMARK_FILE, BenchmarkSpec)
    title = f"{model.title}, {len(options.seeds)} seeds\n{spec.title}{' (synthetic imagery)' * spec.synthetic}"
    figure = METRIC_NAMES[benchmark_kind(spec.kind).primary]
    draw(curves, {"title": title, "ylabel": figure}, options.plot)


if __name__ == "__main__":
    main()
