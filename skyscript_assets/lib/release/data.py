"""The pairs of a release: Parquet with images, a folder a source, which `datasets`, DuckDB and others read as it is."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from skyscript_assets.lib.captions.write import CAPTION_SCHEMA
from skyscript_assets.lib.chips.cut import CHIP_SCHEMA
from skyscript_assets.lib.chips.plan import PLAN_SCHEMA
from skyscript_assets.lib.errors import CorruptInputError
from skyscript_assets.lib.geometry import within_180
from skyscript_assets.lib.osm.objects import OBJECT_SCHEMA
from skyscript_assets.lib.pairs.export import ROWS_OF_GROUP, Sample, Selection, chosen, samples_of
from skyscript_assets.lib.pairs.scores import SCORE_SCHEMA
from skyscript_assets.lib.pairs.table import PartitionFolders
from skyscript_assets.lib.progress import Progress, silent
from skyscript_assets.lib.settings.base import STYLES
from skyscript_assets.lib.tables import fields

SPLIT_NAMES = {"train": "train", "val": "validation", "test": "test"}
"""Names of our splits among users of the hub."""

GROUP_BYTES, FILE_BYTES = 32 << 20, 450 << 20
"""Bytes of images after which a row group, and a file, ends: a viewer reads a group at a time."""

_OF = {"osm_version": "version", "osm_timestamp": "timestamp"}
DATA_SCHEMA = pa.schema(
    [
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("text", pa.string()),
        *(CAPTION_SCHEMA.field(name) for name in STYLES),
        ("tags", pa.list_(pa.string())),
        *(PLAN_SCHEMA.field(name) for name in ("chip_id", "region", "source", "split", "gsd_m", "width", "height")),
        *fields(pa.float64(), "lon", "lat"),
        ("bbox", pa.list_(pa.float64())),
        ("focus_box", pa.list_(pa.int32())),
        CHIP_SCHEMA.field("datetime"),
        PLAN_SCHEMA.field("object_id"),
        *(OBJECT_SCHEMA.field(name).with_name(own) for own, name in _OF.items()),
        *(PLAN_SCHEMA.field(name) for name in ("scene_id", "stratum", "cell")),
        *(SCORE_SCHEMA.field(name) for name in ("score", "scorer")),
        *(CHIP_SCHEMA.field(name) for name in ("sha256", "licence", "attribution", "synthetic")),
    ]
)
"""Columns of a release's pairs. `text` is a copy of one style, `tags` are `key=value`, `bbox` is west, south, east,
north in degrees, `lon` and `lat` its centre, `focus_box` x0, y0, x1, y1 in pixels, `sha256` that of the JPEG."""

_REMOVED_LINE = 200


def write_data(
    manifest: Path,
    partitions: Mapping[tuple[str, str], PartitionFolders],
    style: str,
    removed: frozenset[str],
    out: Path,
    progress: Progress = silent,
) -> int:
    """Write the eligible pairs as `data/{source}/{split}-{region}-{number}.parquet`, one partition in memory at a time.

    Files that an earlier, killed run has finished in the same folder are kept; it had the same inputs.

    Args:
        manifest: `manifest.parquet`.
        partitions: Folders by (region, source), those of objects among them.
        style: Style of the column `text`.
        removed: Ids of chips and objects that stay out.
        out: Existing folder.
        progress: Told of partitions.

    Returns:
        Pairs that are eligible and stay out.

    Raises:
        SkyScriptError: the licence of an image is unknown, or forbids to give it away.
        UpstreamMissingError, CorruptInputError, OutputSchemaError: as `samples_of` does.
    """
    rows, stay_out = chosen(manifest, Selection()), 0
    for done, ((region, source), folders) in enumerate(sorted(partitions.items()), start=1):
        mark = out / f".{region}.{source}.done"
        if not mark.exists():
            folder, left_out = out / "data" / source, 0
            folder.mkdir(parents=True, exist_ok=True)
            with ExitStack() as stack:
                files = {split: _Files(stack, folder, f"{name}-{region}") for split, name in SPLIT_NAMES.items()}
                for sample in samples_of(rows, {(region, source): folders}, Selection(style=style)):
                    if removed and not removed.isdisjoint((sample.name, sample.row["object_id"])):
                        left_out += 1
                    else:
                        files[sample.row["split"]].add(_row(sample))
                for each in files.values():
                    each.flush()
            mark.write_text(str(left_out), encoding="ascii")
        stay_out += int(mark.read_text(encoding="ascii"))
        progress(done, len(partitions), "partitions")
    for mark in out.glob(".*.done"):
        mark.unlink()
    for folder in (out / "data").glob("*"):
        if not any(folder.iterdir()):
            folder.rmdir()
    return stay_out


def _row(sample: Sample) -> dict[str, Any]:
    row, box = sample.row, [sample.row["bbox"][side] for side in ("xmin", "ymin", "xmax", "ymax")]
    return {name: row[_OF.get(name, name)] for name in DATA_SCHEMA.names if _OF.get(name, name) in row} | {
        "image": {"bytes": sample.image, "path": f"{sample.name}.jpg"},
        "text": sample.text,
        "tags": [f"{key}={one}" for key, value in row["center_tags"].items() for one in value.split(";")],
        "bbox": box,
        "lon": within_180(np.array((box[0] + box[2]) / 2)).item(),
        "lat": (box[1] + box[3]) / 2,
    }


def _feature(kind: pa.DataType) -> dict[str, Any]:
    """A type as `datasets` writes it into the metadata of a Parquet file."""
    if pa.types.is_list(kind):
        return {"_type": "Sequence", "feature": _feature(kind.value_type)}
    names = {"double": "float64", "timestamp[ms, tz=UTC]": "timestamp[ms, tz=UTC]"}
    return {"_type": "Value", "dtype": names.get(str(kind), str(kind))}


def _features() -> dict[str, Any]:
    return {field.name: {"_type": "Image"} if field.name == "image" else _feature(field.type) for field in DATA_SCHEMA}


class _Files:
    """The numbered files of one split, region and source."""

    def __init__(self, stack: ExitStack, folder: Path, name: str) -> None:
        self._stack, self._folder, self._name = stack, folder, name
        self._rows: list[dict[str, Any]] = []
        self._held = self._written = self._number = 0
        self._writer: pq.ParquetWriter | None = None

    def add(self, row: dict[str, Any]) -> None:
        self._rows.append(row)
        self._held += len(row["image"]["bytes"])
        if len(self._rows) == ROWS_OF_GROUP or self._held >= GROUP_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write the rows that are held as one group; the file ends where it is long enough."""
        if not self._rows:
            return
        if self._writer is None:
            told = {"huggingface": json.dumps({"info": {"features": _features()}})}
            path = self._folder / f"{self._name}-{self._number:05d}.parquet"
            packed = {name: "zstd" for name in _leaves() if name != "image.bytes"}
            writer = pq.ParquetWriter(
                path,
                DATA_SCHEMA.with_metadata(told),
                compression=packed | {"image.bytes": "none"},
                write_page_index=True,
            )
            self._writer, self._number = self._stack.enter_context(writer), self._number + 1
        self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._writer.schema))
        self._written += self._held
        self._rows, self._held = [], 0
        if self._written >= FILE_BYTES:
            self._writer.close()
            self._writer, self._written = None, 0


def _leaves() -> list[str]:
    """Names of Parquet's columns."""
    lists = [f"{field.name}.list.element" if pa.types.is_list(field.type) else field.name for field in DATA_SCHEMA]
    return ["image.bytes", "image.path", *lists[1:]]


def data_files(release: Path) -> list[Path]:
    """The Parquet files of a release's pairs, sorted."""
    return sorted((release / "data").glob("*/*.parquet"))


def read_removed(path: Path) -> frozenset[str]:
    """Ids of chips and objects, one a line; what follows `#` is a comment.

    Raises:
        CorruptInputError: it is no such file; the message names the line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CorruptInputError(f"{path} cannot be read as a list of ids ({error})") from error
    found = [line.partition("#")[0].strip() for line in lines]
    for number, one in enumerate(found, start=1):
        if len(one) > _REMOVED_LINE or any(character.isspace() or character in ",;" for character in one):
            raise CorruptInputError(f"{path}, line {number}: one id of a chip or object a line, not {one[:80]!r}")
    return frozenset(found) - {""}


def batches(release: Path, columns: list[str], rows: int = 8_192) -> Iterator[tuple[Path, pa.RecordBatch]]:
    """Columns of all pairs, some rows at a time, with the file that they are in."""
    for path in data_files(release):
        for batch in pq.ParquetFile(path).iter_batches(rows, columns=columns):
            yield path, batch
