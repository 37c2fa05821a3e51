"""EuroSAT and UC Merced zero-shot for models of a profile, without any claim.

Usage: python benchmarks/zero_shot.py [--data ../shared/data/benchmarks] [--model aligned-0 ...]

Default models: the first of each group that the profile trains or takes as it is. Trained models are read from the data
folder where `skyscript demo` left them. SKYSCRIPT_SETTINGS and SKYSCRIPT_DATA choose settings and data folder.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from skyscript_assets.lib.benchmarks.evaluate import evaluate
from skyscript_assets.lib.benchmarks.image_folder import ImageFolderBenchmark, build_image_folder
from skyscript_assets.lib.benchmarks.items import Scores
from skyscript_assets.lib.errors import SettingsError, SkyScriptError
from skyscript_assets.lib.settings.load import PACKAGED_PROFILES, Settings, load_settings
from skyscript_assets.lib.settings.models import NoRecipe
from skyscript_assets.lib.storage import OutputKey, Store
from skyscript_assets.lib.towers.bases import load_base
from skyscript_assets.lib.towers.model import ClipModel
from skyscript_assets.lib.training.checkpoint import load_checkpoint

BENCHMARKS = {
    "eurosat": ImageFolderBenchmark(
        title="EuroSAT, 2,700 images", csv="eurosat/eurosat_test.csv", classnames="eurosat/classnames.txt"
    ),
    "ucmerced": ImageFolderBenchmark(
        title="UC Merced, 1,050 images", csv="ucmerced/ucmerced_test.csv", classnames="ucmerced/classnames.txt"
    ),
}
BOOTSTRAP = 1000
ZERO_SHOT = ("none", "align", "clip")


def main() -> int:
    """Score the models and print a table; the exit status is 1 where something is missing or broken."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(__file__).resolve().parents[2] / "shared" / "data" / "benchmarks"
    parser.add_argument("--data", type=Path, default=default, help="folder that holds eurosat/ and ucmerced/")
    parser.add_argument("--model", action="append", help="key of a model of the profile; may be repeated")
    arguments = parser.parse_args()
    profile = os.environ.get("SKYSCRIPT_SETTINGS") or "demo"
    packaged = PACKAGED_PROFILES / profile
    try:
        settings = load_settings(packaged if packaged.is_dir() else Path(profile))
        store = Store(os.environ.get("SKYSCRIPT_DATA") or "data")
        run(settings, store, arguments.data.resolve(), arguments.model or default_models(settings))
    except SkyScriptError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def default_models(settings: Settings) -> list[str]:
    """The first model of each group that is scored zero-shot."""
    first: dict[str, str] = {}
    for key, model in settings.models.items():
        if model.recipe.kind in ZERO_SHOT:
            first.setdefault(model.group or key, key)
    return list(first.values())


def load(settings: Settings, store: Store, key: str) -> ClipModel:
    """A model of the profile: its base as it is, or its checkpoint."""
    if key not in settings.models or settings.models[key].recipe.kind not in ZERO_SHOT:
        known = ", ".join(key for key, model in settings.models.items() if model.recipe.kind in ZERO_SHOT)
        raise SettingsError(f"--model {key}: not a zero-shot model of the profile; those are {known}")
    model = settings.models[key]
    base = settings.bases[model.base]
    if isinstance(model.recipe, NoRecipe):
        return load_base(base, settings.weights, model.seed)
    return load_checkpoint(store.folder(OutputKey("trained_checkpoint", (key,))), base, settings.weights)


def run(settings: Settings, store: Store, data: Path, models: list[str]) -> None:
    """Print the table of models and benchmarks."""
    encoders = {key: load(settings, store, key) for key in models}
    cache = store.cache("benchmark_features")
    print("Zero-shot top-1, %, mean over the paper's two prompts, with the 95 % bootstrap interval over images.")
    print("Without any claim: the demo's models were aligned on synthetic imagery, and these are photographs.\n")
    print(f"{'benchmark':<26}{'model':<22}{'top-1':>7}{'95 % interval':>18}{'mean recall':>13}{'chance':>8}")
    with tempfile.TemporaryDirectory() as scratch:
        for key, described in BENCHMARKS.items():
            folder = Path(scratch) / key
            folder.mkdir()
            built = build_image_folder(described, data / described.csv, data / described.classnames, folder)
            for model, encoder in encoders.items():
                out = folder / model
                out.mkdir()
                recipe = settings.models[model].recipe.kind
                scores = evaluate(key, folder, encoder, recipe, cache, BOOTSTRAP, out, show_progress)
                print_row(described.title, model, scores, len(built.positives))


def print_row(title: str, model: str, scores: Scores, classes: int) -> None:
    """Print one line of the table."""
    top1, recall = (scores.figures[name] for name in ("top1", "mean_per_class_recall"))
    value, low, high, mean_recall = (100 * (share or 0.0) for share in (top1.value, top1.low, top1.high, recall.value))
    interval = f"[{low:.2f}, {high:.2f}]"
    print(f"{title:<26}{model:<22}{value:>7.2f}{interval:>18}{mean_recall:>13.2f}{100 / classes:>8.2f}", flush=True)


def show_progress(done: int, total: int, unit: str) -> None:
    """Overwrite one line of a terminal."""
    if sys.stderr.isatty():
        print(f"\r{done}/{total} {unit}", end="\r" if done < total else "\r\033[K", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
