"""How often each tag occurs, by region and kind, how large its objects are, how many suit a chip, which come together.

The files, their columns and the size rule are told here; the counting itself, DuckDB's, is in `counting`.
"""

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from skyscript_assets.lib.errors import CorruptInputError
from skyscript_assets.lib.osm.sight import SIGHT_SCHEMA
from skyscript_assets.lib.progress import Progress, silent
from skyscript_assets.lib.settings.plant import SizeSettings
from skyscript_assets.lib.tables import check_table, fields, read_table, write_table
from skyscript_assets.lib.tags.counting import KINDS, DistinctTags, TagCounter
from skyscript_assets.lib.tags.text import class_mask, tag_texts, text_reason

VOCABULARY_FILE = "vocabulary.parquet"
VOCABULARY_SCHEMA = pa.schema(
    [
        *fields(pa.string(), "key", "value", "text", "region", "kind"),
        *fields(pa.int64(), "n", "n_plannable"),
        ("rare", pa.bool_()),
        *fields(pa.float64(), "longer_side_m", "shorter_side_m"),
    ]
)
"""Columns of `vocabulary.parquet`, sorted by key, value, region, kind.

Values are normal ones (`normalise.normal_values`): an object with `sport=tennis;soccer` counts for either, once.
`n_plannable` counts objects whose size suits a chip at one of the GSDs at least. `rare` tags are on few objects, all
regions and kinds together. The sides are those of the objects' boxes in metres: medians of one decimal, the lower one
of an even number; null for nodes and for tags that are text."""

PLANNABLE_FILE = "plannable.parquet"
PLANNABLE_SCHEMA = pa.schema(
    [*fields(pa.string(), "key", "value", "region"), ("gsd_m", pa.float64()), ("n", pa.int64())]
)
"""Columns of `plannable.parquet`, sorted by key, value, region, gsd_m: objects whose size suits a chip at that GSD;
rows with none are left out."""

COOCCURRENCE_FILE = "cooccurrence.parquet"
COOCCURRENCE_SCHEMA = pa.schema(
    [*fields(pa.string(), "key", "value", "other_key", "other_value"), ("share", pa.float64())]
)
"""Columns of `cooccurrence.parquet`, sorted by key, value, falling share, other_key, other_value: the tags that are
most often on the same objects, and the share of the tag's objects that carry them. Neither tag is text."""

RARE_BELOW = 5
"""Tags on fewer objects are rare, unless the caller says otherwise."""

MEMORY_LIMIT, THREADS = "2GB", 2
"""What DuckDB may hold, beyond which it spills to a temporary folder, and its threads."""

PLOTTED_TAGS = 30


def limits_px(kind: str, chips: SizeSettings) -> tuple[float, float]:
    """Least and greatest longer side in pixels of the objects of a kind (node, line, area) that suit a chip.

    Nodes have no size and always do. By the `focus` rule a line or an area needs `min_object_px` pixels along its
    longer side, and an area with its context must fit into `max_tile_px`. The `paper` rule asks lines for nothing, and
    areas for a box between `min_tile_px` and `max_tile_px` (SkyScript: a range of tile sizes).
    """
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
    progress: Progress = silent,
) -> dict[str, Any]:
    """Count the tags of all regions into `vocabulary.parquet`, `plannable.parquet` and `cooccurrence.parquet`.

    `objects` are `objects.parquet` of each region, GSDs the nominal ones of the sources, metres; tags on fewer objects
    than `rare_below` are marked rare.

    Returns:
        `objects` counted, by region, those in two regions in the first by name, and how many are such `shared_objects`;
            distinct `tags`, values in their normal spelling; of them `text_tags`: names, numbers and other text
            (`text.text_reason`), and of the others `rare_tags`; `occurrences` of tags on objects; `cooccurrences`: rows
            of that table; `plannable`: occurrences on objects whose size suits a chip, by GSD in metres.

    Raises what `open_counter` does.
    """
    gsds = sorted({float(gsd) for gsd in gsds_m})
    with open_counter(objects) as counter:
        vocabulary, counts, tags = count_tags(counter, gsds, chips, rare_below)
        progress(1, 2, "steps")
        together = counter.cooccurrences()
        per_region, shared = counter.objects()
    at_gsd = _plannable_rows(counts, gsds)
    write_table(out / VOCABULARY_FILE, vocabulary)
    write_table(out / PLANNABLE_FILE, at_gsd)
    write_table(out / COOCCURRENCE_FILE, together.cast(COOCCURRENCE_SCHEMA))
    progress(2, 2, "steps")
    return {
        "objects": per_region,
        "shared_objects": shared,
        "tags": len(tags.n),
        "text_tags": int(len(tags.n) - tags.classes.sum()),
        "rare_tags": int((tags.classes & (tags.n < rare_below)).sum()),
        "occurrences": int(tags.n.sum()),
        "cooccurrences": together.num_rows,
        "plannable": {
            f"{gsd:g}": int(pc.sum(at_gsd.filter(pc.equal(at_gsd["gsd_m"], gsd))["n"]).as_py() or 0) for gsd in gsds
        },
    }


@contextmanager
def open_counter(objects: Mapping[str, Path]) -> Iterator[TagCounter]:
    """A counter over `objects.parquet` of some regions, of bounded memory.

    Raises:
        UpstreamMissingError: a region's table does not exist.
        CorruptInputError: it is not a whole Parquet file.
        OutputSchemaError: it lacks a column.
    """
    for path in objects.values():
        check_table(path, SIGHT_SCHEMA)
    with tempfile.TemporaryDirectory(prefix="vocabulary-") as spill:
        config: dict[str, str | bool | int | float | list[str]] = {
            "threads": THREADS,
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


def count_tags(
    counter: TagCounter, gsds_m: Sequence[float], chips: SizeSettings, rare_below: int
) -> tuple[pa.Table, pa.Table, DistinctTags]:
    """Count and size the tags of all regions, at distinct GSDs in metres.

    The rows of `vocabulary.parquet`, with tags on fewer objects than `rare_below` marked rare, the counts at each GSD
    behind them, and their distinct tags.
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
    return vocabulary, counts, tags


def _plannable_rows(counts: pa.Table, gsds: Sequence[float]) -> pa.Table:
    """One row for each tag, region and GSD that has plannable objects."""
    region = counts["region"].combine_chunks().dictionary_encode().indices.to_numpy()
    first = np.flatnonzero(np.diff(counts["tag"].to_numpy(), prepend=-1) | np.diff(region, prepend=-1))
    sums = [np.add.reduceat(counts[f"p{i}"].to_numpy(), first) if len(first) else first for i in range(len(gsds))]
    n = np.stack(sums, axis=1) if sums else np.zeros((len(first), 0), np.int64)
    rows, columns = np.nonzero(n)
    table = counts.select(["key", "value", "region"]).take(first[rows])
    table = table.append_column("gsd_m", pa.array(np.array(gsds, np.float64)[columns]))
    return table.append_column("n", pa.array(n[rows, columns], pa.int64())).cast(PLANNABLE_SCHEMA).combine_chunks()


def _class_counts(vocabulary_folder: Path) -> Any:
    """The rows of `vocabulary.parquet` that are no text, as a data frame with `tag`, `key=value`."""
    table = read_table(vocabulary_folder / VOCABULARY_FILE, VOCABULARY_SCHEMA)
    table = table.filter(class_mask(table["key"].combine_chunks(), table["value"].combine_chunks()))
    tag = pc.binary_join_element_wise(table["key"], table["value"], "=")
    return table.append_column("tag", tag.cast(pa.string())).to_pandas()


def most_frequent_tags(vocabulary_folder: Path, limit: int = 20) -> pa.Table:
    """The most frequent tags of a vocabulary that are no text, at most `limit`, the most frequent first.

    Columns are tag, n and n_plannable (objects of all regions and kinds), and `rare_values_of_key`, the share of the
    key's values that are rare.
    """
    by_tag = _class_counts(vocabulary_folder).groupby(["key", "value", "tag"], as_index=False)
    tags = by_tag.agg({"n": "sum", "n_plannable": "sum", "rare": "any"})
    tags["rare_values_of_key"] = tags.groupby("key")["rare"].transform("mean").astype(float)
    tags = tags.sort_values("n", ascending=False, kind="stable").head(limit)
    return pa.Table.from_pandas(tags[["tag", "n", "n_plannable", "rare_values_of_key"]], preserve_index=False)


def text_tags_by_reason(vocabulary_folder: Path) -> pa.Table:
    """How many tags of a vocabulary are text, by the reason that `text.text_reason` gives, the most frequent one first.

    Columns are reason, tags (distinct ones) and n (their occurrences).
    """
    table = read_table(vocabulary_folder / VOCABULARY_FILE, columns=["key", "value", "n"])
    tags = table.group_by(["key", "value"]).aggregate([("n", "sum")])
    reasons = [text_reason(*tag) for tag in zip(tags["key"].to_pylist(), tags["value"].to_pylist(), strict=True)]
    found = tags.append_column("reason", pa.array(reasons, pa.string())).filter(pc.field("reason").is_valid())
    counts = found.group_by("reason").aggregate([("n_sum", "count"), ("n_sum", "sum")])
    return counts.rename_columns(["reason", "tags", "n"]).sort_by([("n", "descending"), ("reason", "ascending")])


def plot_tag_counts(vocabulary_folder: Path, png_path: Path) -> None:
    """Draw the most frequent tags that are no text, as bars stacked by region: a PNG of under 100 kB."""
    from matplotlib.figure import Figure

    counts = _class_counts(vocabulary_folder).pivot_table("n", "tag", "region", aggfunc="sum", fill_value=0)
    top = counts.loc[counts.sum(axis=1).nlargest(PLOTTED_TAGS).index]
    figure = Figure(figsize=(7.0, 1.0 + 0.2 * max(4, len(top))), dpi=90, layout="constrained")
    axes = figure.subplots()
    if len(top):
        top.plot.barh(stacked=True, width=0.8, ax=axes)
    axes.set(xlabel="objects", ylabel="", title=f"The {len(top)} most frequent tags" if len(top) else "No tags")
    axes.margins(y=0.01)
    axes.invert_yaxis()
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(png_path, metadata={"Software": None})
