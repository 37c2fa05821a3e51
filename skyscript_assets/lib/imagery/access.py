"""Which reader a scene needs."""

from __future__ import annotations

from skyscript_assets.lib.imagery.raster import RasterReader
from skyscript_assets.lib.imagery.reader import SceneReader
from skyscript_assets.lib.imagery.scenes import Scene
from skyscript_assets.lib.settings import Source


def open_scene(scene: Scene, source: Source) -> SceneReader:  # noqa: ARG001
    """The reader of a scene, to be used as a context manager.

    Args:
        scene: The scene.
        source: Settings of its source: how its images are reached.
    """
    return RasterReader(scene)
