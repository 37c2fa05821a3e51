"""Cutting: planned chips become JPEG members of numbered tar parts, and one row each in `chips.parquet`.

A run that is started again in the same folder keeps the parts that are whole (`lib.parts`). The plan decides where a
chip lies, `quality` whether its pixels are good enough. A rejected chip keeps its row, its reason and, where it could
be read, its image; one that could not be read is a failure (`failures`) as well, and is tried again by the next run in
the same folder, in a part of its own.
"""

import contextlib
import hashlib
import itertools
import json
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from skyscript_assets.lib.chips.failures import FAILURE_SCHEMA, FAILURES_FILE, read_failures
from skyscript_assets.lib.chips.plan import PLAN_FILE, PLAN_SCHEMA
from skyscript_assets.lib.chips.reuse import ReusableChips, scene_identity, window_digest
from skyscript_assets.lib.chips.workers import Cut, OpenScene, Task, Workers
from skyscript_assets.lib.errors import CorruptInputError, MissingInputError, SceneError, TooManyFailuresError
from skyscript_assets.lib.files import file_stamp
from skyscript_assets.lib.imagery.geotiff.raster import RasterReader
from skyscript_assets.lib.imagery.scenes import Scene, read_scenes
from skyscript_assets.lib.imagery.sources.kind import source_kind
from skyscript_assets.lib.parts import Parts
from skyscript_assets.lib.progress import Progress, silent
from skyscript_assets.lib.settings.plant import ChipSettings
from skyscript_assets.lib.tables import fields, read_table, rows_to_table, write_table
from skyscript_assets.lib.tar import TarShard
from skyscript_assets.lib.threads import cores

CUT_VERSION = "3"
"""Raised when the same plan, scenes and settings give other chips: nothing of an older version is taken over."""

CHIPS_FILE = "chips.parquet"

CHIP_SCHEMA = pa.schema(
    [
        *fields(pa.string(), "chip_id", "status", "reason", "shard"),
        *fields(pa.int64(), "offset", "length"),
        *fields(pa.int32(), "width", "height"),
        ("datetime", pa.timestamp("ms", tz="UTC")),
        *fields(pa.float64(), "nodata_share", "focus_valid_share", "cloud_share", "sharpness", "contrast"),
        *fields(pa.string(), "phash", "sha256", "window_digest", "licence", "attribution"),
        ("synthetic", pa.bool_()),
    ]
)
"""Columns of `chips.parquet`, in the order of the plan.

`status` is ok or rejected, `reason` one of `quality.REASONS`. The JPEG of a chip is `length` bytes at `offset` of
`shard`; an unreadable chip has no image, measures and digest (null). `sha256` is of the JPEG file, `window_digest` of
scene, window and encoding, `datetime` the acquisition time of the scene.
"""

WORKERS = min(8, cores())
"""Threads that read and encode: GDAL and libjpeg-turbo release Python's lock."""

BATCH = 32
"""Chips of one scene that a thread cuts in one go; a plan follows a curve over the ground, so they are neighbours."""

_PLAN_COLUMNS = ("chip_id", "scene_id", "crs", "transform", "width", "height", "focus_box")
_PART_SCHEMA = pa.schema([*CHIP_SCHEMA, ("failure", pa.struct([*FAILURE_SCHEMA][1:]))])


@dataclass(frozen=True)
class CutInputs:
    """What chips are cut from.

    Attributes:
        plan: `chip_plan` folder of the region and source.
        scenes: `scene_index` folder of them.
        replaced: Finished folder of chips that is replaced: what it has of the plan's chips is not read again.
    """

    plan: Path
    scenes: Path
    open_scene: OpenScene = RasterReader
    replaced: Path | None = None


def cut_chips(
    inputs: CutInputs,
    settings: ChipSettings,
    out: Path,
    progress: Progress = silent,
    *,
    max_failed_share: float = 1.0,
    only_failed: bool = False,
    workers: int = WORKERS,
) -> dict[str, Any]:
    """Cut all chips of a plan into `part-00000.tar` ..., `chips.parquet` and `failures.parquet`.

    Args:
        inputs: Plan, scenes, and the chips that are replaced.
        settings: JPEG quality, limits of rejection, chips in a part.
        out: Existing folder; parts that an earlier run with the same inputs left there are kept.
        progress: Told after each batch of chips.
        max_failed_share: Share of the chips that may fail to be read.
        only_failed: The chips that are replaced were made of the same plan, scenes and settings: their parts are taken
            as they are, and those of them that failed are tried again.
        workers: Threads that read and encode.

    Returns:
        Numbers of chips `planned`, `ok` and, by reason, `rejected`, of tar `parts` and their `bytes`. Of the rejected
        ones `failed` could not be read and are among the failures. `parts_kept`: whole parts that an earlier, killed
        run had left, or that a retry did not touch. `copied`: chips taken over from the output that is replaced.
        `retried`: chips tried again that had failed before, of which `recovered` were read this time.

    Raises:
        UpstreamMissingError: there is no plan or no scene table.
        CorruptInputError: the plan names a scene that the index does not have.
        SceneError: an image has changed since it was indexed, or while it was read.
        TooManyFailuresError: more chips could not be read than `max_failed_share` allows.
    """
    plan = read_table(inputs.plan / PLAN_FILE, PLAN_SCHEMA, columns=_PLAN_COLUMNS)
    scenes = _used_scenes(inputs, plan)
    reusable = ReusableChips(inputs.replaced)
    threads = Workers(workers, settings, inputs.open_scene, reusable, dict(reusable.failures))
    cutting = _Cutting(plan, scenes, threads, out, progress, max_failed_share)
    if not (only_failed and inputs.replaced is not None and cutting.take(inputs.replaced)):
        cutting.cut_all()
    cutting.retry()
    return cutting.finish()


def _used_scenes(inputs: CutInputs, plan: pa.Table) -> dict[str, Scene]:
    """The scenes that a plan names, by id; images that are there are those that were indexed."""
    scenes = {scene.scene_id: scene for scene in read_scenes(inputs.scenes)}
    used = set(pc.unique(plan["scene_id"]).to_pylist())
    if missing := sorted(used - scenes.keys()):
        raise CorruptInputError(
            f"{inputs.plan / PLAN_FILE} names scene {missing[0]}, which {inputs.scenes} does not have: "
            "materialize chip_plan again"
        )
    for scene_id in sorted(used):
        # An image that is away or broken is a failure of its chips.
        with contextlib.suppress(MissingInputError, CorruptInputError):
            source_kind(scenes[scene_id].kind).check_scene(scenes[scene_id])
    return {scene_id: scenes[scene_id] for scene_id in used}


_Part = tuple[int, str, list[Task]]
"""A part to be cut: its number, the digest of all that it depends on, its chips in the order of the plan."""


class _Cutting:
    """One cutting of a plan: its parts, what had failed in parts that are kept, and the tables at the end.

    Arguments are those of `cut_chips`, with the plan and the scenes that were read.
    """

    def __init__(
        self,
        plan: pa.Table,
        scenes: Mapping[str, Scene],
        workers: Workers,
        out: Path,
        progress: Progress,
        max_failed_share: float,
    ) -> None:
        self._plan, self._scenes, self._workers, self._out, self._progress = plan, scenes, workers, out, progress
        self._most_failures = max_failed_share * len(plan)
        settings = workers.settings
        self._identities = {key: scene_identity(scene, settings, CUT_VERSION) for key, scene in scenes.items()}
        described = [asdict(scenes[key]) | {"folder": ""} for key in sorted(scenes)]
        self._facts = json.dumps([described, settings.model_dump(), CUT_VERSION], sort_keys=True, default=str).encode()
        self._stamps = {key: file_stamp(scene.path) for key, scene in scenes.items()}
        self._parts = Parts(out, ".tar")
        self._taken = _PART_SCHEMA.empty_table()
        self._retried: set[str] = set()
        self._failed_now: set[str] = set()
        self._kept = self._copied = self._done = 0

    def cut_all(self) -> None:
        """Cut every part of the plan that an earlier run in this folder has not finished."""
        self._write(self._missing_parts(), len(self._plan), "chips")
        self._progress(len(self._plan), len(self._plan), "chips")

    def _missing_parts(self) -> Iterator[_Part]:
        size = self._workers.settings.part_size
        for number, start in enumerate(range(0, len(self._plan), size)):
            chips = self._plan.slice(start, size)
            made_from = self._digest(chips)
            if self._parts.keep(number, made_from):
                self._kept += 1
                self._done += len(chips)
            else:
                yield number, made_from, self._tasks(chips)

    def take(self, replaced: Path) -> bool:
        """Take the parts of a finished folder of the same plan as they are; whether it was of the same plan."""
        table = read_table(replaced / CHIPS_FILE, CHIP_SCHEMA).select(CHIP_SCHEMA.names)
        if not table["chip_id"].equals(self._plan["chip_id"]):
            return False
        for tar in sorted(replaced.glob("part-*.tar")):
            self._parts.take(tar)
            self._kept += 1
        failures = read_failures(replaced)
        of_chips = [failures.get(key) for key in table["chip_id"].to_pylist()]
        self._taken = table.append_column("failure", pa.array(of_chips, _PART_SCHEMA.field("failure").type))
        return True

    def retry(self) -> None:
        """Try again what had failed in parts that were kept, in one more part."""
        made_from = self._digest(self._plan)
        while self._parts.keep(self._parts.next_number, made_from):
            pass
        failures = [row for row in self._failures(self._latest()) if row["chip_id"] not in self._failed_now]
        if not failures:
            return
        self._workers.history.update({row["chip_id"]: row for row in failures})
        ids = pa.array([row["chip_id"] for row in failures])
        chips = self._plan.filter(pc.is_in(self._plan["chip_id"], value_set=ids))
        self._done, self._retried = 0, set(ids.to_pylist())
        self._write([(self._parts.next_number, made_from, self._tasks(chips))], len(chips), "chips tried again")

    def finish(self) -> dict[str, Any]:
        """Join the parts' tables, and remove them and whatever an earlier, larger plan has left."""
        table = self._latest()
        failures = self._failures(table)
        self._check_failures(failures, len(failures))
        for key, scene in self._scenes.items():
            if file_stamp(scene.path) != self._stamps[key] and scene.path.exists():
                raise SceneError(
                    f"{scene.path} has changed while its chips were cut: materialize scene_index and chip_plan again"
                )
        write_table(self._out / CHIPS_FILE, table.select(CHIP_SCHEMA.names))
        write_table(self._out / FAILURES_FILE, rows_to_table(failures, FAILURE_SCHEMA))
        self._parts.clear()
        tars = self._parts.files()
        counts = Counter(table["reason"].to_pylist())
        return {
            "planned": table.num_rows,
            "ok": counts.pop(None, 0),
            "rejected": dict(sorted(counts.items())),
            "failed": len(failures),
            "parts": len(tars),
            "parts_kept": self._kept,
            "copied": self._copied,
            "retried": len(self._retried),
            "recovered": len(self._retried - {row["chip_id"] for row in failures}),
            "bytes": sum(tar.stat().st_size for tar in tars),
        }

    def _write(self, parts: Iterable[_Part], total: int, unit: str) -> None:
        """Cut parts and write them as what is cut comes in; the threads are some tasks ahead, of the next part too."""
        begun: deque[_Part] = deque()

        def tasks() -> Iterator[Task]:
            for part in parts:
                begun.append(part)
                yield from part[2]

        with contextlib.closing(self._workers.run(tasks())) as cuts:
            for first in cuts:
                number, made_from, wanted = begun.popleft()
                tar = self._parts.file(number)
                rows: list[dict[str, Any]] = []
                with TarShard(tar) as shard:
                    for batch in itertools.chain([first], itertools.islice(cuts, len(wanted) - 1)):
                        rows += [_stored(cut, tar.name, shard) for cut in batch]
                        self._count(batch)
                        self._progress(self._done, total, unit)
                if self._retried and len(shard) == 0:
                    tar.unlink()  # what is tried again leaves no trace where it fails again
                self._parts.finish(number, made_from, rows_to_table(rows, _PART_SCHEMA))

    def _count(self, cuts: Sequence[Cut]) -> None:
        self._done += len(cuts)
        self._copied += sum(cut.copied for cut in cuts)
        failures = {cut.row["chip_id"]: cut.failure for cut in cuts if cut.failure is not None}
        self._failed_now.update(failures)
        if failures and not self._retried:
            self._check_failures([*failures.values()], len(self._failed_now))

    def _tasks(self, chips: pa.Table) -> list[Task]:
        """The tasks that chips of the plan make, in their order: scene by scene, along a curve over the ground."""
        tasks = []
        for scene_id, group in itertools.groupby(chips.to_pylist(), key=lambda row: row["scene_id"]):
            rows = [row | {"window_digest": window_digest(self._identities[scene_id], row)} for row in group]
            tasks += [Task(self._scenes[scene_id], rows[i : i + BATCH]) for i in range(0, len(rows), BATCH)]
        return tasks

    def _digest(self, chips: pa.Table) -> str:
        """SHA-256 of all that the chips' files depend on, so that a part of other inputs is never kept."""
        return hashlib.sha256(self._facts + json.dumps(chips.to_pylist()).encode()).hexdigest()

    def _latest(self) -> pa.Table:
        """All chips in the order of the plan, as they were cut last."""
        table = pa.concat_tables([self._taken, *self._parts.tables()])
        ids, n = table["chip_id"], len(self._plan)
        latest = np.arange(n)
        latest[pc.index_in(ids.slice(n), value_set=ids.slice(0, n).combine_chunks())] = np.arange(n, len(ids))
        return table.take(latest)

    def _failures(self, table: pa.Table) -> list[dict[str, Any]]:
        some = table.filter(pc.is_valid(table["failure"]))
        return [{"chip_id": row["chip_id"]} | row["failure"] for row in some.select(["chip_id", "failure"]).to_pylist()]

    def _check_failures(self, some: Sequence[Mapping[str, Any]], count: int) -> None:
        """Raise TooManyFailuresError where more chips could not be read than the settings allow; `some` tell why."""
        if count <= self._most_failures:
            return
        reasons = Counter(row["reason"] for row in some)
        raise TooManyFailuresError(
            f"{count} of {len(self._plan)} chips could not be read ({', '.join(reasons)}), more than "
            f"failures.max_failed_share {self._most_failures / len(self._plan):g} allows. One of the errors: "
            f"{some[0]['error']}. Mend it, or raise the share, and run again: what was read is kept"
        )


def _stored(cut: Cut, tar: str, shard: TarShard) -> dict[str, Any]:
    """The row of a chip whose image is added to a tar."""
    row = cut.row | {"failure": cut.failure}
    if cut.jpeg is None:
        return row
    entry = shard.add(f"{row['chip_id']}.jpg", cut.jpeg)
    return row | {"shard": tar, "offset": entry.offset, "length": entry.length}
