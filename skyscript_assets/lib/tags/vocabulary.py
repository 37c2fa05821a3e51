"""How often each tag occurs, by region and kind, how large its objects are, how many suit a chip, which come together.

The files, their columns and the size rule are told here; the counting itself, DuckDB's, is in `counting`. The size rule
is told twice, as SQL there and as `plannable` for the planner; a test holds the two against each other.
"""

from __future__ import annotations

import math
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from skyscript_assets.lib.errors import CorruptInputError, OutputSchemaError, UpstreamMissingError
from skyscript_assets.lib.progress import Progress, silent
from skyscript_assets.lib.settings.plant import SizeSettings
from skyscript_assets.lib.tables import BBOX_TYPE, TAGS_TYPE, read_table, write_table
from skyscript_assets.lib.tags.counting import KINDS, DistinctTags, TagCounter, begins
from skyscript_assets.lib.tags.text import class_mask, tag_texts, text_reason

VOCABULARY_FILE = "vocabulary.parquet"
VOCABULARY_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("value", pa.string()),
        ("text", pa.string()),
        ("region", pa.string()),
        ("kind", pa.string()),
        ("n", pa.int64()),
        ("n_plannable", pa.int64()),
        ("rare", pa.bool_()),
        ("longer_side_m", pa.float64()),
        ("shorter_side_m", pa.float64()),
    ]
)
"""Columns of `vocabulary.parquet`, sorted by key, value, region, kind.

Values are normal ones (`normalise.normal_values`): an object with `sport=tennis;soccer` counts for either, once.
`n_plannable` counts objects whose size suits a chip at one of the GSDs at least. `rare` tags are on few objects, all
regions and kinds together. The sides are those of the objects' boxes in metres: medians of one decimal, the lower one
of an even number; null for nodes and for tags that are text."""

PLANNABLE_FILE = "plannable.parquet"
PLANNABLE_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("value", pa.string()),
        ("region", pa.string()),
        ("gsd_m", pa.float64()),
        ("n", pa.int64()),
    ]
)
"""Columns of `plannable.parquet`, sorted by key, value, region, gsd_m: objects whose size suits a chip at that GSD;
rows with none are left out."""

COOCCURRENCE_FILE = "cooccurrence.parquet"
COOCCURRENCE_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("value", pa.string()),
        ("other_key", pa.string()),
        ("other_value", pa.string()),
        ("share", pa.float64()),
    ]
)
"""Columns of `cooccurrence.parquet`, sorted by key, value, falling share, other_key, other_value: the tags that are
most often on the same objects, and the share of the tag's objects that carry them. Neither tag is text."""

RARE_BELOW = 5
"""Tags on fewer objects are rare, unless the caller says otherwise."""

MEMORY_LIMIT = "2GB"
"""What DuckDB may hold; beyond, it spills to a temporary folder."""

PLOTTED_TAGS = 30

_NEEDED_SCHEMA = pa.schema([("object_id", pa.string()), ("tags", TAGS_TYPE), ("bbox", BBOX_TYPE)])


@dataclass(frozen=True)
class VocabularySummary:
    """What `count_vocabulary` found.

    Attributes:
        objects: Objects counted, by region; an object in two regions counts in the first by name.
        shared_objects: Objects that lie in two regions or more.
        tags: Distinct key=value, values in their normal spelling.
        text_tags: Those among them that are names, numbers and other text (`text.text_reason`).
        rare_tags: Those among the others that are rare.
        occurrences: Tags on objects.
        cooccurrences: Rows of `cooccurrence.parquet`.
        plannable: Occurrences on objects whose size suits a chip, by GSD in metres.
    """

    objects: dict[str, int]
    shared_objects: int
    tags: int
    text_tags: int
    rare_tags: int
    occurrences: int
    cooccurrences: int
    plannable: dict[str, int]


def plannable(kind: str, longer_side_m: NDArray[np.float64], gsd_m: float, chips: SizeSettings) -> NDArray[np.bool_]:
    """Whether objects of a kind have a size that suits a chip at a GSD.

    Nodes have no size and always do. By the `focus` rule a line or an area needs `min_object_px` pixels along its
    longer side, and an area with its context must fit into `max_tile_px`. The `paper` rule asks
    lines for nothing, and areas for a box between `min_tile_px` and `max_tile_px` (SkyScript: a range of tile sizes).

    Args:
        kind: node, line or area.
        longer_side_m: Longer side of the objects' boxes in metres, any shape.
        gsd_m: Ground sample distance, metres.
        chips: Rule and limits.

    Returns:
        Booleans of the shape of `longer_side_m`.
    """
    least, most = limits_px(kind, chips)
    # The same products in the same order as in SQL, so that the two agree to the last bit.
    sides = np.asarray(longer_side_m, np.float64)
    return np.asarray((sides >= least * gsd_m) & (sides <= most * gsd_m), np.bool_)


def limits_px(kind: str, chips: SizeSettings) -> tuple[float, float]:
    """Least and greatest longer side in pixels of the objects of a kind."""
    paper = chips.rule == "paper"
    if kind == "node" or (kind == "line" and paper):
        return 0.0, math.inf
    if kind == "line":
        return float(chips.min_object_px), math.inf
    if paper:
        return float(chips.min_tile_px), float(chips.max_tile_px)
    return float(chips.min_object_px), chips.max_tile_px / chips.context


def count_vocabulary(
    objects: Mapping[str, Path],
    gsds_m: Sequence[float],
    chips: SizeSettings,
    out: Path,
    rare_below: int = RARE_BELOW,
    threads: int = 2,
    progress: Progress = silent,
) -> VocabularySummary:
    """Count the tags of all regions into `vocabulary.parquet`, `plannable.parquet` and `cooccurrence.parquet`.

    Args:
        objects: `objects.parquet` of each region.
        gsds_m: Nominal GSDs of the sources, metres.
        chips: Limits of an object's size.
        out: Existing folder that receives the files.
        rare_below: Tags on fewer objects are marked rare.
        threads: Threads of DuckDB.
        progress: Told when the counting and the tags that come together are done.

    Raises:
        UpstreamMissingError: a region's table does not exist.
        CorruptInputError: it is not a whole Parquet file.
        OutputSchemaError: it lacks a column.
    """
    gsds = sorted({float(gsd) for gsd in gsds_m})
    with open_counter(objects, threads) as counter:
        counted = count_tags(counter, gsds, chips, rare_below)
        progress(1, 2, "steps")
        company = counter.company()
        per_region, shared = counter.objects()
    at_gsd = _plannable_rows(counted.counts, gsds)
    write_table(out / VOCABULARY_FILE, counted.vocabulary)
    write_table(out / PLANNABLE_FILE, at_gsd)
    write_table(out / COOCCURRENCE_FILE, company.cast(COOCCURRENCE_SCHEMA))
    progress(2, 2, "steps")
    tags = counted.tags
    return VocabularySummary(
        objects=per_region,
        shared_objects=shared,
        tags=len(tags.n),
        text_tags=int(len(tags.n) - tags.classes.sum()),
        rare_tags=int((tags.classes & (tags.n < rare_below)).sum()),
        occurrences=int(tags.n.sum()),
        cooccurrences=company.num_rows,
        plannable={
            f"{gsd:g}": int(pc.sum(at_gsd.filter(pc.equal(at_gsd["gsd_m"], gsd))["n"]).as_py() or 0) for gsd in gsds
        },
    )


@contextmanager
def open_counter(objects: Mapping[str, Path], threads: int = 2) -> Iterator[TagCounter]:
    """A counter over the tables of regions, of bounded memory.

    Args:
        objects: `objects.parquet` of each region.
        threads: Threads of DuckDB.

    Raises:
        UpstreamMissingError: a region's table does not exist.
        CorruptInputError: it is not a whole Parquet file.
        OutputSchemaError: it lacks a column.
    """
    for path in objects.values():
        _check(path)
    with tempfile.TemporaryDirectory(prefix="vocabulary-") as spill:
        config: dict[str, str | bool | int | float | list[str]] = {
            "threads": threads,
            "memory_limit": MEMORY_LIMIT,
            "temp_directory": spill,
            # What comes out is sorted; keeping the order of what goes in would take memory and threads.
            "preserve_insertion_order": False,
        }
        try:
            with duckdb.connect(config=config) as db:
                yield TagCounter(db, objects)
        except duckdb.Error as error:
            names = ", ".join(str(objects[region]) for region in sorted(objects))
            raise CorruptInputError(f"the tables of objects cannot be counted ({error}); files: {names}") from error


@dataclass(frozen=True)
class Counted:
    """The rows of `vocabulary.parquet`, the counts at each GSD behind them, and their distinct tags."""

    vocabulary: pa.Table
    counts: pa.Table
    tags: DistinctTags


def count_tags(counter: TagCounter, gsds_m: Sequence[float], chips: SizeSettings, rare_below: int) -> Counted:
    """Count and size the tags of all regions: the rows of `vocabulary.parquet`.

    Args:
        counter: The objects.
        gsds_m: Distinct GSDs, metres.
        chips: Limits of an object's size.
        rare_below: Tags on fewer objects are marked rare.
    """
    limits = [limits_px(kind, chips) for kind in KINDS]
    counts = counter.counts([[(least * gsd, most * gsd) for least, most in limits] for gsd in gsds_m])
    tags = DistinctTags.of(counts)
    columns = {
        **{name: counts[name] for name in ("key", "value", "region", "kind", "n", "n_plannable")},
        "text": tag_texts(tags.keys, tags.values).take(tags.of_row),
        "rare": pa.array(tags.n < rare_below).take(tags.of_row),
        **counter.sizes(tags, counts["n"].to_numpy()),
    }
    vocabulary = pa.table([columns[name] for name in VOCABULARY_SCHEMA.names], VOCABULARY_SCHEMA)
    return Counted(vocabulary, counts, tags)


def _check(path: Path) -> None:
    if not path.is_file():
        raise UpstreamMissingError(f"{path} does not exist: materialize osm_objects first")
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise CorruptInputError(
            f"{path} is not a whole Parquet file ({error}); materialize osm_objects again"
        ) from error
    for field in _NEEDED_SCHEMA:
        found = schema.field(field.name).type if field.name in schema.names else None
        if found != field.type:
            raise OutputSchemaError(
                f"{path}: column {field.name} should be {field.type}, found {found}; materialize osm_objects again"
            )


def _plannable_rows(counts: pa.Table, gsds: Sequence[float]) -> pa.Table:
    """One row for each tag, region and GSD that has plannable objects."""
    first = np.flatnonzero(begins(counts, ("key", "value", "region")))
    sums = [np.add.reduceat(counts[f"p{i}"].to_numpy(), first) if len(first) else first for i in range(len(gsds))]
    n = np.stack(sums, axis=1) if sums else np.zeros((len(first), 0), np.int64)
    rows, columns = np.nonzero(n)
    table = counts.select(["key", "value", "region"]).take(first[rows])
    table = table.append_column("gsd_m", pa.array(np.array(gsds, np.float64)[columns]))
    return table.append_column("n", pa.array(n[rows, columns], pa.int64())).cast(PLANNABLE_SCHEMA).combine_chunks()


def _classes(table: pa.Table) -> pa.Table:
    """The rows of a vocabulary that are no text."""
    return table.filter(class_mask(table["key"].combine_chunks(), table["value"].combine_chunks()))


def most_frequent_tags(vocabulary_folder: Path, limit: int = 20) -> pa.Table:
    """The most frequent tags that are no text.

    Args:
        vocabulary_folder: Output of `count_vocabulary`.
        limit: Tags listed at most.

    Returns:
        tag, n and n_plannable (objects of all regions and kinds), and `rare_values_of_key`, the share of the key's
        values that are rare; the most frequent first.
    """
    table = _classes(read_table(vocabulary_folder / VOCABULARY_FILE, VOCABULARY_SCHEMA))
    tags = table.group_by(["key", "value"]).aggregate([("n", "sum"), ("n_plannable", "sum"), ("rare", "any")])
    keys = tags.group_by("key").aggregate([("rare_any", "mean")])
    rare = dict(zip(keys["key"].to_pylist(), keys["rare_any_mean"].to_pylist(), strict=True))
    order = [("n_sum", "descending"), ("key", "ascending"), ("value", "ascending")]
    rows = [
        {
            "tag": f"{row['key']}={row['value']}",
            "n": row["n_sum"],
            "n_plannable": row["n_plannable_sum"],
            "rare_values_of_key": rare[row["key"]],
        }
        for row in tags.sort_by(order).slice(0, limit).to_pylist()
    ]
    schema = {"tag": pa.string(), "n": pa.int64(), "n_plannable": pa.int64(), "rare_values_of_key": pa.float64()}
    return pa.Table.from_pylist(rows, pa.schema(schema))


def text_tags_by_reason(vocabulary_folder: Path) -> pa.Table:
    """How many tags are text, by the reason that `text.text_reason` gives.

    Args:
        vocabulary_folder: Output of `count_vocabulary`.

    Returns:
        reason, tags (distinct ones) and n (their occurrences), the most frequent reason first.
    """
    table = read_table(vocabulary_folder / VOCABULARY_FILE, columns=["key", "value", "n"])
    totals = table.group_by(["key", "value"]).aggregate([("n", "sum")])
    tags, occurrences = Counter[str](), Counter[str]()
    for key, value, n in zip(*(totals[name].to_pylist() for name in ("key", "value", "n_sum")), strict=True):
        reason = text_reason(key, value)
        if reason is not None:
            tags[reason] += 1
            occurrences[reason] += n
    reasons = sorted(occurrences, key=lambda reason: (-occurrences[reason], reason))
    columns = {"reason": pa.array(reasons, pa.string())}
    for name, counted in (("tags", tags), ("n", occurrences)):
        columns[name] = pa.array([counted[reason] for reason in reasons], pa.int64())
    return pa.table(columns)


def plot_tag_counts(vocabulary_folder: Path, png_path: Path) -> None:
    """Draw the most frequent tags that are no text, as bars stacked by region.

    Args:
        vocabulary_folder: Output of `count_vocabulary`.
        png_path: The picture, PNG of under 100 kB.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    table = _classes(read_table(vocabulary_folder / VOCABULARY_FILE, VOCABULARY_SCHEMA))
    by_region = table.group_by(["key", "value", "region"]).aggregate([("n", "sum")]).to_pylist()
    counts: dict[tuple[str, str], dict[str, int]] = {}
    for row in by_region:
        counts.setdefault((row["key"], row["value"]), {})[row["region"]] = row["n_sum"]
    top = sorted(counts, key=lambda tag: (-sum(counts[tag].values()), tag))[:PLOTTED_TAGS]
    names = [f"{key}={value}" for key, value in top]
    figure, axes = plt.subplots(figsize=(7.0, 1.0 + 0.2 * max(4, len(top))), dpi=90)
    left = np.zeros(len(top))
    for region in sorted({row["region"] for row in by_region}):
        widths = np.array([counts[tag].get(region, 0) for tag in top], float)
        axes.barh(names, widths, left=left, label=region)
        left += widths
    axes.margins(y=0.01)
    axes.invert_yaxis()
    axes.set_xlabel("objects")
    axes.set_title(f"The {len(top)} most frequent tags" if top else "No tags")
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    if by_region:
        axes.legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(png_path, metadata={"Software": None})
    plt.close(figure)
