"""A selection of pairs as a folder in a format of others: to train, caption, generate, detect and segment with.

Whatever the format, `credits.json` tells whose images and text it holds, and under which licences; pairs of an unknown
licence stop it. A format is an entry of `FORMATS`.
"""

import csv
import json
import math
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import shapely
from PIL import Image, ImageDraw

from skyscript_assets.lib.captions.write import CAPTION_SCHEMA, CAPTIONS_FILE
from skyscript_assets.lib.errors import CorruptInputError, SkyScriptError, TooLittleDataError
from skyscript_assets.lib.files import claimed, write_json, write_text
from skyscript_assets.lib.geometry import SPLITS, unit_hash
from skyscript_assets.lib.pairs.images import Place, images_in
from skyscript_assets.lib.pairs.manifest import MANIFEST_SCHEMA
from skyscript_assets.lib.pairs.selection import SELECTED_BY, Selection
from skyscript_assets.lib.pairs.shards import facts_of, write_shards
from skyscript_assets.lib.pairs.table import PartitionFolders, read_pairs
from skyscript_assets.lib.progress import Progress, silent
from skyscript_assets.lib.settings.base import STYLES
from skyscript_assets.lib.settings.regions import OSM_ATTRIBUTION, OSM_LICENCE
from skyscript_assets.lib.tables import read_table

UNKNOWN = re.compile(r"(none|n/a|\?*)$|unknown", re.IGNORECASE)
"""How a licence or an owner begins where nobody knows it, as `skyscript init` writes it."""

FORBIDDING = re.compile(r"proprietary|all rights reserved|no[ -]?(derivatives?|redistribution)|\bnd\b", re.IGNORECASE)
"""Licences that forbid to give chips away: they are cut from an image, derivatives of it."""

PAIRS_OF_SHARD, ROWS_OF_GROUP = 1000, 1000
"""Pairs in a shard, and rows in a row group of Parquet."""

GROUP_BYTES = 32 << 20
"""Bytes of images after which a row group ends: a viewer reads a group at a time."""

IMAGE_TYPE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""An image as `datasets` holds it in Parquet."""

QUESTION = "<image>\nDescribe this aerial image."
"""What LLaVA's conversations ask of each image."""


class Sample(NamedTuple):
    """A pair: name without ending, caption, JPEG, and what all stages know of it."""

    name: str
    text: str
    image: bytes
    row: Mapping[str, Any]

    @property
    def picture(self) -> dict[str, Any]:
        """The image as `datasets` holds it."""
        return {"bytes": self.image, "path": f"{self.name}.jpg"}


def export(
    form: str,
    manifest: Path,
    partitions: Mapping[tuple[str, str], PartitionFolders],
    wanted: Selection,
    out: Path,
    progress: Progress = silent,
) -> dict[str, int]:
    """Write a selection as a folder, whole or not at all; pairs by split.

    `form` is a name of `FORMATS`; folders of partitions are by (region, source).

    Raises:
        StorageError, OutputBusyError: as `claimed` does.
        TooLittleDataError: no pair is wanted.
        SkyScriptError: a licence is unknown or forbids it.
        UpstreamMissingError, CorruptInputError, OutputSchemaError: as `read_pairs` and `Images.read` do.
    """
    rows = chosen(manifest, wanted)
    counts, owners = Counter[str](), Counter[tuple[str, str, str]]()

    def told(samples: Iterable[Sample]) -> Iterator[Sample]:
        for sample in samples:
            row = sample.row
            counts[row["split"]] += 1
            owners[row["source"], row["attribution"], row["licence"]] += 1
            yield sample
            progress(counts.total(), rows.num_rows, "pairs")

    with claimed(out) as folder:
        FORMATS[form](told(samples_of(rows, partitions, wanted)), folder)
        if not counts:
            raise TooLittleDataError("no pair of the manifest is wanted: ask for more splits, regions or tags")
        write_credits(folder, ((*owner, n) for owner, n in sorted(owners.items())))
    return {split: counts[split] for split in SPLITS if counts[split]}


def write_credits(folder: Path, owners: Iterable[tuple[str, str, str, int]]) -> None:
    """Write `credits.json`: source, attribution, licence and number of images of each owner; whose the text is."""
    names = ("source", "attribution", "licence", "images")
    images = [dict(zip(names, owner, strict=True)) for owner in owners]
    text = {"attribution": OSM_ATTRIBUTION, "licence": OSM_LICENCE}
    write_json(folder / "credits.json", {"images": images, "captions and geometry": text})


def check_licence(row: Mapping[str, Any]) -> None:
    """Refuse an image that cannot be given away, by its source, licence and attribution.

    Raises:
        SkyScriptError: one of them is unknown, or the licence forbids it.
    """
    unknown = [name for name in ("licence", "attribution") if UNKNOWN.match(row[name].strip())]
    if unknown or FORBIDDING.search(row["licence"]):
        name = (*unknown, "licence")[0]
        raise SkyScriptError(
            f"source {row['source']}: its {name} is {row[name]!r}, so what is made of its images cannot be given away; "
            f"state the {name} in sources.yaml, or leave the source out"
        )


def chosen(manifest: Path, wanted: Selection) -> pa.Table:
    """Rows of the manifest that are wanted by what it knows."""
    rows = read_table(manifest, MANIFEST_SCHEMA, ["chip_id", "image_sha256", *SELECTED_BY])
    return rows.filter(wanted.of_manifest(rows))


def samples_of(
    rows: pa.Table, partitions: Mapping[tuple[str, str], PartitionFolders], wanted: Selection
) -> Iterator[Sample]:
    """The wanted pairs among rows of the manifest, partition by partition, in the order of their plans.

    Raises:
        SkyScriptError: the licence of one is unknown, or forbids to give its image away.
        CorruptInputError: the image of one is not that of the manifest; and as `read_pairs` and `Images.read` do.
        UpstreamMissingError, OutputSchemaError: as `read_pairs` does.
    """
    for (region, source), folders in sorted(partitions.items()):
        mine = rows.filter(pc.and_(pc.equal(rows["region"], region), pc.equal(rows["source"], source)))
        if not mine.num_rows:
            continue
        pairs = read_pairs(folders).drop_columns("statements")
        listed = pc.index_in(pairs["chip_id"], value_set=mine["chip_id"].combine_chunks())
        other = pairs.filter(pc.not_equal(mine["image_sha256"].take(listed), pairs["sha256"]))
        if other.num_rows:
            raise CorruptInputError(
                f"{folders.chips}: {other.num_rows} images, such as {other['chip_id'][0]}, were made again since the "
                "manifest was: skyscript run training_manifest"
            )
        pairs = pairs.filter(pc.and_(listed.is_valid(), wanted.of_pairs(pairs)))
        regions = read_table(folders.captions / CAPTIONS_FILE, CAPTION_SCHEMA, ["chip_id", "regions"])
        places = pc.index_in(pairs["chip_id"], value_set=regions["chip_id"])
        pairs = pairs.append_column("regions", regions["regions"].take(places))
        images = images_in(folders.chips)
        for batch in pairs.to_batches(ROWS_OF_GROUP):
            for row in batch.to_pylist(maps_as_pydicts="strict"):
                check_licence(row)
                text = wanted.prefix + row[wanted.style]
                yield Sample(row["chip_id"], text, images.read(Place.of(row)), row)


def _image(sample: Sample, out: Path, folder: str = "images") -> str:
    """Write an image; its path below the folder."""
    path = f"{folder}/{sample.name}.jpg"
    (out / folder).mkdir(exist_ok=True)
    (out / path).write_bytes(sample.image)
    return path


def _webdataset(samples: Iterable[Sample], out: Path) -> None:
    """Shards of image, text and json, as `caption_shards` has them, with `sizes.json` for open_clip's loader."""
    pairs = ((sample.row, sample.image, sample.text) for sample in samples)
    deque(write_shards(pairs, out, lambda _, nth: nth // PAIRS_OF_SHARD), maxlen=0)


def _skyscript(samples: Iterable[Sample], out: Path) -> None:
    """SkyScript's CSVs: one a split, of images named by object, source and year."""
    named = Counter[str]()
    with ExitStack() as stack:
        files: dict[str, Any] = {}
        for sample in samples:
            row, split = sample.row, sample.row["split"]
            name = f"{row['object_id']}_{row['source']}_{row['datetime']:%y}"
            named[name] += 1
            path = _image(sample._replace(name=name if named[name] == 1 else f"{name}_{named[name]}"), out)
            if split not in files:
                file = stack.enter_context((out / f"{split}.csv").open("w", encoding="utf-8", newline=""))
                files[split] = csv.writer(file)
                files[split].writerow(("filepath", "title", "title_multi_objects", "caption"))
            files[split].writerow((path, row["title"], row["title_multi_objects"], sample.text))


class PairFiles:
    """Parquet files with images, as `datasets` reads them, of rows that are added; the stack closes the last one.

    `schema` begins with the image; `name` has a place for the number; the next file begins after `file_bytes` of
    images.
    """

    def __init__(
        self, stack: ExitStack, schema: pa.Schema, folder: Path, name: str, file_bytes: float = math.inf
    ) -> None:
        features = {field.name: _feature(field.type) for field in schema}
        told = {"huggingface": json.dumps({"info": {"features": features}})}
        self._stack, self._schema, self._folder, self._name = stack, schema.with_metadata(told), folder, name
        self._most, self._rows, self._held, self._number = file_bytes, list[Mapping[str, Any]](), 0, 0
        self._writer: pq.ParquetWriter | None = None

    def add(self, row: Mapping[str, Any]) -> None:
        """Add a row; it is written with those of its group."""
        self._rows.append(row)
        self._held += len(row["image"]["bytes"])
        if len(self._rows) == ROWS_OF_GROUP or self._held >= GROUP_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write the rows that are held as a group."""
        if not self._rows:
            return
        if self._writer is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            path = self._folder / self._name.format(self._number)
            writer = pq.ParquetWriter(path, self._schema, compression="zstd", write_page_index=True)
            self._writer, self._written, self._number = self._stack.enter_context(writer), 0, self._number + 1
        self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
        self._written += self._held
        self._rows, self._held = [], 0
        if self._written >= self._most:
            self._writer.close()
            self._writer = None


def _feature(kind: pa.DataType) -> dict[str, Any]:
    """A type as `datasets` writes it into the metadata of a Parquet file."""
    if kind == IMAGE_TYPE:
        return {"_type": "Image"}
    if pa.types.is_list(kind):
        return {"_type": "Sequence", "feature": _feature(kind.value_type)}
    return {"_type": "Value", "dtype": str(kind).replace("double", "float64")}


def _parquet(samples: Iterable[Sample], out: Path) -> None:
    """Parquet with images, as `datasets` reads it: one file a split."""
    schema = pa.schema([("image", IMAGE_TYPE), ("text", pa.string()), ("facts", pa.string())])
    with ExitStack() as stack:
        files = {split: PairFiles(stack, schema, out, f"{split}.parquet") for split in SPLITS}
        for sample in samples:
            facts = json.dumps(facts_of(sample.row), ensure_ascii=False)
            files[sample.row["split"]].add({"image": sample.picture, "text": sample.text, "facts": facts})
        for each in files.values():
            each.flush()


def _imagefolder(samples: Iterable[Sample], out: Path) -> None:
    """A folder a split with `metadata.jsonl`, as `datasets` and trainers of text-to-image read it.

    Beside each image, for models that are led by one, lies a drawing of what the map has there: a colour a class, which
    `classes.json` names; black is where captions speak of nothing.
    """
    colours: dict[str, tuple[int, int, int]] = {}
    with ExitStack() as stack:
        files: dict[str, Any] = {}
        for sample in samples:
            split = sample.row["split"]
            path = _image(sample, out, split)
            if split not in files:
                files[split] = stack.enter_context((out / split / "metadata.jsonl").open("w", encoding="utf-8"))
            drawing = f"conditioning/{sample.name}.png"
            (out / split / "conditioning").mkdir(exist_ok=True)
            _drawn(sample.row, colours).save(out / split / drawing)
            names = {"file_name": Path(path).name, "conditioning_file_name": drawing}
            known = {**names, "text": sample.text, "gsd_m": sample.row["gsd_m"]}
            files[split].write(json.dumps(known, ensure_ascii=False) + "\n")
    write_json(out / "classes.json", colours)


def _drawn(row: Mapping[str, Any], colours: dict[str, tuple[int, int, int]]) -> Image.Image:
    """The regions of a chip in its frame, the larger ones first, without holes; `colours` by class is added to."""
    image = Image.new("RGB", (row["width"], row["height"]))
    pen = ImageDraw.Draw(image)
    shapes = [(_class_of(one), shapely.from_wkb(one["geometry"])) for one in row["regions"] if one["geometry"]]
    for name, shape in sorted(shapes, key=lambda pair: -shapely.area(pair[1])):
        bright = (int(96 + 160 * unit_hash("colour", name, band)) for band in "rgb")
        colour = colours.setdefault(name, tuple(bright))  # type: ignore[arg-type]
        for part in shapely.get_parts(shape):
            if part.geom_type == "Polygon":
                pen.polygon(list(part.exterior.coords), fill=colour)
            elif part.geom_type == "LineString":
                pen.line(list(part.coords), fill=colour, width=3)
            else:
                pen.circle((part.x, part.y), 3, fill=colour)
    return image


def _llava(samples: Iterable[Sample], out: Path) -> None:
    """LLaVA's conversations: one JSON a split."""
    talks: dict[str, list[dict[str, Any]]] = {}
    for sample in samples:
        said = [{"from": "human", "value": QUESTION}, {"from": "gpt", "value": sample.text}]
        talk = {"id": sample.name, "image": _image(sample, out), "conversations": said}
        talks.setdefault(sample.row["split"], []).append(talk)
    for split, found in talks.items():
        write_text(out / f"{split}.json", json.dumps(found, ensure_ascii=False))


def _coco(samples: Iterable[Sample], out: Path, *, captions: bool) -> None:
    """COCO's JSON, one a split: captions of all styles, or boxes and polygons of areas with what they are."""
    splits: dict[str, dict[str, list[dict[str, Any]]]] = {}
    categories: dict[str, int] = {}
    for number, sample in enumerate(samples, start=1):
        row = sample.row
        told = splits.setdefault(row["split"], {"images": [], "annotations": []})
        size = {name: row[name] for name in ("width", "height")}
        told["images"].append({"id": number, "file_name": _image(sample, out), **size})
        spoken = ({"caption": row[style]} for style in STYLES)
        found = spoken if captions else _annotations(row["regions"], categories)
        start = len(told["annotations"]) + 1
        told["annotations"] += [{"id": i, "image_id": number, **one} for i, one in enumerate(found, start)]
    name = "captions" if captions else "instances"
    for split, told in splits.items():
        if not captions:
            told["categories"] = [{"id": n, "name": kind} for kind, n in categories.items()]
        write_text(out / f"{name}_{split}.json", json.dumps(told, ensure_ascii=False))


def _class_of(region: Mapping[str, Any]) -> str:
    """What a region is, without its attributes."""
    return str(region["phrase"].split(" with ")[0])


def _annotations(regions: Iterable[Mapping[str, Any]], categories: dict[str, int]) -> Iterator[dict[str, Any]]:
    """The areas among regions; holes are not in COCO's polygons, their area is taken off."""
    for region in regions:
        shape = shapely.from_wkb(region["geometry"])
        if shape is None or shape.area == 0:
            continue
        name = _class_of(region)
        x0, y0, x1, y1 = shape.bounds
        parts = [part for part in shapely.get_parts(shape) if part.area > 0]
        outlines = [shapely.get_coordinates(part.exterior).round(2).ravel().tolist() for part in parts]
        yield {
            "category_id": categories.setdefault(name, len(categories) + 1),
            "bbox": [round(side, 2) for side in (x0, y0, x1 - x0, y1 - y0)],
            "area": round(shape.area, 2),
            "iscrowd": 0,
            "segmentation": outlines,
            "object_id": region["object_id"],
        }


FORMATS: Mapping[str, Callable[[Iterable[Sample], Path], None]] = {
    "webdataset": _webdataset,
    "skyscript": _skyscript,
    "parquet": _parquet,
    "imagefolder": _imagefolder,
    "llava": _llava,
    "coco": lambda samples, out: _coco(samples, out, captions=False),
    "coco-captions": lambda samples, out: _coco(samples, out, captions=True),
}
"""How each format is written."""
