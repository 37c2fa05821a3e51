"""How often the intervals of benchmark figures hold what they are of, by number of cells and of seeds.

    python benchmarks/interval_coverage.py --repeats 1000

Scored items are drawn again and again from a known population: cells of uneven size (about 40 items, spread by 28),
each with a quality of its own. What the figures are of is the same figure of 4,000 cells. Prints a Markdown table of
the plain percentile interval and of the one that is printed everywhere, for accuracy and for the mean AUC of six
classes. A second table is of groups: models on the same items, whose seeds differ in quality by `--spread` of what
cells differ by. It sets intervals over cells alone beside those over cells and seeds, for
the figure of a group and for the difference of two groups that are equally good.
"""

from collections.abc import Sequence

import numpy as np
from measuring import options_of, parser_of, print_head, print_row

from skyscript_assets.lib.benchmarks import intervals as module
from skyscript_assets.lib.benchmarks.intervals import Figure, ScoredItems, group_interval, intervals
from skyscript_assets.lib.benchmarks.metrics import Draws

CLASSES = 6
SPREADS = {"accuracy": 0.8, "mean AUC": 0.5}
"""What the quality of cells differs by: log odds of a right answer, deviations between positive and negative scores."""

OWN = 0.5
"""How much of that is a group's alone, where groups are compared."""


def drawn(
    figure: str, cells: int, rng: np.random.Generator, groups: Sequence[Sequence[float]] = ((0.0,),), own: float = 0.0
) -> list[list[ScoredItems]]:
    """Scored items of some cells, by groups of models whose quality is shifted by their seed, in each cell alike.

    `own` is how much of what cells differ by is each group's alone.
    """
    sizes = 2 + rng.negative_binomial(2, 0.05, size=cells)
    cell = np.repeat(np.arange(cells), sizes)
    n, ids = len(cell), tuple(map(str, range(len(cell))))
    clusters = tuple(map(str, cell))
    if figure == "accuracy":
        quality = 1.0 + SPREADS[figure] * rng.normal(size=cells)
        truth, scores = np.zeros((n, 1), bool), np.zeros((n, 1))

        def of_seed(quality: np.ndarray, shift: float) -> ScoredItems:
            right = rng.random(n) < 1 / (1 + np.exp(-(quality + SPREADS[figure] * shift)))[cell]
            return ScoredItems(ids, clusters, truth, scores, right.astype(float))

    else:
        common, quality, of_cell = (
            middle + spread * rng.normal(size=(cells, CLASSES)) for middle, spread in ((-1, 0.8), (1.3, 0.5), (0, 0.5))
        )
        truth = rng.random((n, CLASSES)) < 1 / (1 + np.exp(-common[cell]))

        def of_seed(quality: np.ndarray, shift: float) -> ScoredItems:
            scores = truth * (quality + SPREADS[figure] * shift)[cell] + of_cell[cell] + rng.normal(size=(n, CLASSES))
            return ScoredItems(ids, clusters, truth, scores)

    found = []
    for shifts in groups:
        of_group = quality + own * SPREADS[figure] * rng.normal(size=quality.shape) if own else quality
        found.append([of_seed(of_group, shift) for shift in shifts])
    return found


def true_figure(figure: str, own: float = 0.0) -> float:
    """The figure of the population: 4,000 cells, by the seed in the middle."""
    ((items,),) = drawn(figure, 4000, np.random.default_rng(0), own=own)
    return float(items.primary(Draws.once(len(items.clusters)))[0])


def coverage(figure: str, cells: int, repeats: int, samples: int) -> Sequence[float]:
    """Share of the intervals that hold the population's figure, and their mean length: percentile, then ours."""
    true, rng, ours = true_figure(figure), np.random.default_rng(1), module.tail_of
    held, length = np.zeros(2), np.zeros(2)
    for _ in range(repeats):
        ((items,),) = drawn(figure, cells, rng)
        for i, tail_of in enumerate((lambda _: 0.025, ours)):
            module.tail_of = tail_of
            (found,) = intervals(items.clusters, samples, lambda draws, items=items: items.primary(draws)[:, None])
            _count(found, true, held[i : i + 1], length[i : i + 1])
    module.tail_of = ours
    return [*held / repeats, *length / repeats]


def coverage_of_groups(figure: str, cells: int, seeds: int, spread: float, repeats: int, samples: int) -> list[float]:
    """The same of groups: over cells alone, then over cells and seeds; of a group, then of a difference."""
    true, rng, ours = true_figure(figure, OWN), np.random.default_rng(1), module._with_seeds
    held, length = np.zeros((2, 2)), np.zeros((2, 2))
    for _ in range(repeats):
        group, against = drawn(figure, cells, rng, spread * rng.normal(size=(2, seeds)), OWN)
        for i, with_seeds in enumerate((lambda found, *_: found, ours)):
            module._with_seeds = with_seeds
            _count(group_interval(group, samples), true, held[0, i : i + 1], length[0, i : i + 1])
            difference = group_interval(group, samples, against)
            _count(difference, 0.0, held[1, i : i + 1], length[1, i : i + 1])
    module._with_seeds = ours
    return [*held.ravel() / repeats, *length.ravel() / repeats]


def _count(found: Figure, true: float, held: np.ndarray, length: np.ndarray) -> None:
    assert found.low is not None
    assert found.high is not None
    held += found.low <= true <= found.high
    length += found.high - found.low


def main() -> None:
    """Print the tables."""
    parser = parser_of(__doc__)
    parser.add_argument("--cells", type=int, nargs="+", default=[8, 18, 60], help="numbers of cells")
    parser.add_argument("--seeds", type=int, nargs="*", default=[3, 5], help="numbers of seeds; none: no second table")
    parser.add_argument("--spread", type=float, nargs="+", default=[0.1, 0.5], help="of seeds, in that of cells")
    parser.add_argument("--repeats", type=int, default=1000, help="populations drawn")
    parser.add_argument("--samples", type=int, default=1000, help="bootstrap samples of an interval")
    options = options_of(parser)
    print_head("figure", "cells", "percentile holds", "expanded holds", "length", "length")
    for figure in ("accuracy", "mean AUC"):
        for cells in options.cells:
            found = coverage(figure, cells, options.repeats, options.samples)
            print_row(figure, cells, *(f"{each:.3f}" for each in found))
    if options.seeds:
        holds = [f"{what}, {over}" for what in ("group", "difference") for over in ("cells alone", "cells and seeds")]
        print()
        print_head("figure", "cells", "seeds", "spread", *(f"{one} hold" for one in holds), *["length"] * 4)
    for figure in ("accuracy", "mean AUC"):
        for cells, seeds, spread in (
            (cells, seeds, spread) for cells in options.cells for seeds in options.seeds for spread in options.spread
        ):
            found = coverage_of_groups(figure, cells, seeds, spread, options.repeats, options.samples)
            print_row(figure, cells, seeds, spread, *(f"{each:.3f}" for each in found))


if __name__ == "__main__":
    main()
