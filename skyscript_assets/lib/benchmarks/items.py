"""Tables and descriptions that benchmarks and their scores are stored in, and how they are read back.

`benchmark_data` is `items.parquet` with the images inside and `benchmark.json`; `benchmark_scores` is `items.parquet`
with the class scores and `scores.json`. How either is made belongs to other modules.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import ValidationError

from skyscript_assets.lib.benchmarks.intervals import Figure, ScoredItems
from skyscript_assets.lib.errors import CorruptInputError, UpstreamMissingError
from skyscript_assets.lib.files import replacing, write_text
from skyscript_assets.lib.lookahead import in_order
from skyscript_assets.lib.pairs.leaks import FINGERPRINT_SCHEMA, FINGERPRINTS_FILE
from skyscript_assets.lib.pairs.thumbnails import fingerprint
from skyscript_assets.lib.progress import Progress, silent
from skyscript_assets.lib.settings.base import Model
from skyscript_assets.lib.settings.benchmarks import BenchmarkBase
from skyscript_assets.lib.tables import fields, read_table, rows_to_table, write_table

ITEMS_FILE = "items.parquet"
BENCHMARK_FILE = "benchmark.json"
SCORES_FILE = "scores.json"
CAPTIONS_FILE = "captions.parquet"

ITEM_SCHEMA = pa.schema(
    [
        ("item_id", pa.string()),
        ("image", pa.binary()),
        ("label", pa.string()),
        ("truth", pa.list_(pa.string())),
        *fields(pa.string(), "region", "source"),
        ("gsd_m", pa.float64()),
        *fields(pa.string(), "cell", "split"),
        *fields(pa.int32(), "width", "height"),
    ]
)
"""Columns of a benchmark's items; `image` holds the bytes of an image file (`lib.towers.images`)."""

CAPTIONS_SCHEMA = pa.schema(fields(pa.string(), "item_id", "caption"))
"""Which caption is true of which image, one row a pair, where a benchmark is one of captions."""

_SAME = ("item_id", "cell", "region", "source", "truth")
SCORE_SCHEMA = pa.schema([*map(ITEM_SCHEMA.field, _SAME), ("scores", pa.list_(pa.float32())), ("credit", pa.float64())])
"""Columns of scored items; `scores` in the order of the classes in `scores.json`, `credit` as in `ScoredItems`."""

ROWS_AT_ONCE = 512
"""Items held in memory while a table with images is written or read."""

IMAGES_AT_ONCE = 128
"""Images that are given to a tower together."""


class BenchmarkClass(Model):
    """A class: its name in the truth, and the words that stand for it in a prompt."""

    name: str
    text: str


class BenchmarkSpec(Model):
    """`benchmark.json`: everything that scoring needs and the items do not say."""

    schema_version: Literal[1] = 1
    kind: str
    title: str
    synthetic: bool
    statement: str
    licence: str
    classes: tuple[BenchmarkClass, ...]
    prompts: tuple[str, ...]
    window_px: int | None = None
    min_share: float | None = None
    split_zoom: int | None = None
    items: dict[str, int]
    images_digest: str
    """sha256 over ids, splits and images in order: equal digests have equal image features."""


class ClassScores(Model):
    """The figures of one class and its number of positive test items."""

    name: str
    text: str
    positives: int
    figures: dict[str, Figure]


class Scores(Model):
    """`scores.json`: the figures of one model on one benchmark."""

    schema_version: Literal[1] = 1
    benchmark: str
    title: str
    kind: str
    synthetic: bool
    recipe: str
    classification_protocol: str
    primary: str
    items: int
    train_items: int
    clusters: int
    clustered_by: Literal["cell", "item"]
    bootstrap_samples: int
    figures: dict[str, Figure]
    by_source: dict[str, Figure]
    notes: dict[str, float]
    retrieval_texts: int
    retrieval_images: int
    classes: tuple[ClassScores, ...]

    @property
    def first(self) -> Figure:
        """The figure that models are compared by."""
        return self.figures[self.primary]

    @property
    def without_images(self) -> tuple[str, ...]:
        """Classes that no test item shows: they have no figure, and can only draw items to themselves."""
        return tuple(cls.name for cls in self.classes if not cls.positives)

    @property
    def counts(self) -> dict[str, Any]:
        """What is told of a scoring: the figures, shares in 0..1, without those of single classes."""
        same = {"benchmark", "recipe", "synthetic", "items", "clusters", "primary", "classification_protocol"}
        told = self.model_dump(include=same) | {"classes_without_images": self.without_images}
        values = {name: figure.value for name, figure in self.figures.items()}
        return told | self.first.model_dump() | {"figures": values}


class ItemsWriter:
    """Writes items in batches and counts what passes through; made by `open_items`."""

    def __init__(self, writer: pq.ParquetWriter) -> None:
        self._writer = writer
        self._rows: list[Mapping[str, Any]] = []
        self._digest = hashlib.sha256()
        self._cells: dict[str, set[str]] = {}
        self.items: Counter[str] = Counter()
        self.positives: Counter[str] = Counter()

    def add(self, row: Mapping[str, Any]) -> None:
        """Add one item with every column of `ITEM_SCHEMA`."""
        self._rows.append(row)
        self._digest.update(f"{row['item_id']}\x1f{row['split']}\x1f{len(row['image'])}\x1f".encode())
        self._digest.update(row["image"])
        self.items[row["split"]] += 1
        if row["cell"] is not None:
            self._cells.setdefault(row["split"], set()).add(row["cell"])
        if row["split"] == "test":
            self.positives.update(row["truth"])
        if len(self._rows) == ROWS_AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """Write what was added so far."""
        if self._rows:
            self._writer.write_table(rows_to_table(self._rows, ITEM_SCHEMA), row_group_size=ROWS_AT_ONCE)
            self._rows.clear()

    def describe(self, benchmark: BenchmarkBase, out: Path, **told: Any) -> None:
        """Write `benchmark.json` from what was added, the benchmark's settings, and what neither of them says."""
        same = {name: getattr(benchmark, name) for name in ("kind", "title", "prompts")}
        same |= {"items": dict(sorted(self.items.items())), "images_digest": self._digest.hexdigest()}
        write_model(out / BENCHMARK_FILE, BenchmarkSpec(**same, **told))

    def summary(self, skipped: Mapping[str, int], synthetic: bool) -> dict[str, Any]:
        """What was written: items and cells by split, test items by class, and what was skipped, by reason."""
        return {
            "items": dict(sorted(self.items.items())),
            "cells": {split: len(cells) for split, cells in sorted(self._cells.items())},
            "positives": dict(sorted(self.positives.items())),
            "skipped": dict(sorted(skipped.items())),
            "synthetic": synthetic,
        }


@contextmanager
def open_items(out: Path) -> Iterator[ItemsWriter]:
    """Write `items.parquet` of a benchmark into a folder; it takes its name when the block ends without error."""
    with (
        replacing(out / ITEMS_FILE) as temporary,
        pq.ParquetWriter(temporary, ITEM_SCHEMA, compression="zstd") as writer,
    ):
        items = ItemsWriter(writer)
        yield items
        items.flush()


J = TypeVar("J", bound=Model)


def write_model(path: Path, model: Model) -> None:
    """Write a model as indented JSON."""
    write_text(path, model.model_dump_json(indent=1) + "\n")


def read_model(path: Path, model: type[J]) -> J:
    """Read what `write_model` wrote.

    Raises:
        UpstreamMissingError: it does not exist.
        CorruptInputError: it is broken.
    """
    try:
        return model.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise UpstreamMissingError(f"{path} does not exist: materialize its asset first") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "(top)"
        raise CorruptInputError(f"{path}: {where}: {first['msg']}; materialize its asset again") from None


def read_items(folder: Path) -> pa.Table:
    """The items of a benchmark without their images. Raises what `read_table` does."""
    columns = [name for name in ITEM_SCHEMA.names if name != "image"]
    return read_table(folder / ITEMS_FILE, ITEM_SCHEMA, columns)


def without_images(folder: Path) -> list[str]:
    """Names of the classes that no test item shows: of them no figure says anything. Raises what `read_items` does."""
    items = read_items(folder)
    shown = {name for row in items["truth"].filter(pc.equal(items["split"], "test")).to_pylist() for name in row}
    return [cls.name for cls in read_model(folder / BENCHMARK_FILE, BenchmarkSpec).classes if cls.name not in shown]


def iter_images(folder: Path, splits: Sequence[str]) -> Iterator[list[bytes]]:
    """Encoded images of some splits in the order of the table, in lists of bounded length."""
    with pq.ParquetFile(folder / ITEMS_FILE) as table:
        for batch in table.iter_batches(batch_size=IMAGES_AT_ONCE, columns=["image", "split"]):
            images = batch.filter(pc.is_in(batch["split"], pa.array(splits)))["image"].to_pylist()
            if images:
                yield images


def write_fingerprints(folder: Path, progress: Progress = silent) -> None:
    """Write `fingerprints.parquet`: what a benchmark's test images are known by, so that nothing is trained on them.

    Raises:
        CorruptInputError: an image cannot be decoded; and what `read_items` raises.
    """
    items = read_items(folder)
    ids = items.filter(pc.equal(items["split"], "test"))["item_id"].to_pylist()
    images = (image for images in iter_images(folder, ["test"]) for image in images)
    rows: list[dict[str, Any]] = []
    for known in in_order(lambda item: fingerprint(*item), zip(images, ids, strict=True), threads=2, ahead=64):
        rows.append({"item_id": ids[len(rows)], **known})
        if len(rows) % IMAGES_AT_ONCE == 0:
            progress(len(rows), len(ids), "fingerprints")
    write_table(folder / FINGERPRINTS_FILE, rows_to_table(rows, FINGERPRINT_SCHEMA))


def write_captions(out: Path, item_ids: Sequence[str], captions: Sequence[str]) -> None:
    """Write `captions.parquet`: row by row a caption and an item of which it is true."""
    write_table(out / CAPTIONS_FILE, pa.table([item_ids, captions], schema=CAPTIONS_SCHEMA))


def truth_matrix(truth: Sequence[Sequence[str]], classes: Sequence[str]) -> np.ndarray:
    """Lists of class names as [items, classes] of bool.

    Raises:
        CorruptInputError: a name is no class of the benchmark.
    """
    unknown = {name for names in truth for name in names} - set(classes)
    if unknown:
        raise CorruptInputError(f"items have the unknown class {min(unknown)!r}: materialize benchmark_data again")
    shown = [[name in names for name in classes] for names in truth]
    return np.array(shown, dtype=bool).reshape(len(truth), len(classes))


def write_scored(out: Path, items: pa.Table, scored: ScoredItems) -> None:
    """Write the scored items; `items` are the test rows of the benchmark, in the order of `scored`."""
    columns = {name: items[name] for name in _SAME}
    credit = [None] * len(items) if scored.credit is None else scored.credit
    table = pa.table(columns | {"scores": list(scored.scores), "credit": credit}, schema=SCORE_SCHEMA)
    write_table(out / ITEMS_FILE, table.combine_chunks())


def read_scored(folder: Path, classes: Sequence[str]) -> ScoredItems:
    """Read the scored items of a `benchmark_scores` folder; `classes` are in the order of the scores.

    Raises:
        CorruptInputError: the scores do not fit the classes; and what `read_table` raises.
    """
    table = read_table(folder / ITEMS_FILE, SCORE_SCHEMA)
    scores = table["scores"].to_pylist()
    if any(len(row) != len(classes) for row in scores):
        raise CorruptInputError(f"{folder / ITEMS_FILE}: scores do not fit the classes: materialize its asset again")
    item_ids = tuple(table["item_id"].to_pylist())
    credit = table["credit"].to_numpy(zero_copy_only=False) if table["credit"].null_count == 0 else None
    return ScoredItems(
        item_ids=item_ids,
        clusters=clusters_of(table),
        truth=truth_matrix(table["truth"].to_pylist(), classes),
        scores=np.array(scores, dtype=np.float32).reshape(len(item_ids), len(classes)),
        credit=credit,
    )


def clusters_of(items: pa.Table) -> tuple[str, ...]:
    """The bootstrap's cluster of each item: its cell, or its id where it has none."""
    return tuple(pc.coalesce(items["cell"], items["item_id"]).to_pylist())
