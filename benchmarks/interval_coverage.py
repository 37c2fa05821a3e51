"""How often the intervals of benchmark figures hold what they are of, by number of cells.

    python benchmarks/interval_coverage.py --repeats 1000

Scored items are drawn again and again from a known population: cells of uneven size (about 40 items, spread by 28),
each with a quality of its own. What the figures are of is the same figure of 4,000 cells. Prints a Markdown table of
the plain percentile interval and of the one that is printed everywhere, for accuracy and for the mean AUC of six
classes.
"""

from collections.abc import Sequence

import numpy as np
from measuring import options_of, parser_of, print_head, print_row

from skyscript_assets.lib.benchmarks import intervals as module
from skyscript_assets.lib.benchmarks.intervals import ScoredItems, intervals
from skyscript_assets.lib.benchmarks.metrics import Draws

CLASSES = 6


def drawn(figure: str, cells: int, rng: np.random.Generator) -> ScoredItems:
    """Scored items of some cells."""
    sizes = 2 + rng.negative_binomial(2, 0.05, size=cells)
    cell = np.repeat(np.arange(cells), sizes)
    n, ids = len(cell), tuple(map(str, range(len(cell))))
    clusters = tuple(map(str, cell))
    if figure == "accuracy":
        right = rng.random(n) < 1 / (1 + np.exp(-(1.0 + 0.8 * rng.normal(size=cells))))[cell]
        return ScoredItems(ids, clusters, np.zeros((n, 1), bool), np.zeros((n, 1)), right.astype(float))
    common, margin, shift = (
        middle + spread * rng.normal(size=(cells, CLASSES)) for middle, spread in ((-1, 0.8), (1.3, 0.5), (0, 0.5))
    )
    truth = rng.random((n, CLASSES)) < 1 / (1 + np.exp(-common[cell]))
    scores = truth * margin[cell] + shift[cell] + rng.normal(size=(n, CLASSES))
    return ScoredItems(ids, clusters, truth, scores)


def coverage(figure: str, cells: int, repeats: int, samples: int) -> Sequence[float]:
    """Share of the intervals that hold the population's figure, and their mean length: percentile, then ours."""
    population = drawn(figure, 4000, np.random.default_rng(0))
    true = population.primary(Draws.once(len(population.clusters)))[0]
    rng, ours = np.random.default_rng(1), module.tail_of
    held, length = np.zeros(2), np.zeros(2)
    for _ in range(repeats):
        items = drawn(figure, cells, rng)
        for i, tail_of in enumerate((lambda _: 0.025, ours)):
            module.tail_of = tail_of
            (found,) = intervals(items.clusters, samples, lambda draws, items=items: items.primary(draws)[:, None])
            assert found.low is not None
            assert found.high is not None
            held[i] += found.low <= true <= found.high
            length[i] += found.high - found.low
    module.tail_of = ours
    return [*held / repeats, *length / repeats]


def main() -> None:
    """Print the table."""
    parser = parser_of(__doc__)
    parser.add_argument("--cells", type=int, nargs="+", default=[8, 18, 60], help="numbers of cells")
    parser.add_argument("--repeats", type=int, default=1000, help="populations drawn")
    parser.add_argument("--samples", type=int, default=1000, help="bootstrap samples of an interval")
    options = options_of(parser)
    print_head("figure", "cells", "percentile holds", "expanded holds", "length", "length")
    for figure in ("accuracy", "mean AUC"):
        for cells in options.cells:
            found = coverage(figure, cells, options.repeats, options.samples)
            print_row(figure, cells, *(f"{each:.3f}" for each in found))


if __name__ == "__main__":
    main()
