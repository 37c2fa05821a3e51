"""Effective resolution: the finest detail that an image shows, by its spectrum, whatever the size of its pixels.

Services enlarge images for a deeper zoom, providers resample flights of several resolutions to one product. In
photographs each octave of frequencies has about as much energy as the next (Field, Relations between the statistics of
natural images, 1987); of an enlarged image, what is above the noise falls steeply where its former pixels end.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from skyscript_assets.lib.arrays import FloatArray, IntArray
from skyscript_assets.lib.errors import CorruptInputError, SceneError
from skyscript_assets.lib.imagery.reader import GeoBox, Pixels, SceneReader
from skyscript_assets.lib.imagery.scenes import Scene, read_scenes, write_scenes
from skyscript_assets.lib.progress import Progress

SIDE_PX, WINDOWS = 256, 4
"""Side of a window, and most windows in a row and in a column of a scene."""

LEAST_DEVIATION = 8.0
"""Windows whose grey values deviate less (of 255) show nothing that could be fine."""

BINS_AN_OCTAVE, OCTAVES, DROP_DB = 8, 5, 8.0
"""Fall of energy within an octave: sharp photographs that were tried fall less, enlarged ones more."""

LEAST_FACTOR = 1.25
"""Detail nearer to a pixel's size than this counts as as fine: lenses, JPEG and noise blur as much."""


def measure_scenes(folder: Path, open_scene: Callable[[Scene], SceneReader], progress: Progress) -> int:
    """Write `effective_gsd_m` of the scenes of a `scene_index` folder; how many are coarser than their pixels."""
    scenes = read_scenes(folder)
    for number, scene in enumerate(scenes):
        scenes[number] = replace(scene, effective_gsd_m=effective_gsd_m(open_scene(scene)))
        progress(number + 1, len(scenes), "scenes measured")
    write_scenes(folder, scenes)
    return sum((scene.effective_gsd_m or 0.0) > scene.gsd_m for scene in scenes)


def effective_gsd_m(reader: SceneReader) -> float | None:
    """Metres on the ground of a scene's finest detail, at least its GSD, or None where nothing is shown or readable.

    It is the median of windows spread over the scene; the reader is not yet entered.
    """
    scene = reader.scene
    a, b, c, d, e, f = scene.transform
    columns, rows = (
        np.unique(np.linspace(0, side - SIDE_PX, min(WINDOWS, side // SIDE_PX)).astype(int)).tolist()
        for side in (scene.width, scene.height)
    )
    corners = [(a, b, c + a * x + b * y, d, e, f + d * x + e * y) for y in rows for x in columns]
    try:
        with reader:
            read = [found for _, found in reader.read_many([GeoBox(scene.crs, at, SIDE_PX, SIDE_PX) for at in corners])]
    except (CorruptInputError, SceneError):
        return None
    factors = [factor for found in read if isinstance(found, Pixels) and (factor := _factor(found)) is not None]
    if not factors:
        return None
    factor = float(np.median(factors))
    return scene.gsd_m * (factor if factor >= LEAST_FACTOR else 1.0)


def _factor(pixels: Pixels) -> float | None:
    """How many pixels wide the finest detail of a window is; None where it is not whole or shows nothing."""
    grey = pixels.rgb @ np.array([0.299, 0.587, 0.114])  # luma, ITU-R BT.601
    if not pixels.valid.all() or grey.std() < LEAST_DEVIATION:
        return None
    return max(_spectral_factor(grey), min(_repeated_factor(grey), _repeated_factor(grey.T)))


def _spectral_factor(grey: FloatArray) -> float:
    """Pixels in half a period of the lowest frequency at which energy has fallen by `DROP_DB` within an octave."""
    taper, bins, corner, middle = _frequencies()
    power = np.log(np.abs(np.fft.rfft2((grey - grey.mean()) * taper)) ** 2 + 1e-6)
    # Means of logarithms: the lines that streets and JPEG's blocks draw weigh little. The corner is noise alone.
    level = np.exp((np.bincount(bins.ravel(), power.ravel()) / np.bincount(bins.ravel()))[1:-1])
    energy = 10.0 * np.log10(np.maximum(level - np.exp(power[corner].mean()), 1e-3 * level) * middle**2)
    change = np.pad(energy[BINS_AN_OCTAVE:] - energy[:-BINS_AN_OCTAVE], 1, mode="edge")
    fallen = np.flatnonzero(np.convolve(change, [0.25, 0.5, 0.25], "valid") <= -DROP_DB)
    return float(0.5 / middle[BINS_AN_OCTAVE + fallen[0]]) if len(fallen) else 1.0


def _repeated_factor(grey: FloatArray) -> float:
    """Rows for each row that does not repeat the one before, as nearest neighbour makes them."""
    change = np.abs(np.diff(grey, axis=0)).mean(axis=1)
    return len(change) / max(1, int((change >= 0.25 * np.quantile(change, 0.9)).sum()))


@cache
def _frequencies() -> tuple[FloatArray, IntArray, NDArray[np.bool_], FloatArray]:
    """A window's taper, the bin of each of its frequencies (0 and the last are none), its corner, the bins' middles."""
    radius = np.hypot(np.fft.fftfreq(SIDE_PX)[:, np.newaxis], np.fft.rfftfreq(SIDE_PX))
    edges = 0.5 * 2.0 ** (np.arange(-OCTAVES * BINS_AN_OCTAVE, 1) / BINS_AN_OCTAVE)
    taper = np.outer(np.hanning(SIDE_PX), np.hanning(SIDE_PX))
    return taper, np.digitize(radius, edges), radius > 0.6, np.sqrt(edges[1:] * edges[:-1])
