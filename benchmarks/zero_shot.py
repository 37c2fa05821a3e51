"""EuroSAT and UC Merced zero-shot for models of a profile, without any claim.

    python benchmarks/zero_shot.py --model aligned-0 untrained-0

Prints top-1 in per cent, by the mean of the paper's two prompts, with the bootstrap interval over images. The demo's
models were aligned on synthetic imagery, and these are photographs. Trained models are read from the data folder where
`skyscript demo` left them. SKYSCRIPT_SETTINGS and SKYSCRIPT_DATA choose settings and data folder.
"""

import tempfile
from pathlib import Path

from measuring import SHARED_DATA, options_of, parser_of, print_head, print_row

from skyscript_assets.definitions import plant_from_environment
from skyscript_assets.lib.benchmarks.evaluate import evaluate
from skyscript_assets.lib.benchmarks.image_folder import ImageFolderBenchmark, build_image_folder
from skyscript_assets.lib.settings.load import Settings, load_settings
from skyscript_assets.lib.settings.models import NoRecipe
from skyscript_assets.lib.storage import OutputKey, Store
from skyscript_assets.lib.threads import limit_libraries
from skyscript_assets.lib.towers.bases import load_base
from skyscript_assets.lib.towers.model import ClipModel
from skyscript_assets.lib.training.checkpoint import load_checkpoint

BENCHMARKS = {"eurosat": "EuroSAT", "ucmerced": "UC Merced"}
BOOTSTRAP = 1000


def load(settings: Settings, store: Store, key: str) -> ClipModel:
    """A model of the profile: its base as it is, or its checkpoint."""
    model = settings.models[key]
    base = settings.bases[model.base]
    if isinstance(model.recipe, NoRecipe):
        return load_base(base, settings.weights, model.seed)
    return load_checkpoint(store.folder(OutputKey("trained_checkpoint", (key,))), base, settings.weights)


def main() -> None:
    """Score the models and print a table."""
    parser = parser_of(__doc__)
    parser.add_argument(
        "--data", type=Path, default=SHARED_DATA / "benchmarks", help=f"folder that holds {', '.join(BENCHMARKS)}"
    )
    parser.add_argument("--model", nargs="+", default=["aligned-0", "untrained-0"], help="models of the profile")
    options = options_of(parser)
    limit_libraries()
    plant = plant_from_environment()
    settings, store = load_settings(Path(plant.settings_folder)), plant.store()
    encoders = {key: load(settings, store, key) for key in options.model}
    print_head("benchmark", "model", "top-1, %", "95 % interval", "mean recall, %", "chance, %")
    cache = store.cache("benchmark_features")
    with tempfile.TemporaryDirectory() as scratch:
        for key, title in BENCHMARKS.items():
            folder, given = Path(scratch) / key, options.data.resolve() / key
            folder.mkdir()
            described = ImageFolderBenchmark(
                title=title, root=str(given), csv=f"{key}_test.csv", classnames="classnames.txt"
            )
            built = build_image_folder(described, settings.shared, folder)
            for model, encoder in encoders.items():
                out = folder / model
                out.mkdir()
                recipe = settings.models[model].recipe.kind
                figures = evaluate(key, folder, encoder, recipe, cache, BOOTSTRAP, out).figures
                top1, recall = figures["top1"], figures["mean_per_class_recall"]
                shares = (top1.value, top1.low, top1.high, recall.value, 1 / len(built["positives"]))
                value, low, high, mean, chance = (f"{100 * (share or 0.0):.2f}" for share in shares)
                print_row(
                    f"{title}, {sum(built['items'].values()):,} images", model, value, f"[{low}, {high}]", mean, chance
                )


if __name__ == "__main__":
    main()
