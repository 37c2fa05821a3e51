"""What is said of the pairs of a split: the text of each that a step takes, and which texts match which images."""

from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from skyscript_assets.lib.arrays import IntArray
from skyscript_assets.lib.settings.models import TaughtRecipe


class Texts:
    """The texts of N pairs: a pair has one thing or several to be said of it, and each one form or several.

    Whole captions are one thing with a form a style. Statements are a thing an object, with the whole clause, the main
    tag and its bare key as forms.

    Attributes:
        texts: All distinct texts, sorted.
        codes: Row of each pair's first text (N,), by which batches are dealt; all differ where order is to be chance.
    """

    def __init__(self, pairs: pa.Table, recipe: TaughtRecipe) -> None:
        self._positives = recipe.positives
        columns = [
            pc.binary_join_element_wise(recipe.prefix_of(name), pairs[name], "")
            for name in recipe.styles
            if name != "statements"
        ]
        starts = np.arange(len(pairs) + 1)
        if not columns or self._positives == "stated":
            stated = pairs["statements"].combine_chunks()
            forms = [pc.struct_field(stated.flatten(), name) for name in ("clause", "main", "kind")]
            of_objects = np.cumsum([0, *pc.list_value_length(stated).to_pylist()])
        words, self._rows = _coded(columns or forms)
        self.texts = words if columns else [recipe.prefix + text for text in words]
        self._starts: IntArray = starts if columns else of_objects
        self.codes: IntArray = self.first(starts[:-1]) if recipe.order == "dealt" else starts[:-1]
        if self._positives == "stated":
            self._tell_facts(forms, of_objects, recipe.styles)

    def _tell_facts(self, forms: list[pa.Array], starts: IntArray, styles: tuple[str, ...]) -> None:
        """Which facts are stated of each pair, and which each text says."""
        facts, rows = _coded(forms)
        self._stated = _incidence([np.unique(rows[a:b]) for a, b in pairwise(starts)], len(facts))
        if styles == ("statements",):
            said = [np.array([row]) for row in range(len(facts))]
        else:
            # Of a pair that has the text; a title is of the first object alone.
            pair, column = np.divmod(np.unique(self._rows, return_index=True)[1], len(styles))
            ends = [starts[p] + 1 if styles[c] == "title" else starts[p + 1] for p, c in zip(pair, column, strict=True)]
            said = [np.unique(rows[a:b, 0]) for a, b in zip(starts[pair], ends, strict=True)]
        self._said = _incidence(said, len(facts))

    def draw(self, pairs: IntArray, rng: np.random.Generator) -> IntArray:
        """The row of a text for each of n pairs (n,): one form of one thing, both at random."""
        things = rng.integers(self._starts[pairs], self._starts[pairs + 1])
        drawn: IntArray = self._rows[things, rng.integers(self._rows.shape[1], size=len(pairs))]
        return drawn

    def first(self, pairs: IntArray) -> IntArray:
        """The row of the first form of the first thing of each of n pairs (n,)."""
        rows: IntArray = self._rows[self._starts[pairs], 0]
        return rows

    def matching(self, pairs: IntArray, rows: IntArray) -> tuple[IntArray, NDArray[np.float32] | None]:
        """Which of the texts of a batch are compared with its images, and which match.

        Of n pairs, `rows` are those of the texts that they take. Returns places of m texts in the batch, and 1 where
        text j matches image i, else 0, (n, m); None: each its own.
        """
        if self._positives == "own":
            return np.arange(len(rows)), None
        # Each text once: what is said of many images must not drown the rest.
        texts, places, own = np.unique(rows, return_index=True, return_inverse=True)
        matches = own[:, None] == np.arange(len(texts))
        if self._positives == "stated":
            said = self._said[texts]
            number = said.sum(axis=1)
            matches |= ((self._stated[pairs] @ said.T).toarray() == number) & (number > 0)
        return places, matches.astype(np.float32)


def _coded(columns: list[pa.Array]) -> tuple[list[str], IntArray]:
    """Distinct texts, sorted, and the row of each text of the columns among them (rows, columns)."""
    words = sorted({text for column in columns for text in column.unique().to_pylist()})
    known = pa.array(words, pa.string())
    return words, np.column_stack([pc.index_in(column, known).to_numpy() for column in columns]).astype(np.int64)


def _incidence(rows: list[IntArray], width: int) -> Any:
    """A sparse matrix with ones at the columns listed for each row."""
    from scipy.sparse import csr_array

    ends = np.cumsum([0, *map(len, rows)])
    columns = np.concatenate([np.empty(0, np.int64), *rows])
    return csr_array((np.ones(len(columns), np.float32), columns, ends), shape=(len(rows), max(1, width)))
