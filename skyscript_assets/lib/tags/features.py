"""What is known of a tag apart from its labels: its words, and how its objects look in the vocabulary.

A tag becomes one row of numbers in four blocks: the embedding of its text, the geometry of its objects, the shape of
key and value, and what the packaged list of words says of them: the kind of thing a word names and the size by which
it is told. Each block is scaled so that two labelled tags are as far apart in it, on average, as in any other block.
Counts and sizes are those of the packaged vocabulary with those of the profile's regions added: what is said of a tag
hardly depends on the regions. Nothing here reads a label.
"""

import csv
import itertools
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from skyscript_assets.lib.settings.load import PACKAGED_PROFILES
from skyscript_assets.lib.tables import read_table
from skyscript_assets.lib.tags.counting import KINDS
from skyscript_assets.lib.tags.embedding import Encode
from skyscript_assets.lib.tags.labels import Tag
from skyscript_assets.lib.tags.text import tag_text, text_reason
from skyscript_assets.lib.tags.vocabulary import VOCABULARY_FILE, VOCABULARY_SCHEMA

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

WORDS_FILE = PACKAGED_PROFILES / "tag_words.csv"
"""English words of tags with the kind of thing that they name and, where it can be seen, the metres by which it is
told. `settings/tag_labelling.md` tells of it."""

_LONGEST_PHRASE = 3
_WORD = re.compile(r"[a-z0-9-]+")
_NUMBER = re.compile(r"[-+]?\d+(\.\d+)?( \S+)?")


@dataclass(frozen=True)
class TagStatistics:
    """What the vocabularies count, summed over regions.

    Attributes:
        counts: Objects of each tag of the profile's regions that is no text.
        kinds: Objects by kind, in the order of `KINDS`, those of the packaged vocabulary too, as in all that follows.
        sides_m: Longer and shorter side of the objects' boxes in metres: the geometric mean of the medians by region
            and kind, weighted by objects. Tags that stand on nodes alone are left out.
        values: Distinct values of each key, text left out.
        texts: Number of tags that are text, by reason.
    """

    counts: Mapping[Tag, int]
    kinds: Mapping[Tag, tuple[int, ...]]
    sides_m: Mapping[Tag, tuple[float, float]]
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


def base_counts() -> Counter[tuple[str, str]]:
    """How many objects of the packaged vocabulary have each key and value."""
    counts = Counter[tuple[str, str]]()
    for key, value, _, n, *_ in base_rows():
        counts[key, value] += n
    return counts


def read_statistics(vocabulary_folder: Path | None) -> TagStatistics:
    """Add to what is packaged the vocabulary of the profile's regions, if any. Raises what `read_table` does."""
    rows: list[Row] = []
    if vocabulary_folder is not None:
        columns = ["key", "value", "kind", "n", "longer_side_m", "shorter_side_m"]
        table = read_table(vocabulary_folder / VOCABULARY_FILE, VOCABULARY_SCHEMA, columns)
        rows = list(zip(*(table[name].to_pylist() for name in columns), strict=True))
    counts: Counter[Tag] = Counter()
    texts: dict[Tag, str] = {}
    for key, value, _, n, _, _ in rows:
        if (reason := text_reason(key, value)) is None:
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
    """What is known of N tags, the labelled ones first: blocks text, geometry, shape and words, (N, columns) each.

    A tag that no vocabulary counts gets the geometry of its key's other tags, or else the mean of all in those columns:
    then its words decide. Standardisation is that of the labelled ones.
    """
    keys = _key_geometry(statistics)
    unknown = [math.nan] * (len(KINDS) + 4)
    geometry = np.array([_geometry(tag, statistics) or keys.get(tag[0], unknown) for tag in tags], np.float64)
    shape = np.array([_shape(tag, statistics) for tag in tags], np.float64)
    none = [*([0.0] * len(lexicon()[1])), math.nan, 1.0]
    words = np.array([_words(value) or _words(key) or none for key, value in tags], np.float64)
    blocks = {
        "text": np.asarray(encode([tag_text(*tag) for tag in tags]), np.float64),
        "geometry": _standardised(geometry.reshape(len(tags), -1), labelled),
        "shape": _standardised(shape.reshape(len(tags), -1), labelled),
        "words": _filled(words.reshape(len(tags), -1), labelled)[0],
    }
    return {name: _scaled(block, labelled) for name, block in blocks.items()}


def _geometry(tag: Tag, statistics: TagStatistics) -> list[float] | None:
    """Shares of kinds, logarithms of the count and of the sides, whether these are missing; None: not counted."""
    kinds = statistics.kinds.get(tag)
    if kinds is None:
        return None
    sides = statistics.sides_m.get(tag)
    logs = [math.nan, math.nan] if sides is None else [math.log(side) for side in sides]
    return [*(n / sum(kinds) for n in kinds), math.log(sum(kinds)), *logs, float(sides is None)]


def _key_geometry(statistics: TagStatistics) -> dict[str, list[float]]:
    """The mean geometry of each key's tags; NaN where none of them has a size."""
    rows: dict[str, list[list[float]]] = {}
    for tag in statistics.kinds:
        rows.setdefault(tag[0], []).append(_geometry(tag, statistics) or [])
    return {key: np.ma.masked_invalid(found).mean(axis=0).filled(math.nan).tolist() for key, found in rows.items()}


@lru_cache(maxsize=1)
def lexicon() -> tuple[Mapping[str, tuple[str, float]], tuple[str, ...]]:
    """Kind and size (NaN: not seen) of each word of the packaged list, and its kinds, sorted."""
    with WORDS_FILE.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    words = {row["word"]: (row["kind"], float(row["size_m"] or "nan")) for row in rows}
    return words, tuple(sorted({kind for kind, _ in words.values()}))


def _words(text: str) -> list[float] | None:
    """Shares of the kinds that the words of a key or value name, and the mean logarithm of the sizes; None: no word."""
    known_words, kinds = lexicon()
    words = _WORD.findall(text.lower().replace("_", " "))
    found: list[tuple[str, float]] = []
    while words:
        for n in range(min(_LONGEST_PHRASE, len(words)), 0, -1):
            phrase = "_".join(words[:n])
            if known := known_words.get(phrase) or known_words.get(phrase.rstrip("s")) or known_words.get(f"{phrase}s"):
                found.append(known)
                break
        words = words[n:]
    if not found:
        return None
    logs = [math.log(size) for _, size in found if not math.isnan(size)]
    shares = [sum(kind == name for name, _ in found) / len(found) for kind in kinds]
    return [*shares, sum(logs) / len(logs) if logs else math.nan, 0.0]


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


def _filled(block: NDArray[np.float64], labelled: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Columns of mean zero on the labelled rows, what is not known being the mean, and their deviations there."""
    known = np.ma.masked_invalid(block[:labelled])
    mean, deviation = (found.filled(0.0) for found in (known.mean(axis=0), known.std(axis=0)))
    return np.where(np.isfinite(block), block - mean, 0.0), deviation


def _standardised(block: NDArray[np.float64], labelled: int) -> NDArray[np.float64]:
    """Columns of mean zero and deviation one on the labelled rows; what is not known becomes the mean."""
    filled, deviation = _filled(block, labelled)
    # A column in which the labelled rows are all alike teaches nothing.
    return np.asarray(filled / np.where(deviation > 0, deviation, np.inf))


def _scaled(block: NDArray[np.float64], labelled: int) -> NDArray[np.float64]:
    """The block in units of the root mean square distance between two labelled rows."""
    # The mean of |x - y|^2 over all pairs is twice the sum of the columns' variances.
    distance = math.sqrt(2.0 * float(block[:labelled].var(axis=0).sum())) if labelled else 0.0
    return block / distance if distance > 0 else block
