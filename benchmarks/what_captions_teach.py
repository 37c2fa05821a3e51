"""Why a linear probe is better than an aligned model of the same towers: what each was told, class by class.

    python benchmarks/what_captions_teach.py

AUC on the demo's test cells of logistic regressions on the features of the frozen image tower, on what `skyscript demo`
left in the data folder: taught with what train windows show (the demo's control); the same through the projection of
the aligned model; and taught with the pairs that this model was aligned on, where a class is true of a chip whose
captions name it (`NAMED`). Penalties are chosen on validation cells. Beside them the aligned model itself, and of how
many windows and how many chips the class is told. SKYSCRIPT_SETTINGS and SKYSCRIPT_DATA choose settings and data.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
from measuring import options_of, parser_of, print_head, print_row
from switches import asked

from skyscript_assets.definitions import plant_from_environment
from skyscript_assets.lib.arrays import BoolArray
from skyscript_assets.lib.benchmarks.controls import probe_scores
from skyscript_assets.lib.benchmarks.metrics import roc_auc
from skyscript_assets.lib.pairs.features import read_chip_features
from skyscript_assets.lib.settings.load import load_settings
from skyscript_assets.lib.storage import OutputKey, Store
from skyscript_assets.lib.threads import limit_libraries
from skyscript_assets.lib.towers.model import Float32Array
from skyscript_assets.lib.training.checkpoint import load_checkpoint
from skyscript_assets.lib.training.selection import select_pairs

PATHS = "footway|cycleway|pedestrian|path|track|trail|crossing|steps"
NAMED: Mapping[str, str] = {
    "building": r"building",
    "road": rf"highway of|road of (?!{PATHS}|platform)",
    "path": rf"road of ({PATHS})",
    "rail": r"railway of (rail|tram$|light rail|level crossing|railway crossing)",
    "water": r"natural water|landuse of basin|natural wetland",
    "trees": r"natural (tree|woodland|scrub)|landuse of forest|barrier of hedge",
    "grass": r"landuse of (grass|meadow)|leisure land of (park|garden)|natural (scrub|heath|grassland)",
    "farmland": r"landuse of farmland",
    "parking": r"amenity of parking|road of (service|pedestrian)|railway of platform",
    "pitch": r"leisure land of pitch",
}
"""What the demo's captions call what the painter paints with the surface of a class."""


def taught(pairs: pa.Table, store: Store, tower: str, classes: list[str]) -> tuple[Float32Array, BoolArray]:
    """Plain features of the pairs' chips, and which classes their captions name."""
    known: dict[str, Float32Array] = {}
    keys = pairs.group_by(["region", "source"]).aggregate([]).to_pylist()
    for key in keys:
        folder = store.folder(OutputKey("chip_features", (key["region"], key["source"])))
        ids, found = read_chip_features(folder, tower)
        known |= dict(zip(ids, found[:, 0].astype(np.float32), strict=True))
    mains = [{said["main"] for said in row} for row in pairs["statements"].to_pylist()]
    truth = np.array([[any(re.match(NAMED[name], main) for main in said) for name in classes] for said in mains])
    return np.stack([known[chip] for chip in pairs["chip_id"].to_pylist()]), truth


def main() -> None:
    """Print a row a class."""
    parser = parser_of(__doc__)
    parser.add_argument("--model", default="aligned-0", help="model of the profile, aligned")
    parser.add_argument("--benchmark", default="ground-cover", help="of the profile")
    options = options_of(parser, scores=True)
    limit_libraries()
    plant = plant_from_environment()
    settings, store = load_settings(Path(plant.settings_folder)), plant.store()
    model = settings.models[options.model]
    checkpoint = store.folder(OutputKey("trained_checkpoint", (options.model,)))
    aligned = load_checkpoint(checkpoint, settings.bases[model.base], settings.weights)
    folder, cache = store.folder(OutputKey("benchmark_data", (options.benchmark,))), store.cache("benchmark_features")
    train, val, test = (asked(split, folder, split, aligned, cache) for split in ("train", "val", "test"))
    classes = [cls.name for cls in test.spec.classes]
    manifest = store.folder(OutputKey("training_manifest")) / "manifest.parquet"
    pairs, _ = select_pairs(manifest, model, ["statements"], 2)
    chips, named = taught(pairs, store, aligned.tower_digest, classes)
    projected = [aligned.project_image(part.features) for part in (train, val, test)]
    scores = [
        probe_scores((train.features, train.truth), (val.features, val.truth), test.features)[0],
        probe_scores((projected[0], train.truth), (projected[1], val.truth), projected[2])[0],
        probe_scores((chips, named), (val.features, val.truth), test.features)[0],
        test.scored(aligned).scores,
    ]
    figures = [roc_auc(test.truth, one)[0] for one in scores]
    print_head(
        "class", "windows, %", "chips named, %", "taught by windows", "projected", "taught by captions", options.model
    )
    for i, name in enumerate(classes):
        shares = (f"{100 * truth[:, i].mean():.0f}" for truth in (train.truth, named))
        print_row(name, *shares, *(f"{of_classes[i]:.3f}" for of_classes in figures))
    print_row("mean", "", "", *(f"{np.nanmean(of_classes):.3f}" for of_classes in figures))
    print(f"\n{len(train.features):,} train windows, {len(chips):,} pairs, {len(test.features):,} test windows")


if __name__ == "__main__":
    main()
