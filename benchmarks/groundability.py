"""What the model of groundability is worth on keys that it was not trained on, and which features it owes it to.

    python benchmarks/groundability.py
    python benchmarks/groundability.py --vocabulary data/tag_vocabulary --labels my_labels.csv --assignments 3

Counts are those of the packaged vocabulary, and of a folder that is named: it holds extracts, which are counted first,
or a vocabulary. Prints Markdown: figures with whole keys held out,
as means and deviations over assignments of keys to folds, for the model, for the model with fewer features or labels of
fewer keys, and for baselines. With `--not-among`, figures are counted on keys that another label file does not have: if
it holds the labels that were known when the model was designed, no choice can have been made on the keys counted.
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from unittest.mock import patch

import numpy as np
from measuring import PROFILE, extracts_in, objects_of, options_of, parser_of, print_head, print_row
from numpy.typing import NDArray

from skyscript_assets.lib.geometry import unit_hash
from skyscript_assets.lib.settings.load import PACKAGED_PROFILES
from skyscript_assets.lib.settings.plant import SizeSettings
from skyscript_assets.lib.tags.embedding import Encode, load_encoder
from skyscript_assets.lib.tags.features import TagStatistics, lexicon, read_statistics, tag_features
from skyscript_assets.lib.tags.labels import Tag, read_labels
from skyscript_assets.lib.tags.model import decided_steps, kernel
from skyscript_assets.lib.tags.validation import (
    HeldOut,
    Truth,
    assign_folds,
    binary_figures,
    calibration_figures,
    hold_out,
    step_figures,
)
from skyscript_assets.lib.tags.vocabulary import VOCABULARY_FILE, count_vocabulary
from skyscript_assets.lib.threads import limit_libraries

BLOCKS = ("text", "geometry", "shape", "words")
FEATURES: dict[str, tuple[str, ...]] = {
    "all features": BLOCKS,
    "text alone": ("text",),
    "text, geometry": ("text", "geometry"),
    **{f"all but {name}": tuple(block for block in BLOCKS if block != name) for name in BLOCKS},
}
STRICT = PROFILE.plant.tags.unseen_threshold
SHARES = (0.4, 0.6, 0.8)
"""Shares of the keys on which the model is tried too: what more labels may bring."""

COLUMNS = ("I: F1", "I: precision", "I: F1, model alone", "I: Brier", "II: exact", "II: within one", "II: steps off")


def main() -> None:
    """Count, validate and print."""
    parser = parser_of(__doc__)
    parser.add_argument("--vocabulary", type=Path, help="folder with extracts or with a vocabulary")
    parser.add_argument("--labels", type=Path, default=PACKAGED_PROFILES / "tag_labels.csv", help="label file")
    parser.add_argument("--assignments", type=int, default=5, help="assignments of keys to folds")
    parser.add_argument("--not-among", type=Path, help="count figures on keys that this label file lacks")
    options = options_of(parser)
    limit_libraries()
    labels = read_labels(options.labels)
    truth = Truth.of(labels)
    known = {key for key, _ in read_labels(options.not_among)} if options.not_among else set()
    counted = np.array([key not in known for key in truth.keys], np.bool_)
    encode = load_encoder(PROFILE.plant.tags.encoder, PROFILE.weights, PROFILE.bases)
    statistics = _statistics(options.vocabulary)
    features = tag_features(list(labels), len(labels), statistics, encode)
    print(
        f"{len(labels)} labels under {len(set(truth.keys))} keys, {int(truth.visible.sum())} visible; counted are "
        f"{int(counted.sum())} under {len({key for key in truth.keys if key not in known})} keys. "
        f"Means over {options.assignments} assignments of keys to ten folds, deviation in brackets.\n"
    )
    print_head("", *COLUMNS)
    for name, blocks in FEATURES.items():
        similar = kernel(_rows(features, blocks), _rows(features, blocks))
        runs = [hold_out(similar, truth, assign_folds(truth.keys, seed)) for seed in range(options.assignments)]
        _print_figures(name, [_of_model(truth, counted, said) for said in runs])
        if name == "all features":
            whole = runs
    similar = kernel(_rows(features, BLOCKS), _rows(features, BLOCKS))
    _print_figures(
        f"all features, called visible from {STRICT:g} on", [_of_model(truth, counted, said, STRICT) for said in whole]
    )
    runs = [
        _of_fewer_words(list(labels), truth, counted, statistics, encode, seed) for seed in range(options.assignments)
    ]
    _print_figures("all features, half of the words of the list hidden", runs)
    for share in SHARES:
        figures = [_of_fewer_keys(share, similar, truth, counted, seed) for seed in range(options.assignments)]
        _print_figures(f"all features, labels of {share:.0%} of the keys", figures)
    figures = [_figures(truth, counted, said.key_visible, said.key_step) for said in whole]
    _print_figures("majority and median of the key, else of all", figures)
    figures = [_figures(truth, counted, np.ones_like(truth.visible), said.middle_step) for said in whole]
    _print_figures("always visible, middle step", figures)


def _statistics(folder: Path | None) -> TagStatistics:
    if folder is None or (folder / VOCABULARY_FILE).exists():
        return read_statistics(folder)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        regions = {path.name.split(".")[0].lower(): path for path in extracts_in(folder)}
        objects = {region: objects_of(path, scratch / region) for region, path in regions.items()}
        count_vocabulary(objects, [1.0], SizeSettings(), scratch)
        return read_statistics(scratch)


def _rows(features: Mapping[str, NDArray[np.float64]], blocks: Sequence[str]) -> NDArray[np.float64]:
    """Some blocks, scaled so that their sum weighs as much as all of them do."""
    return np.hstack([features[name] for name in BLOCKS if name in blocks]) * np.sqrt(len(BLOCKS) / len(blocks))


def _figures(
    truth: Truth,
    counted: NDArray[np.bool_],
    called: NDArray[np.bool_],
    steps: NDArray[np.int64],
    chance: NDArray[np.float64] | None = None,
) -> list[float]:
    """A row of figures: of tags called visible, the steps said of all, and the chances, where there are any."""
    seen, decided = counted & truth.visible, counted & ~truth.ruled
    said = step_figures(truth.steps[seen], steps[seen])
    brier = calibration_figures(chance[decided], truth.visible[decided])["brier"] if chance is not None else np.nan
    decision = binary_figures(truth.visible[counted], (called & ~truth.ruled)[counted])
    alone = binary_figures(truth.visible[counted], called[counted])["f1"]
    return [
        decision["f1"],
        decision["precision"],
        alone,
        brier,
        *(said[name] for name in ("exact", "within_one_step", "mean_steps_off")),
    ]


def _of_model(truth: Truth, counted: NDArray[np.bool_], said: HeldOut, least: float = 0.5) -> list[float]:
    return _figures(truth, counted, said.chance >= least, decided_steps(said.step_chances), said.chance)


def _of_fewer_words(
    tags: Sequence[Tag],
    truth: Truth,
    counted: NDArray[np.bool_],
    statistics: TagStatistics,
    encode: Encode,
    seed: int,
) -> list[float]:
    """Figures where half of the packaged list of words is hidden, another half in each assignment."""
    words, kinds = lexicon()
    half = {word: found for word, found in words.items() if unit_hash("words", seed, word) < 0.5}
    with patch("skyscript_assets.lib.tags.features.lexicon", return_value=(half, kinds)):
        features = tag_features(tags, len(tags), statistics, encode)
    rows = _rows(features, BLOCKS)
    return _of_model(truth, counted, hold_out(kernel(rows, rows), truth, assign_folds(truth.keys, seed)))


def _of_fewer_keys(
    share: float, similar: NDArray[np.float64], truth: Truth, counted: NDArray[np.bool_], seed: int
) -> list[float]:
    """Figures of a model that knows, and is asked about, the labels of some keys alone."""
    drawn = {key for key in set(truth.keys) if unit_hash("fewer keys", seed, key) < share}
    kept = np.array([key in drawn for key in truth.keys], np.bool_)
    tags = tuple(tag for tag in truth.tags if tag[0] in drawn)
    fewer = Truth(tags, truth.visible[kept], truth.steps[kept], truth.ruled[kept])
    said = hold_out(similar[np.ix_(kept, kept)], fewer, assign_folds(fewer.keys, seed))
    return _of_model(fewer, counted[kept], said)


def _print_figures(name: str, runs: Sequence[Sequence[float]]) -> None:
    table = np.array(runs)
    pairs = zip(table.mean(axis=0), table.std(axis=0, ddof=1 if len(runs) > 1 else 0), strict=True)
    print_row(name, *("" if np.isnan(mean) else f"{mean:.3f} ({deviation:.3f})" for mean, deviation in pairs))


if __name__ == "__main__":
    main()
