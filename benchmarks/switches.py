"""Each switch of a recipe against the recipe without it: validation cells, test cells, photographs.

    python benchmarks/switches.py --choose
    python benchmarks/switches.py

Trains a model of the profile (`--model`) and each switch of its recipe (`SWITCHES`) on what `skyscript demo` left in
the data folder. `--choose` scores validation cells alone, on seeds of its own; without it all are trained on eight
other seeds, and test cells and photographs are scored too. A difference to the plain recipe has the 95 % interval of
samples that draw cells (or photographs) and seeds with replacement, the same for both. SKYSCRIPT_SETTINGS and
SKYSCRIPT_DATA choose settings and data folder.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from measuring import SHARED_DATA, options_of, parser_of, print_head, print_row
from numpy.typing import NDArray

from skyscript_assets.definitions import plant_from_environment
from skyscript_assets.lib.benchmarks.features import benchmark_features
from skyscript_assets.lib.benchmarks.image_folder import ImageFolderBenchmark, build_image_folder
from skyscript_assets.lib.benchmarks.intervals import ScoredItems, bootstrap, tail_of
from skyscript_assets.lib.benchmarks.items import (
    BENCHMARK_FILE,
    BenchmarkSpec,
    clusters_of,
    read_items,
    read_model,
    truth_matrix,
)
from skyscript_assets.lib.benchmarks.metrics import top1_credit
from skyscript_assets.lib.benchmarks.scoring import class_embeddings
from skyscript_assets.lib.pairs.features import write_chip_features
from skyscript_assets.lib.settings.base import Crop
from skyscript_assets.lib.settings.load import Settings, load_settings
from skyscript_assets.lib.settings.models import TrainedModel
from skyscript_assets.lib.storage import OutputKey, Store
from skyscript_assets.lib.threads import limit_libraries
from skyscript_assets.lib.towers.bases import load_base
from skyscript_assets.lib.towers.model import ClipModel, normalised
from skyscript_assets.lib.training.align import train_alignment

CHOSEN_ON, CONFIRMED_ON = (10, 11, 12), tuple(range(100, 108))
"""Seeds, none of them the profile's own."""

PHOTOGRAPHS = {"eurosat": "EuroSAT, top-1", "ucmerced": "UC Merced, top-1"}
SAMPLES = 1000

SWITCHES: dict[str, dict[str, Any]] = {
    "text locked": {"lock_text": True},
    "softmax": {"loss": "softmax"},
    "own text alone matches": {"positives": "own"},
    "equal texts match": {"positives": "equal"},
    "shuffled, not dealt": {"order": "shuffled"},
    "learning rate 1e-4": {"lr": 1e-4},
    "learning rate 3e-4": {"lr": 3e-4},
    "learning rate 3e-3": {"lr": 3e-3},
    "learning rate 1e-2": {"lr": 1e-2},
    "interpolation 0.9": {"interpolation": 0.9},
    "interpolation 0.7": {"interpolation": 0.7},
    "interpolation 0.5": {"interpolation": 0.5},
    "titles": {"column": "title"},
    "titles and objects around": {"column": ("title", "title_multi_objects")},
    "text locked, softmax": {"lock_text": True, "loss": "softmax"},
    "crop anywhere": {"crop": "anywhere"},
}
"""What each changes in the recipe; `crop` is of the features that it is aligned by."""


@dataclass(frozen=True)
class Asked:
    """Items of one figure: features of the frozen tower, and what they show.

    Attributes:
        title: Name of the figure.
        spec: The benchmark.
        features: [items, D].
        truth: [items, classes].
        clusters: Cell of each item, or the item.
    """

    title: str
    spec: BenchmarkSpec
    features: NDArray[np.float32]
    truth: NDArray[np.bool_]
    clusters: tuple[str, ...]

    def scored(self, model: ClipModel) -> ScoredItems:
        """Class scores of the items by the class prompts, as `evaluate` gives them."""
        words = [cls.text for cls in self.spec.classes]
        prompts = [model.encode_texts([prompt.replace("{c}", text) for text in words]) for prompt in self.spec.prompts]
        scores = normalised(model.project_image(self.features)) @ class_embeddings(prompts).T
        one = self.truth.sum(axis=1).max() == 1 and self.spec.kind == "image-folder"
        credit = top1_credit(scores, self.truth.argmax(axis=1)) if one else None
        return ScoredItems(self.clusters, self.clusters, self.truth, scores, credit)


def asked(title: str, folder: Path, split: str, model: ClipModel, cache: Path) -> Asked:
    """A split of a benchmark that was made."""
    spec, items = read_model(folder / BENCHMARK_FILE, BenchmarkSpec), read_items(folder)
    rows = np.array(items["split"].to_pylist()) == split
    truth = truth_matrix(items["truth"].to_pylist(), [cls.name for cls in spec.classes])[rows]
    features = benchmark_features(folder, spec, split, model, cache)
    return Asked(title, spec, features, truth, clusters_of(items.filter(rows)))


def photographs(given: Path, settings: Settings, model: ClipModel, cache: Path, scratch: Path) -> list[Asked]:
    """The benchmarks of photographs that a folder holds."""
    found = []
    for key, title in PHOTOGRAPHS.items():
        if (given / key).is_dir():
            folder = scratch / key
            folder.mkdir()
            csv = {"csv": f"{key}_test.csv", "classnames": "classnames.txt"}
            build_image_folder(
                ImageFolderBenchmark(title=title, root=str((given / key).resolve()), **csv), settings.shared, folder
            )
            found.append(asked(title, folder, "test", model, cache))
    return found


@dataclass(frozen=True)
class Found:
    """A figure of models that differ in their seed: as it is (seeds,), and in samples of its items (samples, seeds)."""

    clusters: tuple[str, ...]
    values: NDArray[np.float64]
    drawn: NDArray[np.float64]

    @classmethod
    def of(cls, models: Sequence[ScoredItems]) -> "Found":
        """The figure of each model, of the same samples whatever they are."""
        clusters = models[0].clusters
        drawn = bootstrap(clusters, SAMPLES, lambda draws: np.stack([one.primary(draws) for one in models], axis=1))
        return cls(clusters, np.array([one.primary().item() for one in models]), drawn)

    def more_than(self, plain: "Found") -> str:
        """Mean over seeds of what it has more, with the interval of drawn items and seeds."""
        drawn = self.drawn - plain.drawn
        seeds = np.random.default_rng(0).integers(drawn.shape[1], size=drawn.shape)
        # Seeds are few too: the interval is as wide as the scarcer of both asks for.
        tail = 100 * min(tail_of(self.clusters), tail_of([str(i) for i in range(drawn.shape[1])]))
        low, high = np.percentile(np.take_along_axis(drawn, seeds, axis=1).mean(axis=1), [tail, 100 - tail])
        return f"{np.mean(self.values - plain.values):+.3f} [{low:+.3f}, {high:+.3f}]"


def main() -> None:
    """Train, score and print a table."""
    parser = parser_of(__doc__)
    parser.add_argument("--model", default="aligned-0", help="model of the profile whose recipe is plain")
    parser.add_argument("--benchmark", default="ground-cover", help="of the profile, with validation cells")
    parser.add_argument("--choose", action="store_true", help="validation cells alone, on other seeds")
    parser.add_argument("--switch", nargs="+", choices=SWITCHES, metavar="NAME", help="only these")
    parser.add_argument("--seeds", type=int, nargs="+", help="instead of those fixed here")
    parser.add_argument("--data", type=Path, default=SHARED_DATA / "benchmarks", help="folder of photographs")
    options = options_of(parser, scores=True)
    limit_libraries()
    plant = plant_from_environment()
    settings, store = load_settings(Path(plant.settings_folder)), plant.store()
    seeds = options.seeds or (CHOSEN_ON if options.choose else CONFIRMED_ON)
    switches = {"plain": {}} | {name: SWITCHES[name] for name in options.switch or SWITCHES}
    plain, cache = settings.models[options.model], store.cache("benchmark_features")
    base = load_base(settings.bases[plain.base], settings.weights, 0)
    folder = store.folder(OutputKey("benchmark_data", (options.benchmark,)))
    figures = [asked("validation cells, mean AUC", folder, "val", base, cache)]
    with tempfile.TemporaryDirectory() as scratch:
        if not options.choose:
            figures += [asked("test cells, mean AUC", folder, "test", base, cache)]
            figures += photographs(options.data, settings, base, cache, Path(scratch))
        print_head("switch", *(figure.title for figure in figures), *(f"{f.title}: more" for f in figures))
        first: list[Found] = []
        for name, changes in switches.items():
            models = [trained(plain, changes, seed, settings, store, Path(scratch)) for seed in seeds]
            found = [Found.of([figure.scored(model) for model in models]) for figure in figures]
            first = first or found
            more = [one.more_than(before) if changes else "" for one, before in zip(found, first, strict=True)]
            print_row(name, *(f"{one.values.mean():.3f}" for one in found), *more)


class FrozenTexts(dict[str, NDArray[np.float32]]):
    """Features of texts before the projection, which are the same for all seeds."""

    def of(self, model: ClipModel) -> ClipModel:
        """The model, which computes only texts that no model before it has."""
        whole = model.text_features

        def text_features(texts: Sequence[str]) -> NDArray[np.float32]:
            new = sorted(set(texts) - self.keys())
            self.update(zip(new, whole(new), strict=True))
            return np.stack([self[text] for text in texts])

        model.text_features = text_features
        return model


FROZEN_TEXTS = FrozenTexts()


def trained(
    plain: TrainedModel, changes: Mapping[str, Any], seed: int, settings: Settings, store: Store, scratch: Path
) -> ClipModel:
    """A model of the plain recipe with changes, aligned."""
    changes = dict(changes)
    crop = changes.pop("crop", settings.plant.scores.crop)
    recipe = type(plain.recipe).model_validate(plain.recipe.model_dump() | changes)
    model = FROZEN_TEXTS.of(load_base(settings.bases[plain.base], settings.weights, seed))
    manifest = store.folder(OutputKey("training_manifest")) / "manifest.parquet"
    changed = plain.model_copy(update={"recipe": recipe, "seed": seed})
    train_alignment(manifest, features_by(crop, settings, store, scratch), model, changed, scratch)
    return model


def features_by(crop: Crop, settings: Settings, store: Store, scratch: Path) -> dict[tuple[str, str], Path]:
    """Folders of features by region and source: those of the data folder, or of other crops in scratch."""
    keys = [(region, source) for region in settings.regions for source in settings.sources]
    made = [key for key in keys if store.record(OutputKey("chip_features", key)) is not None]
    if crop == settings.plant.scores.crop:
        return {key: store.folder(OutputKey("chip_features", key)) for key in made}
    folders = {key: scratch / crop / "-".join(key) for key in made}
    for key, folder in folders.items():
        if not folder.exists():
            folder.mkdir(parents=True)
            chips, plan = (store.folder(OutputKey(stage, key)) for stage in ("image_chips", "chip_plan"))
            scorer = load_base(settings.bases[settings.plant.scores.scorer], settings.weights, 0)
            write_chip_features(chips, plan, scorer, settings.plant.scores.views, 0, folder, crop=crop)
    return folders


if __name__ == "__main__":
    main()
