"""Cutting: planned chips become JPEG members of numbered tar parts, and one row each in `chips.parquet`.

A part is a tar and, written after it, a table with its rows; a run that is started again in the same folder keeps the
parts whose table fits the plan and goes on after them. The plan decides where a chip lies, `quality` whether its pixels
are good enough. A rejected chip keeps its row, its reason and, where it could be read, its image; one that could not be
read is in the `ledger` as well, and is tried again by the next run in the same folder, in a part of its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import shutil
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from threadpoolctl import threadpool_limits

from skyscript_assets.lib.chips.failures import FAILURE_SCHEMA, FAILURES_FILE, failure_of, write_failures
from skyscript_assets.lib.chips.plan import PLAN_SCHEMA
from skyscript_assets.lib.chips.reuse import EarlierChips, scene_identity, window_digest
from skyscript_assets.lib.chips.workers import Crew, Cut, Desk, OpenScene, Task
from skyscript_assets.lib.errors import CorruptInputError, MissingInputError, SceneError, TooManyFailuresError
from skyscript_assets.lib.files import file_stamp
from skyscript_assets.lib.imagery.geotiff.raster import RasterReader
from skyscript_assets.lib.imagery.scenes import Scene, read_scenes
from skyscript_assets.lib.imagery.sources.kind import source_kind
from skyscript_assets.lib.progress import Progress, silent
from skyscript_assets.lib.settings.plant import ChipSettings
from skyscript_assets.lib.tables import read_table, rows_to_table, write_table
from skyscript_assets.lib.tar import TarShard

CUT_VERSION = "2"
"""Raised when the same plan, scenes and settings give other chips: nothing of an older version is taken over."""

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
        ("focus_valid_share", pa.float64()),
        ("cloud_share", pa.float64()),
        ("sharpness", pa.float64()),
        ("contrast", pa.float64()),
        ("phash", pa.string()),
        ("sha256", pa.string()),
        ("window_digest", pa.string()),
        ("licence", pa.string()),
        ("attribution", pa.string()),
        ("synthetic", pa.bool_()),
    ]
)
"""Columns of `chips.parquet`, in the order of the plan.

`status` is ok or rejected, `reason` one of `quality.REASONS`. The JPEG of a chip is `length` bytes at `offset` of
`shard`; an unreadable chip has no image, measures and digest (null). `sha256` is of the JPEG file, `window_digest` of
scene, window and encoding, `datetime` the acquisition time of the scene.
"""

WORKERS = min(8, os.cpu_count() or 1)
"""Threads that read and encode: GDAL and libjpeg-turbo release Python's lock."""

BATCH = 32
"""Chips of one scene that a thread cuts in one go; a plan follows a curve over the ground, so they are neighbours."""

_PLAN_COLUMNS = ("chip_id", "scene_id", "crs", "transform", "width", "height", "focus_box")
_PART_SCHEMA = pa.schema([*CHIP_SCHEMA, ("failure", pa.struct([*FAILURE_SCHEMA][1:]))])
_DIGEST_KEY, _SIZE_KEY = b"skyscript:inputs", b"skyscript:tar_bytes"
_ADOPTED = ".adopted.parquet"
_SHAPING_NOTHING = {"max_failed_share"}


@dataclass(frozen=True)
class ChipSummary:
    """Counts of one cutting.

    Attributes:
        planned: Chips in the plan.
        ok: Accepted chips.
        rejected: Reason -> rejected chips, those that could not be read among them.
        failed: Chips that could not be read and are in the ledger.
        parts: Tar parts.
        parts_kept: Of these, whole parts that an earlier, killed run had left, or that a retry did not touch.
        copied: Chips taken over from the output that is replaced.
        retried: Chips tried again that had failed before.
        recovered: Of these, read this time.
        bytes: Size of all tar parts.
    """

    planned: int
    ok: int
    rejected: Mapping[str, int] = field(default_factory=dict)
    failed: int = 0
    parts: int = 0
    parts_kept: int = 0
    copied: int = 0
    retried: int = 0
    recovered: int = 0
    bytes: int = 0


def cut_chips(
    plan_folder: Path,
    scenes_folder: Path,
    settings: ChipSettings,
    out: Path,
    progress: Progress = silent,
    *,
    open_scene: OpenScene = RasterReader,
    earlier: Path | None = None,
    only_failed: bool = False,
    workers: int = WORKERS,
) -> ChipSummary:
    """Cut all chips of a plan into `part-00000.tar` ..., `chips.parquet` and `failures.parquet`.

    Args:
        plan_folder: `chip_plan` of the region and source.
        scenes_folder: `scene_index` of the region and source.
        settings: JPEG quality, limits of rejection and of failures, chips in a part.
        out: Existing folder; parts that an earlier run with the same inputs left there are kept.
        progress: Told after each batch of chips.
        open_scene: The reader of a scene.
        earlier: Finished folder of chips that is replaced: what it has of the plan's chips is not read again.
        only_failed: `earlier` was made of the same plan, scenes and settings: its parts are taken as they are, and the
            chips of its ledger are tried again.
        workers: Threads that read and encode.

    Raises:
        UpstreamMissingError: there is no plan or no scene table.
        CorruptInputError: the plan names a scene that the index does not have.
        SceneError: an image has changed since it was indexed, or while it was read.
        TooManyFailuresError: more chips could not be read than the settings allow.
    """
    plan_path = plan_folder / "plan.parquet"
    plan = read_table(plan_path, PLAN_SCHEMA, columns=_PLAN_COLUMNS)
    scenes = _used_scenes(plan_path, plan, scenes_folder)
    taken = EarlierChips(None if earlier is None else earlier / CHIPS_FILE)
    with _Cutter(plan, scenes, settings, out, progress, open_scene, taken, workers) as cutter:
        if only_failed and earlier is not None:
            cutter.adopt(earlier)
        else:
            cutter.cut_parts()
        cutter.retry()
        return cutter.finish()


def _used_scenes(plan_path: Path, plan: pa.Table, scenes_folder: Path) -> dict[str, Scene]:
    """The scenes that a plan names, by id; images that are there are those that were indexed."""
    scenes = {scene.scene_id: scene for scene in read_scenes(scenes_folder)}
    used = set(pc.unique(plan["scene_id"]).to_pylist())
    if missing := sorted(used - scenes.keys()):
        raise CorruptInputError(
            f"{plan_path} names scene {missing[0]}, which {scenes_folder} does not have: materialize chip_plan again"
        )
    for scene_id in sorted(used):
        # An image that is away or broken is a failure of its chips.
        with contextlib.suppress(MissingInputError, CorruptInputError):
            source_kind(scenes[scene_id].kind).check_scene(scenes[scene_id])
    return {scene_id: scenes[scene_id] for scene_id in used}


# ----------------------------------------------------------------------------------------------------- a part, the plan


class _Part:
    """A part being written: its tar grows as chips are cut, its table follows when all are.

    Args:
        out: Folder.
        number: Number of the part.
        digest: Of all that its content depends on.
        tasks: Its chips, in the order of the plan.
        may_lack_tar: Whether no tar is written where no chip has an image.
    """

    def __init__(
        self,
        out: Path,
        number: int,
        digest: str,
        tasks: Sequence[Task],
        *,
        may_lack_tar: bool = False,
    ) -> None:
        self.tar, self.sidecar = _names(out, number)
        self.tasks = tasks
        self._digest = digest
        self._count = sum(len(task.rows) for task in tasks)
        self._rows: list[dict[str, Any]] = []
        self._may_lack_tar = may_lack_tar
        self._shard: TarShard | None = None
        self.sidecar.unlink(missing_ok=True)

    def add(self, cuts: Sequence[Cut]) -> bool:
        """Write what was cut of one task; whether that was the last one."""
        for cut in cuts:
            row = cut.row
            if cut.jpeg is not None:
                entry = self._open().add(f"{row['chip_id']}.jpg", cut.jpeg)
                row |= {"shard": self.tar.name, "offset": entry.offset, "length": entry.length}
            if cut.failure is not None:
                row["failure"] = cut.failure
            self._rows.append(row)
        return len(self._rows) == self._count

    def finish(self) -> None:
        """Give the tar its name, and then write the table whose presence says that the part is whole."""
        if not self._may_lack_tar:
            self._open()
        if self._shard is not None:
            self._shard.__exit__(None, None, None)
        metadata = {_DIGEST_KEY: self._digest, _SIZE_KEY: str(_size(self.tar))}
        write_table(self.sidecar, rows_to_table(self._rows, _PART_SCHEMA).replace_schema_metadata(metadata))

    def abandon(self, error: BaseException) -> None:
        """Leave nothing of a part that could not be finished."""
        if self._shard is not None:
            self._shard.__exit__(type(error), error, error.__traceback__)

    def _open(self) -> TarShard:
        if self._shard is None:
            self._shard = TarShard(self.tar).__enter__()
        return self._shard


def _names(out: Path, number: int) -> tuple[Path, Path]:
    """Paths of a part's tar and of the table beside it."""
    return out / f"part-{number:05d}.tar", out / f".part-{number:05d}.parquet"


def _size(tar: Path) -> int:
    return tar.stat().st_size if tar.exists() else 0


def _is_whole(tar: Path, sidecar: Path, digest: str) -> bool:
    """Whether an earlier run finished a part with these inputs."""
    try:
        metadata = pq.read_schema(sidecar).metadata or {}
    except (OSError, pa.ArrowInvalid):
        return False
    return metadata.get(_DIGEST_KEY) == digest.encode() and metadata.get(_SIZE_KEY) == str(_size(tar)).encode()


class _Cutter:
    """One cutting of a plan: parts, what had failed in parts that are kept, and the tables at the end.

    Arguments are those of `cut_chips`.
    """

    def __init__(
        self,
        plan: pa.Table,
        scenes: Mapping[str, Scene],
        settings: ChipSettings,
        out: Path,
        progress: Progress,
        open_scene: OpenScene,
        earlier: EarlierChips,
        workers: int,
    ) -> None:
        self._plan, self._scenes, self._settings, self._out, self._progress = plan, scenes, settings, out, progress
        self._identities = {key: scene_identity(scene, settings, CUT_VERSION) for key, scene in scenes.items()}
        shaping = settings.model_dump(exclude=_SHAPING_NOTHING)
        facts = [[asdict(scenes[key]) | {"folder": ""} for key in sorted(scenes)], shaping, CUT_VERSION]
        self._facts = json.dumps(facts, sort_keys=True, default=str).encode()
        self._stamps = {key: file_stamp(scene.path) for key, scene in scenes.items()}
        self._history = dict(earlier.failures)
        self._desks = [Desk(settings, open_scene, earlier, self._history) for _ in range(workers)]
        self._sidecars: list[Path] = []
        self._tars: set[Path] = set()
        self._retry_ids: set[str] = set()
        self._fresh: set[str] = set()
        self._kept = self._copied = self._done = 0

    def __enter__(self) -> Self:
        # The threads are as many as is good; those that BLAS would add for each small product wait for one another.
        self._limits = threadpool_limits(1, "blas")
        self._crew = Crew(self._desks)
        return self

    def __exit__(self, *_: object) -> None:
        self._crew.close()
        self._limits.restore_original_limits()

    def cut_parts(self) -> None:
        """Cut every part of the plan that an earlier run in this folder has not finished."""
        self._write(self._missing_parts(), len(self._plan), "chips", limited=True)
        self._progress(len(self._plan), len(self._plan), "chips")

    def _missing_parts(self) -> Iterator[_Part]:
        for number, start in enumerate(range(0, len(self._plan), self._settings.part_size)):
            table = self._plan.slice(start, self._settings.part_size)
            tar, sidecar = _names(self._out, number)
            self._sidecars.append(sidecar)
            self._tars.add(tar)
            digest = self._digest(table)
            if _is_whole(tar, sidecar, digest):
                self._kept += 1
                self._done += len(table)
            else:
                yield _Part(self._out, number, digest, self._tasks(table.to_pylist()))

    def adopt(self, earlier: Path) -> None:
        """Take the parts of a finished folder of the same plan as they are; its failures are left to `retry`."""
        table = read_table(earlier / CHIPS_FILE, CHIP_SCHEMA).select(CHIP_SCHEMA.names)
        if not table["chip_id"].equals(self._plan["chip_id"]):
            self.cut_parts()
            return
        for tar in sorted(earlier.glob("part-*.tar")):
            target = self._out / tar.name
            target.unlink(missing_ok=True)
            try:
                os.link(tar, target)
            except OSError:
                shutil.copyfile(tar, target)
            self._tars.add(target)
            self._kept += 1
        failures = {row["chip_id"]: row for row in read_table(earlier / FAILURES_FILE, FAILURE_SCHEMA).to_pylist()}
        column = pa.array(
            [failures.get(key) for key in table["chip_id"].to_pylist()], _PART_SCHEMA.field("failure").type
        )
        write_table(self._out / _ADOPTED, table.append_column("failure", column))
        self._sidecars.append(self._out / _ADOPTED)

    def retry(self) -> None:
        """Try again what had failed in parts that were kept, in one more part."""
        digest = self._digest(self._plan)
        numbers = [int(tar.stem.removeprefix("part-")) for tar in self._tars]
        number = max(numbers, default=-1) + 1
        while _is_whole(*(names := _names(self._out, number)), digest):
            self._tars.add(names[0])
            self._sidecars.append(names[1])
            number += 1
        failures = [row for row in self._failures(self._latest()) if row["chip_id"] not in self._fresh]
        if not failures:
            return
        self._history.update({row["chip_id"]: failure_of(row) for row in failures})
        ids = pa.array([row["chip_id"] for row in failures])
        rows = self._plan.filter(pc.is_in(self._plan["chip_id"], value_set=ids)).to_pylist()
        self._done, self._retry_ids = 0, set(ids.to_pylist())
        self._tars.add(names[0])
        self._sidecars.append(names[1])
        part = _Part(self._out, number, digest, self._tasks(rows), may_lack_tar=True)
        self._write(iter([part]), len(rows), "chips tried again", limited=False)

    def finish(self) -> ChipSummary:
        """Join the parts' tables, remove them and whatever an earlier, larger plan has left."""
        table = self._latest()
        failures = self._failures(table)
        self._check_share(failures)
        for key, scene in self._scenes.items():
            if file_stamp(scene.path) != self._stamps[key] and scene.path.exists():
                raise SceneError(
                    f"{scene.path} has changed while its chips were cut: materialize scene_index and chip_plan again"
                )
        write_table(self._out / CHIPS_FILE, table.select(CHIP_SCHEMA.names).replace_schema_metadata(None))
        write_failures(self._out, failures)
        tars = {tar for tar in self._tars if tar.exists()}
        for pattern in (".part-*", "..part-*", f"{_ADOPTED}*", f".{_ADOPTED}*", "part-*.tar"):
            for path in set(self._out.glob(pattern)) - tars:
                path.unlink()
        counts = Counter(table["reason"].to_pylist())
        unread = {row["chip_id"] for row in failures}
        return ChipSummary(
            planned=table.num_rows,
            ok=counts.pop(None, 0),
            rejected=dict(sorted(counts.items())),
            failed=len(failures),
            parts=len(tars),
            parts_kept=self._kept,
            copied=self._copied,
            retried=len(self._retry_ids),
            recovered=len(self._retry_ids - unread),
            bytes=sum(tar.stat().st_size for tar in tars),
        )

    def _write(self, parts: Iterator[_Part], total: int, unit: str, *, limited: bool) -> None:
        """Cut parts and write them as what is cut comes in; the threads are some tasks ahead, of the next part too."""
        begun: deque[_Part] = deque()

        def tasks() -> Iterator[Task]:
            for part in parts:
                begun.append(part)
                yield from part.tasks

        try:
            for cuts in self._crew.run(tasks()):
                complete = begun[0].add(cuts)
                self._done += len(cuts)
                self._copied += sum(cut.copied for cut in cuts)
                self._fresh.update(cut.row["chip_id"] for cut in cuts if cut.failure is not None)
                if limited and len(self._fresh) > self._settings.max_failed_share * len(self._plan):
                    self._check_share([cut.failure for cut in cuts if cut.failure is not None], len(self._fresh))
                self._progress(self._done, total, unit)
                if complete:
                    begun.popleft().finish()
        except BaseException as error:
            if begun:
                begun[0].abandon(error)
            raise

    def _tasks(self, rows: list[dict[str, Any]]) -> list[Task]:
        """The tasks that rows of the plan make, in their order: scene by scene, along a curve over the ground."""
        tasks = []
        for scene_id, group in itertools.groupby(rows, key=lambda row: row["scene_id"]):
            members = list(group)
            identity = self._identities[scene_id]
            for start in range(0, len(members), BATCH):
                batch = members[start : start + BATCH]
                digests = [window_digest(identity, row) for row in batch]
                tasks.append(Task(self._scenes[scene_id], batch, digests))
        return tasks

    def _digest(self, chips: pa.Table) -> str:
        """SHA-256 of all that the chips' files depend on, so that a part of other inputs is never kept."""
        digest = hashlib.sha256(self._facts)
        for batch in chips.combine_chunks().to_batches():
            digest.update(json.dumps(batch.to_pylist()).encode())
        return digest.hexdigest()

    def _latest(self) -> pa.Table:
        """All chips in the order of the plan, as they were cut last."""
        tables = [read_table(path, _PART_SCHEMA).select(_PART_SCHEMA.names) for path in self._sidecars]
        table = pa.concat_tables([_PART_SCHEMA.empty_table(), *tables]).replace_schema_metadata(None)
        ids, n = table["chip_id"], len(self._plan)
        latest = np.arange(n)
        latest[pc.index_in(ids.slice(n), value_set=ids.slice(0, n).combine_chunks()).to_numpy()] = np.arange(
            n, len(ids)
        )
        return table.take(latest)

    def _failures(self, table: pa.Table) -> list[dict[str, Any]]:
        some = table.filter(pc.is_valid(table["failure"]))
        return [{"chip_id": row["chip_id"]} | row["failure"] for row in some.select(["chip_id", "failure"]).to_pylist()]

    def _check_share(self, failures: Sequence[Mapping[str, Any]], count: int | None = None) -> None:
        """Raise TooManyFailuresError where more chips could not be read than the settings allow."""
        count = len(failures) if count is None else count
        if count <= self._settings.max_failed_share * len(self._plan):
            return
        reasons = Counter(row["reason"] for row in failures)
        raise TooManyFailuresError(
            f"{count} of {len(self._plan)} chips could not be read ({', '.join(map(str, reasons))}), more than "
            f"chips.max_failed_share {self._settings.max_failed_share:g} allows. One of the errors: "
            f"{failures[0]['error']}. Mend it, or raise the share, and run again: what was read is kept"
        )
