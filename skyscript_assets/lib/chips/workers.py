"""Reading, measuring and encoding chips, on threads that each keep the scene open that they read last.

Which chips are cut, in which order, and where they are written belongs to `cut`.
"""

import contextlib
import datetime as dt
import hashlib
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import simplejpeg

from skyscript_assets.lib.chips.failures import READ_ERRORS, failed, is_failure
from skyscript_assets.lib.chips.quality import Quality, measure, rejection
from skyscript_assets.lib.chips.reuse import ReusableChips
from skyscript_assets.lib.imagery.reader import GeoBox, Pixels, SceneReader
from skyscript_assets.lib.imagery.scenes import Scene
from skyscript_assets.lib.lookahead import in_order
from skyscript_assets.lib.settings.plant import ChipSettings

OpenScene = Callable[[Scene], SceneReader]
"""What makes a scene's reader; each is used by one thread."""

AHEAD = 3
"""Batches for each thread that may be in work, or done and not yet written: what is held in memory."""


@dataclass(frozen=True)
class Task:
    """Chips of one scene, neighbours on the ground: their rows of the plan, each with its window digest."""

    scene: Scene
    rows: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Cut:
    """A chip that was cut: its columns of `chips.parquet` but for its place, its JPEG, or why it could not be read."""

    row: dict[str, Any]
    jpeg: bytes | None = None
    failure: dict[str, Any] | None = None
    copied: bool = False


class _OpenScene(threading.local):
    """The scene that a thread has open."""

    def __init__(self) -> None:
        self.reader: SceneReader | None = None
        self.stack = contextlib.ExitStack()


@dataclass(frozen=True)
class Workers:
    """Threads that cut chips. They share the process's decoded blocks; a scene belongs to the thread that opened it.

    Chips that are `reusable` need not be read; `history` has the failures of those that could not be, by chip id.
    """

    threads: int
    settings: ChipSettings
    open_scene: OpenScene
    reusable: ReusableChips
    history: dict[str, dict[str, Any]]
    _open: _OpenScene = field(default_factory=_OpenScene)

    def run(self, tasks: Iterable[Task]) -> Generator[list[Cut], None, None]:
        """Cut tasks, and give what was cut in their order; no more of them are begun than `AHEAD` allows."""
        return in_order(self.cut, tasks, threads=self.threads, ahead=AHEAD * self.threads + 1, close=self.close)

    def close(self) -> None:
        """Close the scene that this thread has open."""
        self._open.reader = None
        self._open.stack.close()

    def cut(self, task: Task) -> list[Cut]:
        """Cut the chips of a task, in its order."""
        cuts: dict[int, Cut] = {}
        for index, row in enumerate(task.rows):
            if (found := self.reusable.find(row["window_digest"])) is not None:
                cuts[index] = self._judged(task.scene, row, *found, copied=True)
        if todo := [index for index in range(len(task.rows)) if index not in cuts]:
            for index, pixels in self._read(task, todo):
                cuts[index] = self._cut(task.scene, task.rows[index], pixels)
        return [cuts[index] for index in range(len(task.rows))]

    def _read(self, task: Task, todo: Sequence[int]) -> Iterator[tuple[int, Pixels | BaseException]]:
        """The pixels of some chips of a task, or the error in their place."""
        rows = [task.rows[index] for index in todo]
        windows = [GeoBox(row["crs"], tuple(row["transform"]), row["width"], row["height"]) for row in rows]
        left = dict(enumerate(windows))
        try:
            for number, pixels in self._reader_of(task.scene).read_many(windows):
                del left[number]
                yield todo[number], pixels
        except READ_ERRORS as error:
            if not is_failure(error):
                raise
            if self._open.reader is None:
                yield from ((todo[number], error) for number in left)
                return
        # Where reading many ended with the error of one of them, the others are read one by one.
        for number, window in left.items():
            try:
                yield todo[number], self._reader_of(task.scene).read(*window)
            except READ_ERRORS as error:
                if not is_failure(error):
                    raise
                yield todo[number], error

    def _reader_of(self, scene: Scene) -> SceneReader:
        if self._open.reader is None or self._open.reader.scene is not scene:
            self.close()
            self._open.reader = self._open.stack.enter_context(self.open_scene(scene))
        return self._open.reader

    def _cut(self, scene: Scene, row: Mapping[str, Any], pixels: Pixels | BaseException) -> Cut:
        """Measure and encode a chip that was read, or tell why it could not be."""
        if isinstance(pixels, BaseException):
            failure = failed(pixels, scene.scene_id, dt.datetime.now(dt.UTC), self.history.get(row["chip_id"]))
            return Cut(_described(scene, row) | {"status": "rejected", "reason": "unreadable"}, failure=failure)
        quality = measure(pixels.rgb, pixels.mask, row["focus_box"])
        jpeg = simplejpeg.encode_jpeg(pixels.rgb, self.settings.jpeg_quality, colorspace="RGB", colorsubsampling="420")
        return self._judged(scene, row, quality, jpeg, hashlib.sha256(jpeg).hexdigest())

    def _judged(
        self, scene: Scene, row: Mapping[str, Any], quality: Quality, jpeg: bytes, sha256: str, *, copied: bool = False
    ) -> Cut:
        """A chip that is there; of one that is taken over, what the settings make of its measures may be new."""
        reason = rejection(quality, row["focus_box"], self.settings)
        verdict = {"status": "ok" if reason is None else "rejected", "reason": reason, "sha256": sha256}
        return Cut(_described(scene, row) | vars(quality) | verdict, jpeg, copied=copied)


def _described(scene: Scene, row: Mapping[str, Any]) -> dict[str, Any]:
    """What of a chip's row does not depend on its pixels."""
    kept = {name: row[name] for name in ("chip_id", "width", "height", "window_digest")}
    return kept | {name: getattr(scene, name) for name in ("datetime", "licence", "attribution", "synthetic")}
