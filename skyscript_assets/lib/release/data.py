"""The pairs of a release: Parquet with images, a folder a source, which `datasets`, DuckDB and others read as it is."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from skyscript_assets.lib.captions.write import CAPTION_SCHEMA
from skyscript_assets.lib.chips.cut import CHIP_SCHEMA
from skyscript_assets.lib.chips.plan import PLAN_SCHEMA
from skyscript_assets.lib.errors import CorruptInputError
from skyscript_assets.lib.files import write_text
from skyscript_assets.lib.geometry import within_180
from skyscript_assets.lib.osm.objects import OBJECT_SCHEMA
from skyscript_assets.lib.pairs.export import IMAGE_TYPE, PairFiles, Sample, chosen, samples_of
from skyscript_assets.lib.pairs.scores import SCORE_SCHEMA
from skyscript_assets.lib.pairs.selection import Selection
from skyscript_assets.lib.pairs.table import PartitionFolders
from skyscript_assets.lib.progress import Progress, silent
from skyscript_assets.lib.settings.base import STYLES, CaptionPolicy, Model
from skyscript_assets.lib.settings.load import GivenFile, Settings
from skyscript_assets.lib.settings.plant import ChipSettings, PlanSettings, ReleaseSettings
from skyscript_assets.lib.tables import fields

SUMS_FILE = "SHA256SUMS"

SPLIT_NAMES = {"train": "train", "val": "validation", "test": "test"}
"""Names of our splits among users of the hub."""

FILE_BYTES = 450 << 20
"""Bytes of images after which the next file begins."""

_OF = {"osm_version": "version", "osm_timestamp": "timestamp"}
DATA_SCHEMA = pa.schema(
    [
        ("image", IMAGE_TYPE),
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

DONE = ".*.done"
"""Marks of the partitions that are whole, for a run that goes on after a kill."""


class ReleaseConfig(Model):
    """What a release is made by: its settings, the files that these name, and what it says of how pairs were made."""

    settings: ReleaseSettings | None
    previous: GivenFile | None
    removed: GivenFile | None
    plan: PlanSettings
    zoom: int
    policy: CaptionPolicy
    chips: ChipSettings

    @classmethod
    def of(cls, profile: Settings) -> Self:
        """That of a profile; `settings` is None where it has no section `release`."""
        plant, own = profile.plant, profile.plant.release
        return cls(
            settings=own,
            previous=GivenFile.of(profile, "release.previous", f"{own.previous}/{SUMS_FILE}")
            if own and own.previous
            else None,
            removed=GivenFile.of(profile, "release.removed", own.removed) if own and own.removed else None,
            plan=plant.plan,
            zoom=plant.split.zoom,
            policy=plant.captions.policy,
            chips=plant.chips,
        )


@dataclass(frozen=True)
class ReleaseInputs:
    """What a release is made from: settings and configuration, and folders of outputs.

    `partitions`, folders of objects among them, and `scenes` (`scene_index`) are by (region, source); captions were
    written by the sampling `snapshot`; what the `leaks.parquet` of the manifest drops is shown.
    """

    settings: ReleaseSettings
    config: ReleaseConfig
    partitions: Mapping[tuple[str, str], PartitionFolders]
    scenes: Mapping[tuple[str, str], Path]
    snapshot: Path
    manifest: Path
    audit: Path


def write_data(inputs: ReleaseInputs, removed: frozenset[str], out: Path, progress: Progress = silent) -> int:
    """Write the eligible pairs as `data/{source}/{split}-{region}-{number}.parquet`, one partition in memory at a time.

    Partitions that a killed run with the same inputs has finished in the same folder are kept. Returns the eligible
    pairs whose chip or object is `removed`: they stay out. Raises what `samples_of` does.
    """
    rows, wanted = chosen(inputs.manifest / "manifest.parquet", Selection()), Selection(style=inputs.settings.style)
    stay_out = 0
    for done, ((region, source), folders) in enumerate(sorted(inputs.partitions.items()), start=1):
        mark = out / DONE.replace("*", f"{region}.{source}")
        if not mark.exists():
            samples = samples_of(rows, {(region, source): folders}, wanted)
            write_text(mark, str(write_rows(map(_row, samples), out / "data" / source, region, removed)))
        stay_out += int(mark.read_text(encoding="utf-8"))
        progress(done, len(inputs.partitions), "partitions")
    return stay_out


def write_rows(rows: Iterable[Mapping[str, Any]], folder: Path, region: str, removed: frozenset[str]) -> int:
    """Write the pairs of a partition, rows of `DATA_SCHEMA`; how many stay out."""
    left_out = 0
    with ExitStack() as stack:
        files = {
            split: PairFiles(stack, DATA_SCHEMA, folder, f"{name}-{region}-{{:05d}}.parquet", FILE_BYTES)
            for split, name in SPLIT_NAMES.items()
        }
        for row in rows:
            if removed.isdisjoint((row["chip_id"], row["object_id"])):
                files[row["split"]].add(row)
            else:
                left_out += 1
        for each in files.values():
            each.flush()
    return left_out


def _row(sample: Sample) -> dict[str, Any]:
    row, box = sample.row, [sample.row["bbox"][side] for side in ("xmin", "ymin", "xmax", "ymax")]
    return {name: row.get(_OF.get(name, name)) for name in DATA_SCHEMA.names} | {
        "image": sample.picture,
        "text": sample.text,
        "tags": shown_tags(row["center_tags"]),
        "bbox": box,
        "lon": within_180(np.array((box[0] + box[2]) / 2)).item(),
        "lat": (box[1] + box[3]) / 2,
    }


def shown_tags(center_tags: Mapping[str, str]) -> list[str]:
    """The tags of a focus object as `key=value`, each value of a list by itself."""
    return [f"{key}={one}" for key, value in center_tags.items() for one in value.split(";")]


def data_files(release: Path) -> list[Path]:
    """The Parquet files of a release's pairs, sorted."""
    return sorted((release / "data").glob("*/*.parquet"))


def batches(release: Path, columns: Sequence[str]) -> Iterator[tuple[str, pa.RecordBatch]]:
    """Columns of all pairs, some rows at a time, with the name of the file that they are in."""
    for path in data_files(release):
        for batch in pq.ParquetFile(path).iter_batches(8_192, columns=list(columns)):
            yield path.relative_to(release).as_posix(), batch


def read_removed(path: Path) -> frozenset[str]:
    """Ids of chips and objects, one a line; what follows `#` is a comment.

    Raises:
        CorruptInputError: it is no such file; the message names the line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CorruptInputError(f"{path} cannot be read as a list of ids ({error})") from error
    found = [line.partition("#")[0].split() for line in lines]
    for number, words in enumerate(found, start=1):
        if len(words) > 1 or any("," in word for word in words):
            raise CorruptInputError(f"{path}, line {number}: one id of a chip or object a line, not {words!s:.80}")
    return frozenset(word for words in found for word in words)
