"""What is known of a tag apart from its labels: its words, and how its objects look in the vocabulary.

A tag becomes one row of numbers in five blocks: its text, its value's text, the geometry of its objects, the shape of
key and value, and the text of the tags beside it on the same objects. Each block is standardised on the labelled tags
and scaled so that two labelled tags are as far apart in it, on average, as in any other block. Counts and sizes are
those of the packaged vocabulary with those of the profile's regions added: what is said of a tag hardly depends on the
regions. Nothing here reads a label.
"""

from __future__ import annotations

import csv
import itertools
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from skyscript_assets.lib.settings.load import PACKAGED_PROFILES
from skyscript_assets.lib.tables import read_table
from skyscript_assets.lib.tags.counting import KINDS
from skyscript_assets.lib.tags.embedding import Encode
from skyscript_assets.lib.tags.labels import Tag
from skyscript_assets.lib.tags.text import tag_text, text_reason
from skyscript_assets.lib.tags.vocabulary import (
    COOCCURRENCE_FILE,
    COOCCURRENCE_SCHEMA,
    VOCABULARY_FILE,
    VOCABULARY_SCHEMA,
)

SIDES: tuple[str, ...] = ("yes", "no", "left", "right", "both", "backward", "forward")
"""Values that answer or place what the key names, each a column of the block `shape`."""

LEAST_SIDE_M = 0.1
"""Boxes are taken to be no thinner than this, metres: a straight line along a meridian has no width."""

BASE_FILE = PACKAGED_PROFILES / "tag_vocabulary.csv"
"""The packaged vocabulary: tags of many extracts, the most frequent first. `settings/tag_labelling.md` tells of it."""

BASE_COLUMNS: tuple[str, ...] = (
    *("key", "value", "n", "areas", "lines", "nodes"),
    *("area_longer_m", "area_shorter_m", "line_longer_m", "line_shorter_m"),
)
"""Its header: objects, those of each of `KINDS`, and the median sides of the boxes of areas and of lines in metres."""

Row = tuple[str, str, str, int, float | None, float | None]
"""Key, value, kind, objects, and the median longer and shorter side of their boxes in metres."""

_NUMBER = re.compile(r"[-+]?\d+(\.\d+)?( \S+)?")


@dataclass(frozen=True)
class TagStatistics:
    """What the vocabularies count, summed over regions.

    Attributes:
        counts: Objects of each tag of the profile's regions that is no text.
        kinds: Objects by kind, in the order of `KINDS`, those of the packaged vocabulary too, as in all that follows.
        sides_m: Longer and shorter side of the objects' boxes in metres: the geometric mean of the medians by region
            and kind, weighted by objects. Tags that stand on nodes alone are left out.
        beside: The tags most frequent on the same objects, with the share of objects that carry them.
        values: Distinct values of each key, text left out.
        texts: Number of tags that are text, by reason.
    """

    counts: Mapping[Tag, int]
    kinds: Mapping[Tag, tuple[int, ...]]
    sides_m: Mapping[Tag, tuple[float, float]]
    beside: Mapping[Tag, Sequence[tuple[Tag, float]]]
    values: Mapping[str, int]
    texts: Mapping[str, int]


def base_rows() -> Iterator[Row]:
    """What the packaged vocabulary counts: a row for each tag and kind of object, the most frequent tags first."""
    with BASE_FILE.open(encoding="utf-8", newline="") as file:
        next(file)  # the note on where the counts are from
        for found in csv.DictReader(file):
            for kind in KINDS:
                if n := int(found[f"{kind}s"]):
                    longer, shorter = (found.get(f"{kind}_{side}_m") for side in ("longer", "shorter"))
                    sides = (float(longer), float(shorter)) if longer and shorter else (None, None)
                    yield (found["key"], found["value"], kind, n, *sides)


def read_statistics(vocabulary_folder: Path | None) -> TagStatistics:
    """Read the vocabulary of the profile's regions, and add what is packaged.

    Args:
        vocabulary_folder: Output of `vocabulary.count_vocabulary`; None: what is packaged alone.

    Raises:
        UpstreamMissingError: a table does not exist.
        CorruptInputError: it is not a whole Parquet file.
        OutputSchemaError: it lacks a column.
    """
    rows: list[Row] = []
    beside: dict[Tag, list[tuple[Tag, float]]] = {}
    if vocabulary_folder is not None:
        columns = ["key", "value", "kind", "n", "longer_side_m", "shorter_side_m"]
        table = read_table(vocabulary_folder / VOCABULARY_FILE, VOCABULARY_SCHEMA, columns)
        rows = list(zip(*(table[name].to_pylist() for name in columns), strict=True))
        together = read_table(vocabulary_folder / COOCCURRENCE_FILE, COOCCURRENCE_SCHEMA)
        for key, value, other, its, share in zip(
            *(together[c].to_pylist() for c in COOCCURRENCE_SCHEMA.names), strict=True
        ):
            beside.setdefault((key, value), []).append(((other, its), share))
    counts: Counter[Tag] = Counter()
    texts: dict[Tag, str] = {}
    for key, value, _, n, _, _ in rows:
        reason = text_reason(key, value)
        if reason is None:
            counts[key, value] += n
        else:
            texts[key, value] = reason
    kinds: dict[Tag, list[int]] = {}
    logs: dict[Tag, list[tuple[int, float, float]]] = {}
    for key, value, kind, n, longer, shorter in itertools.chain(rows, base_rows()):
        tag = (key, value)
        if tag in texts:
            continue
        kinds.setdefault(tag, [0] * len(KINDS))[KINDS.index(kind)] += n
        if longer is not None and shorter is not None:
            longer, shorter = max(longer, LEAST_SIDE_M), max(shorter, LEAST_SIDE_M)
            logs.setdefault(tag, []).append((n, math.log(longer), math.log(shorter)))
    return TagStatistics(
        counts={tag: counts[tag] for tag in sorted(counts)},
        kinds={tag: tuple(kinds[tag]) for tag in kinds},
        sides_m={tag: _mean_sides(found) for tag, found in logs.items()},
        beside=beside,
        values=Counter(key for key, _ in kinds),
        texts=Counter(texts.values()),
    )


def _mean_sides(logs: Sequence[tuple[int, float, float]]) -> tuple[float, float]:
    total = sum(n for n, _, _ in logs)
    longer, shorter = (sum(row[0] * row[i] for row in logs) / total for i in (1, 2))
    return math.exp(longer), math.exp(shorter)


def tag_features(
    tags: Sequence[Tag], labelled: int, statistics: TagStatistics, encode: Encode
) -> dict[str, NDArray[np.float64]]:
    """What is known of N tags, block by block.

    A tag that the vocabulary does not know, or whose objects have no size, gets the mean of the others in those
    columns, and a column that says so.

    Args:
        tags: N tags, the labelled ones first.
        labelled: How many of them are labelled: standardisation is theirs.
        statistics: What the vocabulary says.
        encode: Text encoder.

    Returns:
        text, value, geometry, shape and beside: (N, columns) each.
    """
    whole, value, beside = _embeddings(tags, statistics, encode)
    geometry = np.array([_geometry(tag, statistics) for tag in tags], np.float64).reshape(len(tags), -1)
    shape = np.array([_shape(tag, statistics) for tag in tags], np.float64).reshape(len(tags), -1)
    blocks = {
        "text": whole,
        "value": value,
        "geometry": _standardised(geometry, labelled),
        "shape": _standardised(shape, labelled),
        "beside": beside,
    }
    return {name: _scaled(block, labelled) for name, block in blocks.items()}


def _embeddings(
    tags: Sequence[Tag], statistics: TagStatistics, encode: Encode
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Embeddings of whole tags, of their values, and of the tags beside them (their mean, weighted by share)."""
    others = {tag: statistics.beside.get(tag, ()) for tag in tags}
    whole = {tag: tag_text(*tag) for tag in (*tags, *(other for found in others.values() for other, _ in found))}
    values = [tag_text("", value) for _, value in tags]
    distinct = sorted({*whole.values(), *values})
    rows = np.asarray(encode(distinct), np.float64)
    place = {text: row for row, text in enumerate(distinct)}
    beside = np.zeros((len(tags), rows.shape[1]))
    for i, tag in enumerate(tags):
        total = sum(share for _, share in others[tag])
        for other, share in others[tag]:
            beside[i] += share / total * rows[place[whole[other]]]
    return rows[[place[whole[tag]] for tag in tags]], rows[[place[text] for text in values]], beside


def _geometry(tag: Tag, statistics: TagStatistics) -> list[float]:
    """Shares of kinds, logarithms of sides and of the number of objects; NaN where not known."""
    kinds = statistics.kinds.get(tag)
    sides = statistics.sides_m.get(tag)
    logs = [math.nan, math.nan] if sides is None else [math.log(side) for side in sides]
    if kinds is None:
        return [*([math.nan] * (len(KINDS) + 1)), *logs, 1.0, 1.0]
    total = sum(kinds)
    return [*(n / total for n in kinds), math.log(total), *logs, float(sides is None), 0.0]


def _shape(tag: Tag, statistics: TagStatistics) -> list[float]:
    """What key and value look like, whatever they mean."""
    key, value = tag
    return [
        *(float(value == side) for side in SIDES),
        float(_NUMBER.fullmatch(value) is not None),
        float(any(character.isupper() for character in value)),
        float(len(value.replace("_", " ").split())),
        float(key.count(":")),
        float(len(re.split("[:_]", key))),
        math.log(max(1, statistics.values.get(key, 0))),
    ]


def _standardised(block: NDArray[np.float64], labelled: int) -> NDArray[np.float64]:
    """Columns of mean zero and deviation one on the labelled rows; what is not known becomes the mean."""
    if not labelled:
        return np.nan_to_num(block)
    known = np.isfinite(block[:labelled])
    n = np.maximum(1, known.sum(axis=0))
    mean = np.where(known, block[:labelled], 0.0).sum(axis=0) / n
    deviation = np.sqrt((np.where(known, block[:labelled] - mean, 0.0) ** 2).sum(axis=0) / n)
    filled = np.where(np.isfinite(block), block - mean, 0.0)
    return np.asarray(filled / np.where(deviation > 0, deviation, 1.0))


def _scaled(block: NDArray[np.float64], labelled: int) -> NDArray[np.float64]:
    """The block in units of the root mean square distance between two labelled rows."""
    # The mean of |x - y|^2 over all pairs is twice the sum of the columns' variances.
    distance = math.sqrt(2.0 * float(block[:labelled].var(axis=0).sum())) if labelled else 0.0
    return block / distance if distance > 0 else block
