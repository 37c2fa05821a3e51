"""Cutting: planned chips become JPEG members of numbered tar parts, and one row each in `chips.parquet`.

A part is a tar and, written after it, a table with its rows; a run that is started again in the same folder keeps the
parts whose table fits the plan and goes on after them. The plan decides where a chip lies, `quality` whether its pixels
are good enough. A rejected chip keeps its row, its reason and, where it could be read, its image.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import simplejpeg

from skyscript_assets.lib.chips.plan import PLAN_SCHEMA
from skyscript_assets.lib.chips.quality import measure, rejection
from skyscript_assets.lib.errors import CorruptInputError
from skyscript_assets.lib.imagery.files import check_unchanged
from skyscript_assets.lib.imagery.raster import RasterReader
from skyscript_assets.lib.imagery.reader import SceneReader, Window
from skyscript_assets.lib.imagery.scenes import Scene, read_scenes
from skyscript_assets.lib.progress import Progress, silent
from skyscript_assets.lib.settings import ChipSettings
from skyscript_assets.lib.shards.tar import TarShard
from skyscript_assets.lib.tables import read_table, rows_to_table, write_table

CHIPS_FILE = "chips.parquet"

CHIP_SCHEMA = pa.schema(
    [
        ("chip_id", pa.string()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("shard", pa.string()),
        ("offset", pa.int64()),
        ("length", pa.int64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("datetime", pa.timestamp("ms", tz="UTC")),
        ("nodata_share", pa.float64()),
        ("cloud_share", pa.float64()),
        ("sharpness", pa.float64()),
        ("contrast", pa.float64()),
        ("phash", pa.string()),
        ("sha256", pa.string()),
        ("licence", pa.string()),
        ("attribution", pa.string()),
        ("synthetic", pa.bool_()),
    ]
)
"""Columns of `chips.parquet`, in the order of the plan.

`status` is ok or rejected, `reason` one of `quality.REASONS`. The JPEG of a chip is `length` bytes at `offset` of
`shard`; an unreadable chip has no image, measures and digest (null). `sha256` is of the JPEG file, `datetime` the
acquisition time of the scene.
"""

OpenScene = Callable[[Scene], SceneReader]
"""What makes a scene's reader; each is used by one thread."""

WORKERS = 2
"""Threads that read and encode: GDAL, Pillow and libjpeg-turbo release Python's lock."""

BATCH = 64
"""Chips of one scene that a thread cuts in one go; neighbours in the plan are neighbours on the ground."""

_PLAN_COLUMNS = ("chip_id", "scene_id", "crs", "transform", "width", "height")
_DIGEST_KEY, _SIZE_KEY = b"skyscript:inputs", b"skyscript:tar_bytes"


@dataclass(frozen=True)
class ChipSummary:
    """Counts of one cutting.

    Attributes:
        planned: Chips in the plan.
        ok: Accepted chips.
        rejected: Reason -> rejected chips.
        parts: Tar parts.
        parts_kept: Of these, whole parts that an earlier, killed run had left.
        bytes: Size of all tar parts.
    """

    planned: int
    ok: int
    rejected: Mapping[str, int] = field(default_factory=dict)
    parts: int = 0
    parts_kept: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class _Cut:
    """A chip that was cut: its columns of `chips.parquet` but for its place, and its JPEG where it could be read."""

    row: dict[str, Any]
    jpeg: bytes | None


def cut_chips(
    plan_folder: Path,
    scenes_folder: Path,
    settings: ChipSettings,
    out: Path,
    progress: Progress = silent,
    *,
    open_scene: OpenScene = RasterReader,
) -> ChipSummary:
    """Cut all chips of a plan into `part-00000.tar` ... and `chips.parquet`.

    Args:
        plan_folder: `chip_plan` of the region and source.
        scenes_folder: `scene_index` of the region and source.
        settings: JPEG quality, limits of rejection, chips in a part.
        out: Existing folder; parts that an earlier run with the same inputs left there are kept.
        progress: Told after each batch of chips.
        open_scene: The reader of a scene.

    Raises:
        UpstreamMissingError: there is no plan or no scene table.
        MissingInputError: a scene's image is gone.
        CorruptInputError: the plan names a scene that the index does not have, or an image is no raster any more.
        SceneError: an image has changed since it was indexed.
    """
    plan_path = plan_folder / "plan.parquet"
    plan = read_table(plan_path, PLAN_SCHEMA, columns=_PLAN_COLUMNS).to_pylist()
    scenes = _used_scenes(plan_path, plan, scenes_folder)
    parts = [plan[start : start + settings.part_size] for start in range(0, len(plan), settings.part_size)]
    kept = 0
    done = 0
    # Threads and not processes: they share GDAL's block cache.
    with ThreadPoolExecutor(WORKERS, thread_name_prefix="cut") as pool:
        for number, part in enumerate(parts):
            tar, sidecar = _names(out, number)
            digest = _digest(part, scenes, settings)
            if _is_whole(tar, sidecar, digest):
                kept += 1
            else:
                cuts: dict[int, _Cut] = {}
                for batch in _cut_part(pool, part, scenes, settings, open_scene):
                    cuts.update(batch)
                    progress(done + len(cuts), len(plan), "chips")
                _write_part(tar, sidecar, [cuts[index] for index in range(len(part))], digest)
            done += len(part)
            progress(done, len(plan), "chips")
    return _finish(out, len(parts), kept)


def _used_scenes(plan_path: Path, plan: Sequence[Mapping[str, Any]], scenes_folder: Path) -> dict[str, Scene]:
    """The scenes that a plan names, by id; their images are those that were indexed."""
    scenes = {scene.scene_id: scene for scene in read_scenes(scenes_folder)}
    used = {row["scene_id"] for row in plan}
    if missing := sorted(used - scenes.keys()):
        raise CorruptInputError(
            f"{plan_path} names scene {missing[0]}, which {scenes_folder} does not have: materialize chip_plan again"
        )
    for scene_id in sorted(used):
        # A painted scene lies in the folder of its table, under that folder's own digests; others are remote.
        if scenes[scene_id].kind == "files":
            check_unchanged(scenes[scene_id])
    return {scene_id: scenes[scene_id] for scene_id in used}


def _names(out: Path, number: int) -> tuple[Path, Path]:
    """Paths of a part's tar and of the table beside it."""
    return out / f"part-{number:05d}.tar", out / f".part-{number:05d}.parquet"


def _digest(part: Sequence[Mapping[str, Any]], scenes: Mapping[str, Scene], settings: ChipSettings) -> str:
    """SHA-256 of all that a part's content depends on, so that a part of other inputs is never kept."""
    used = [scenes[scene_id] for scene_id in sorted({row["scene_id"] for row in part})]
    facts = [{key: value for key, value in asdict(scene).items() if key != "folder"} for scene in used]
    inputs = {"part": part, "scenes": facts, "settings": settings.model_dump()}
    return hashlib.sha256(json.dumps(inputs, sort_keys=True, default=str).encode()).hexdigest()


def _is_whole(tar: Path, sidecar: Path, digest: str) -> bool:
    """Whether an earlier run finished a part with these inputs."""
    try:
        metadata = pq.read_schema(sidecar).metadata or {}
        size = tar.stat().st_size
    except (OSError, pa.ArrowInvalid):
        return False
    return metadata.get(_DIGEST_KEY) == digest.encode() and metadata.get(_SIZE_KEY) == str(size).encode()


def _cut_part(
    pool: ThreadPoolExecutor,
    part: Sequence[Mapping[str, Any]],
    scenes: Mapping[str, Scene],
    settings: ChipSettings,
    open_scene: OpenScene,
) -> Iterator[dict[int, _Cut]]:
    """Cut the chips of a part, scene by scene: batches of chips by their index in the part."""
    of_scene: dict[str, list[int]] = defaultdict(list)
    for index, row in enumerate(part):
        of_scene[row["scene_id"]].append(index)
    batches = [
        (scenes[scene_id], indices[start : start + BATCH])
        for scene_id, indices in of_scene.items()
        for start in range(0, len(indices), BATCH)
    ]

    def work(batch: tuple[Scene, list[int]]) -> dict[int, _Cut]:
        scene, indices = batch
        rows = [part[index] for index in indices]
        return dict(zip(indices, _cut_batch(open_scene(scene), rows, settings), strict=True))

    return pool.map(work, batches)


def _cut_batch(reader: SceneReader, rows: Sequence[Mapping[str, Any]], settings: ChipSettings) -> list[_Cut]:
    """Read, measure and encode some chips of one scene."""
    scene = reader.scene
    windows = [Window(row["crs"], tuple(row["transform"]), row["width"], row["height"]) for row in rows]
    cuts: dict[int, _Cut] = {}
    with reader:
        for index, pixels in reader.read_many(windows):
            row = {
                "chip_id": rows[index]["chip_id"],
                "width": windows[index].width,
                "height": windows[index].height,
                "datetime": scene.datetime,
                "licence": scene.licence,
                "attribution": scene.attribution,
                "synthetic": scene.synthetic,
            }
            if isinstance(pixels, CorruptInputError):
                cuts[index] = _Cut(row | {"status": "rejected", "reason": "unreadable"}, None)
                continue
            quality = measure(pixels.rgb, pixels.valid)
            reason = rejection(quality, settings)
            jpeg = simplejpeg.encode_jpeg(pixels.rgb, settings.jpeg_quality, colorspace="RGB", colorsubsampling="420")
            row |= {"status": "ok" if reason is None else "rejected", "reason": reason}
            cuts[index] = _Cut(row | asdict(quality) | {"sha256": hashlib.sha256(jpeg).hexdigest()}, jpeg)
    return [cuts[index] for index in range(len(rows))]


def _write_part(tar: Path, sidecar: Path, cuts: Sequence[_Cut], digest: str) -> None:
    """Write a part's tar and then its table, whose presence says that the part is whole."""
    rows = []
    sidecar.unlink(missing_ok=True)
    with TarShard(tar) as shard:
        for cut in cuts:
            place: dict[str, Any] = {}
            if cut.jpeg is not None:
                entry = shard.add(f"{cut.row['chip_id']}.jpg", cut.jpeg)
                place = {"shard": tar.name, "offset": entry.offset, "length": entry.length}
            rows.append(cut.row | place)
    metadata = {_DIGEST_KEY: digest, _SIZE_KEY: str(tar.stat().st_size)}
    write_table(sidecar, rows_to_table(rows, CHIP_SCHEMA).replace_schema_metadata(metadata))


def _finish(out: Path, parts: int, kept: int) -> ChipSummary:
    """Join the parts' tables into `chips.parquet`, remove them and whatever an earlier, larger plan has left."""
    names = [_names(out, number) for number in range(parts)]
    tables = [read_table(sidecar, CHIP_SCHEMA).replace_schema_metadata(None) for _, sidecar in names]
    table = pa.concat_tables(tables) if tables else CHIP_SCHEMA.empty_table()
    write_table(out / CHIPS_FILE, table)
    tars = {tar for tar, _ in names}
    for path in [*out.glob(".part-*"), *out.glob("..part-*"), *(set(out.glob("part-*.tar")) - tars)]:
        path.unlink()
    counts = Counter(table["reason"].to_pylist())
    return ChipSummary(
        planned=table.num_rows,
        ok=counts.pop(None, 0),
        rejected=dict(sorted(counts.items())),
        parts=parts,
        parts_kept=kept,
        bytes=sum(tar.stat().st_size for tar in tars),
    )
