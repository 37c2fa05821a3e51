"""Reading, measuring and encoding chips: what one thread does at its desk, and the crew of threads.

Which chips are cut, in which order, and where they are written belongs to `cut`.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import simplejpeg

from skyscript_assets.lib.chips.failures import READ_ERRORS, Failure, failed, is_failure
from skyscript_assets.lib.chips.quality import Quality, measure, rejection
from skyscript_assets.lib.chips.reuse import EarlierChips
from skyscript_assets.lib.imagery.reader import GeoBox, Pixels, SceneReader
from skyscript_assets.lib.imagery.scenes import Scene
from skyscript_assets.lib.settings.plant import ChipSettings

OpenScene = Callable[[Scene], SceneReader]
"""What makes a scene's reader; each is used by one thread."""

AHEAD = 3
"""Batches for each thread that may be in work, or done and not yet written: what is held in memory."""


@dataclass(frozen=True)
class Task:
    """Chips of one scene, neighbours on the ground: their rows of the plan and their window digests."""

    scene: Scene
    rows: Sequence[Mapping[str, Any]]
    digests: Sequence[str]


@dataclass(frozen=True)
class Cut:
    """A chip that was cut: its columns of `chips.parquet` but for its place, its JPEG, or why it could not be read."""

    row: dict[str, Any]
    jpeg: bytes | None = None
    failure: dict[str, Any] | None = None
    copied: bool = False


class Desk:
    """Where one thread cuts: it keeps the scene open that it read last.

    Args:
        settings: JPEG quality and limits of rejection.
        open_scene: The reader of a scene.
        earlier: Chips that need not be read.
        history: What is known of chips that could not be read before, by id.
    """

    def __init__(
        self,
        settings: ChipSettings,
        open_scene: OpenScene,
        earlier: EarlierChips,
        history: Mapping[str, Failure],
    ) -> None:
        self._settings = settings
        self._open_scene = open_scene
        self._earlier = earlier
        self._history = history
        self._stack = contextlib.ExitStack()
        self._reader: SceneReader | None = None

    def close(self) -> None:
        """Close the scene that is open."""
        self._reader = None
        self._stack.close()

    def cut(self, task: Task) -> list[Cut]:
        """Cut the chips of a task, in its order."""
        cuts: dict[int, Cut] = {}
        for index, digest in enumerate(task.digests):
            if (found := self._earlier.find(digest)) is not None:
                cuts[index] = self._copied(task, index, *found)
        if todo := [index for index in range(len(task.rows)) if index not in cuts]:
            for index, pixels in self._read(task, todo):
                cuts[index] = self._cut(task, index, pixels)
        return [cuts[index] for index in range(len(task.rows))]

    def _read(self, task: Task, todo: Sequence[int]) -> Iterator[tuple[int, Pixels | BaseException]]:
        """The pixels of some chips of a task, or the error in their place."""
        rows = [task.rows[index] for index in todo]
        windows = [GeoBox(row["crs"], tuple(row["transform"]), row["width"], row["height"]) for row in rows]
        left = dict(enumerate(windows))
        try:
            reader = self._open(task.scene)
            for number, pixels in reader.read_many(windows):
                del left[number]
                yield todo[number], pixels
        except READ_ERRORS as error:
            _pass_on_unless_failure(error)
            if self._reader is None:
                yield from ((todo[number], error) for number in left)
                return
        # Where reading many ended with the error of one of them, the others are read one by one.
        for number, window in left.items():
            try:
                yield todo[number], self._open(task.scene).read(*window)
            except READ_ERRORS as error:
                _pass_on_unless_failure(error)
                yield todo[number], error

    def _open(self, scene: Scene) -> SceneReader:
        if self._reader is None or self._reader.scene is not scene:
            self.close()
            self._reader = self._stack.enter_context(self._open_scene(scene))
        return self._reader

    def _row(self, task: Task, index: int) -> dict[str, Any]:
        """What of a chip's row does not depend on its pixels."""
        scene, planned = task.scene, task.rows[index]
        return {
            "chip_id": planned["chip_id"],
            "width": planned["width"],
            "height": planned["height"],
            "datetime": scene.datetime,
            "window_digest": task.digests[index],
            "licence": scene.licence,
            "attribution": scene.attribution,
            "synthetic": scene.synthetic,
        }

    def _cut(self, task: Task, index: int, pixels: Pixels | BaseException) -> Cut:
        """Measure and encode a chip that was read, or enter it into the ledger."""
        row, focus_box = self._row(task, index), task.rows[index]["focus_box"]
        if isinstance(pixels, BaseException):
            failure = failed(pixels, dt.datetime.now(dt.UTC), self._history.get(row["chip_id"]))
            entry = vars(failure) | {"scene_id": task.scene.scene_id}
            return Cut(row | {"status": "rejected", "reason": "unreadable"}, failure=entry)
        quality = measure(pixels.rgb, pixels.mask, focus_box)
        jpeg = simplejpeg.encode_jpeg(pixels.rgb, self._settings.jpeg_quality, colorspace="RGB", colorsubsampling="420")
        digest = hashlib.sha256(jpeg).hexdigest()
        return Cut(row | self._judged(quality, focus_box) | {"sha256": digest}, jpeg)

    def _copied(self, task: Task, index: int, quality: Quality, jpeg: bytes, digest: str) -> Cut:
        """A chip that is taken over: its measures are as they were, what the settings make of them may be new."""
        judged = self._judged(quality, task.rows[index]["focus_box"])
        return Cut(self._row(task, index) | judged | {"sha256": digest}, jpeg, copied=True)

    def _judged(self, quality: Quality, focus_box: Sequence[int]) -> dict[str, Any]:
        reason = rejection(quality, focus_box, self._settings)
        return vars(quality) | {"status": "ok" if reason is None else "rejected", "reason": reason}


def _pass_on_unless_failure(error: BaseException) -> None:
    if not is_failure(error):
        raise error


class Crew:
    """Threads that cut, each at a desk of its own; they share the process's decoded blocks.

    Args:
        desks: Where they sit.
    """

    def __init__(self, desks: Sequence[Desk]) -> None:
        self._queue: queue.SimpleQueue[tuple[Task, Future[list[Cut]]] | None] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=self._work, args=(desk,), name="cut", daemon=True) for desk in desks]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Let everyone finish what is begun, and end."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def run(self, tasks: Iterable[Task]) -> Iterator[list[Cut]]:
        """Cut tasks, and give what was cut in their order; no more of them are begun than `AHEAD` allows."""
        waiting: deque[Future[list[Cut]]] = deque()
        try:
            for task in tasks:
                waiting.append(Future())
                self._queue.put((task, waiting[-1]))
                if len(waiting) > AHEAD * len(self._threads):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

    def _work(self, desk: Desk) -> None:
        # A dataset belongs to the thread that opened it, to be closed as well.
        with contextlib.closing(desk):
            while (item := self._queue.get()) is not None:
                task, future = item
                if future.set_running_or_notify_cancel():
                    try:
                        future.set_result(desk.cut(task))
                    except BaseException as error:  # noqa: BLE001 - raised again by whoever asks for the result
                        future.set_exception(error)
