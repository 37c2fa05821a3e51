"""Benchmarks of one's own: chips of test cells whose object stands in no training pair, as classes or for retrieval.

So SkyScript's authors made their classification set: by what is said of objects of which no image is trained on. What
cells, objects and sizes leave is reported, and the list of items can be frozen, so that a later benchmark of the same
name is the same images or is refused.
"""

import csv
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal

import pyarrow.compute as pc
from pydantic import Field

from skyscript_assets.lib.benchmarks.items import BenchmarkClass, open_items, write_captions
from skyscript_assets.lib.benchmarks.kind import BenchmarkKind, Inputs
from skyscript_assets.lib.captions.audit import read_verdicts
from skyscript_assets.lib.chips.plan import PLAN_FILE, PLAN_SCHEMA
from skyscript_assets.lib.errors import CorruptInputError, TooLittleDataError
from skyscript_assets.lib.files import file_stamp
from skyscript_assets.lib.geometry import unit_hash
from skyscript_assets.lib.pairs.images import Place, images_in
from skyscript_assets.lib.pairs.table import MADE_OF, partition_folders, read_pairs
from skyscript_assets.lib.progress import Progress, silent
from skyscript_assets.lib.settings.base import CAPTION_PREFIX, CaptionStyle, Shared, SourceKey
from skyscript_assets.lib.settings.benchmarks import BenchmarkBase
from skyscript_assets.lib.tables import read_table

FROZEN_FILE = "frozen.csv"
FROZEN_COLUMNS = ("item_id", "label", "sha256")

STATEMENT = (
    "Chips of held-out cells, with what OpenStreetMap says of their object: the map may be wrong or late, and what it "
    "says was chosen as captions are."
)


class OwnBenchmark(BenchmarkBase):
    """What both kinds state: of which chips they are made."""

    sources: tuple[SourceKey, ...] = Field(min_length=1, description="Sources whose chips are shown.")
    seed: int = Field(0, ge=0, description="Seed of the draws.")
    verdicts: tuple[str, ...] = Field(
        (), description="CSV files of `skyscript audit`: only chips of which every reader found a caption right."
    )
    frozen: str | None = Field(None, description="A `frozen.csv` of before: these very images, or none.")

    @property
    def cut_from(self) -> tuple[SourceKey, ...]:
        """The sources."""
        return self.sources


class HeldOutBenchmark(OwnBenchmark):
    """Which thing, or which value of a key, does a chip of a held-out object show?"""

    kind: Literal["held-out"] = "held-out"
    attribute: str | None = Field(None, description="Key whose values are told apart; default: what the things are.")
    per_class: int = Field(50, ge=1, description="Most chips of a class, drawn by hash.")
    min_per_class: int = Field(10, ge=1, description="Classes with fewer chips are left out.")


class HeldOutRetrieval(OwnBenchmark):
    """Which caption belongs to a chip of a held-out object, and which chip to a caption?"""

    kind: Literal["held-out-retrieval"] = "held-out-retrieval"
    style: CaptionStyle = Field("title_multi_objects", description="Style of the captions.")
    prefix: str = Field(CAPTION_PREFIX, description="Put before each caption.")
    items: int = Field(1000, ge=2, description="Most chips, drawn by hash.")


Held = HeldOutBenchmark | HeldOutRetrieval
Candidate = dict[str, Any]
"""A chip that may be shown: what `read_pairs` knows of it, its `label`, and the `images` of its folder."""


def build_held_out(
    benchmark: Held, shared: Shared, inputs: Inputs, out: Path, progress: Progress = silent
) -> dict[str, Any]:
    """Draw the chips, and write `items.parquet`, `benchmark.json`, `frozen.csv`, and `captions.parquet` for retrieval.

    `inputs` has the folders of chip_plan of all pairs of region and source, and of image_chips, captions and
    clip_scores of those of the benchmark's sources. Returns what it yields: candidates, those left out by reason,
    classes with too few chips, items.

    Raises:
        TooLittleDataError: fewer than two classes, or two chips, are left.
        CorruptInputError: verdicts or a frozen list cannot be read, or a frozen image is missing or has changed.
        UpstreamMissingError, OutputSchemaError: as `read_pairs` does.
    """
    left_out = Counter[str]()
    found = list(_candidates(benchmark, shared, inputs, left_out))
    few: dict[str, int] = {}
    if benchmark.frozen is not None:
        chosen = _frozen(shared.resolve(benchmark.frozen), found)
    else:
        chosen, few = _drawn(benchmark, found)
    classes = sorted({one["label"] for one in chosen}) if isinstance(benchmark, HeldOutBenchmark) else []
    if len(chosen) < 2 or len(classes) == 1:
        raise TooLittleDataError(
            f"benchmark {benchmark.title!r}: {len(found)} chips of held-out objects give {len(classes)} classes and "
            f"{len(chosen)} items; left out: {dict(left_out)}; too few: {few}. Take more sources, a lower "
            "min_per_class or larger regions"
        )
    with open_items(out) as items:
        for done, one in enumerate(chosen, start=1):
            items.add(_item(one, classes))
            progress(done, len(chosen), "chips")
    synthetic = any(one["synthetic"] for one in chosen)
    items.describe(
        benchmark,
        out,
        synthetic=synthetic,
        statement=STATEMENT,
        licence=" and ".join(sorted({one["licence"] for one in chosen})),
        classes=tuple(BenchmarkClass(name=label, text=label) for label in classes),
        split_zoom=shared.zoom,
    )
    lines = [FROZEN_COLUMNS, *((one["chip_id"], one["label"], one["sha256"]) for one in chosen)]
    with (out / FROZEN_FILE).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(lines)
    if not classes:
        write_captions(out, [one["chip_id"] for one in chosen], [one["label"] for one in chosen])
    counts = {"candidates": len(found), "classes": len(classes), "too few": few}
    return items.summary(left_out, synthetic=synthetic) | counts


def _candidates(benchmark: Held, shared: Shared, inputs: Inputs, left_out: Counter[str]) -> Iterator[Candidate]:
    """Chips of test cells with a label, by partition and plan; `left_out` counts the others."""
    verified = _verified(benchmark, shared)
    trained = _trained(inputs["chip_plan"])
    for _, folders in sorted(partition_folders(inputs.__getitem__).items()):
        pairs, images = read_pairs(folders), images_in(folders.chips)
        pairs = pairs.filter(pc.equal(pairs["split"], "test"))
        seen: set[str] = set()
        for row in sorted(pairs.to_pylist(maps_as_pydicts="strict"), key=lambda row: unit_hash(row["chip_id"])):
            label = _label(benchmark, row)
            if row["object_id"] in trained:
                left_out["its object is in a training pair"] += 1
            elif verified is not None and row["chip_id"] not in verified:
                left_out["not verified"] += 1
            elif not label:
                left_out["nothing is said"] += 1
            elif row["object_id"] in seen:
                left_out["its object is shown"] += 1
            else:
                seen.add(row["object_id"])
                yield row | {"label": label, "images": images}


def _label(benchmark: Held, row: Mapping[str, Any]) -> str:
    """The class or caption of a chip; empty: it has none, or several."""
    if isinstance(benchmark, HeldOutRetrieval):
        return benchmark.prefix + row[benchmark.style] if row[benchmark.style] else ""
    if benchmark.attribute is not None:
        value = str(row["center_tags"].get(benchmark.attribute, ""))
        return "" if ";" in value or not value else f"{benchmark.attribute} of {value}".replace("_", " ")
    mains = {said["main"] for said in row["statements"] if said["focus"]}
    return str(*mains) if len(mains) == 1 else ""


def _trained(plans: Mapping[tuple[str, str], Path]) -> set[str]:
    """Objects of which a chip lies in train or val cells, whatever the source."""
    found: set[str] = set()
    for folder in plans.values():
        plan = read_table(folder / PLAN_FILE, PLAN_SCHEMA, ["object_id", "split"])
        found.update(plan["object_id"].filter(pc.not_equal(plan["split"], "test")).to_pylist())
    return found


def _verified(benchmark: OwnBenchmark, shared: Shared) -> set[str] | None:
    """Chips of which every verdict is right; None: nobody was asked."""
    if not benchmark.verdicts:
        return None
    verdicts = [one for name in benchmark.verdicts for one in read_verdicts(shared.resolve(name))]
    return {one.chip_id for one in verdicts} - {one.chip_id for one in verdicts if not one.right}


def _drawn(benchmark: Held, found: Sequence[Candidate]) -> tuple[list[Candidate], dict[str, int]]:
    """What is drawn by hash, in the order of chip ids, and the classes that have too few chips."""
    order = sorted(found, key=lambda one: unit_hash("held-out", benchmark.seed, one["chip_id"]))
    if isinstance(benchmark, HeldOutRetrieval):
        return sorted(order[: benchmark.items], key=itemgetter("chip_id")), {}
    counts = sorted(Counter(one["label"] for one in found).items())
    few = {label: n for label, n in counts if n < benchmark.min_per_class}
    chosen = [
        one
        for label, _ in counts
        if label not in few
        for one in [one for one in order if one["label"] == label][: benchmark.per_class]
    ]
    return sorted(chosen, key=itemgetter("chip_id")), few


def _frozen(path: Path, found: Sequence[Candidate]) -> list[Candidate]:
    """The items of a frozen list, with its labels."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file)
            if tuple(rows.fieldnames or ()) != FROZEN_COLUMNS:
                raise CorruptInputError(f"{path}: its columns are not {','.join(FROZEN_COLUMNS)}")
            listed = list(rows)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CorruptInputError(f"{path} cannot be read as a frozen list ({error})") from error
    known = {(one["chip_id"], one["sha256"]): one for one in found}
    changed = [row["item_id"] for row in listed if (row["item_id"], row["sha256"]) not in known]
    if changed:
        raise CorruptInputError(
            f"{path}: {len(changed)} of {len(listed)} frozen images are missing or have changed, such as "
            f"{', '.join(changed[:3])}: make the chips as they were, or freeze a new version"
        )
    return [known[row["item_id"], row["sha256"]] | {"label": row["label"]} for row in listed]


def _item(one: Candidate, classes: Sequence[str]) -> dict[str, Any]:
    same = ("region", "source", "gsd_m", "cell", "split", "width", "height")
    label = one["label"] if classes else None
    told = {"item_id": one["chip_id"], "label": label, "truth": [label] if label else []}
    return {name: one[name] for name in same} | told | {"image": one["images"].read(Place.of(one))}


def _reads(benchmark: OwnBenchmark, shared: Shared) -> dict[str, Any]:
    """Stamps of verdicts and of a frozen list."""
    names = [*benchmark.verdicts, *([] if benchmark.frozen is None else [benchmark.frozen])]
    return {"files": [file_stamp(shared.resolve(name)) for name in names], "zoom": shared.zoom}


KIND = BenchmarkKind(settings=HeldOutBenchmark, reads=_reads, build=build_held_out, made_of=MADE_OF, labels="one")

RETRIEVAL = BenchmarkKind(
    settings=HeldOutRetrieval, reads=_reads, build=build_held_out, made_of=MADE_OF, labels="captions"
)
