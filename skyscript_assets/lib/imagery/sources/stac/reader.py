"""The reader of scenes whose GeoTIFFs are elsewhere."""

import contextlib
from collections.abc import Sequence

from skyscript_assets.lib.errors import CorruptInputError, SceneError
from skyscript_assets.lib.imagery.geotiff.raster import RasterReader
from skyscript_assets.lib.imagery.geotiff.remote import ImageFile
from skyscript_assets.lib.imagery.reader import Pixels, Window
from skyscript_assets.lib.imagery.scenes import Scene
from skyscript_assets.lib.imagery.sources.stac.hrefs import open_href
from skyscript_assets.lib.imagery.sources.stac.settings import StacSource


def joint_fingerprint(files: Sequence[ImageFile]) -> str:
    """The fingerprint of a scene of one or three files."""
    return "".join(file.fingerprint[: 64 // len(files)] for file in files)


class RemoteReader(RasterReader):
    """Reads windows of a scene of one or three remote GeoTIFFs, the blocks under many windows fetched together.

    A file that its server refuses, or that is broken, makes its windows unreadable and not the run.
    """

    def __init__(self, scene: Scene, source: StacSource) -> None:
        super().__init__(scene)
        self._source = source
        self._files: tuple[ImageFile, ...] = ()
        self._failure: CorruptInputError | None = None
        self._windows: frozenset[Window] = frozenset()

    def open(self, stack: contextlib.ExitStack) -> None:
        """Get the beginning of the files, unless this process has them.

        Raises:
            SceneError: they are not those that were indexed, or the settings no longer allow them.
            UnreachableError: their server failed on every try.
        """
        self._opened_now = stack.enter_context(contextlib.ExitStack())
        try:
            self._files = tuple(open_href(href, self._source) for href in self.scene.hrefs)
        except CorruptInputError as error:
            self._failure = error
            return
        if joint_fingerprint(self._files) != self.scene.fingerprint:
            raise SceneError(
                f"{self.scene.where} has changed since it was indexed as scene {self.scene.scene_id}: materialize "
                "scene_index and chip_plan again"
            )

    @property
    def block_shape(self) -> tuple[int, int]:
        """(rows, columns) of the blocks in which the files are stored."""
        return self._files[0].block_shape if self._files else (self.scene.height, self.scene.width)

    def expect(self, windows: Sequence[Window]) -> None:
        """Fetch the blocks under some windows together; what fails there fails again, alone, when it is read."""
        if self._failure is None and windows:
            with contextlib.suppress(CorruptInputError):
                self._fetch(frozenset(windows))

    def read_inside(self, window: Window) -> Pixels:
        """Pixels of a window of the image, as it is stored."""
        if self._failure is not None:
            raise self._failure
        if window not in self._windows:
            self._fetch(frozenset([window]))
        return self.read_plainly(window)

    def _fetch(self, windows: frozenset[Window]) -> None:
        self._windows = frozenset()
        self._opened_now.close()
        self.show(*[self._opened_now.enter_context(file.open(sorted(windows))) for file in self._files])
        self._windows = windows
