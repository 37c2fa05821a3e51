"""The camera: blur, haze, tone curve, noise, 8 bits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from skyscript_assets.demo.painter.noise import F32

_STEPS = 4096
_HAZE = np.array([0.0125, 0.0150, 0.0195], np.float32)
"""Path radiance of a clear day, as reflectance: more in the blue."""

_EXPOSURE = 1.02
"""Gain of the camera."""

_BRIGHTEST = 1.05
"""Radiance that saturates."""

_SIDE_TAP = 0.17
"""Outer weight of the blur (w, 1 - 2w, w): a modulation transfer of about 0.3 at the Nyquist frequency."""


def _tone_curve() -> F32:
    """Display value in 0..255 of a radiance in 0.._BRIGHTEST: sRGB's curve with slightly more contrast."""
    radiance = np.linspace(0.0, _BRIGHTEST, _STEPS)
    display = np.where(radiance <= 0.0031308, 12.92 * radiance, 1.055 * np.maximum(radiance, 1e-9) ** (1 / 2.4) - 0.055)
    display = np.clip(1.04 * display / display[-1], 0, 1)
    curve = display + 0.0095 * np.sin(2 * np.pi * (display - 0.5))
    shown: F32 = (255.0 * np.clip(curve, 0, 1)).astype(np.float32)
    return shown


_CURVE = _tone_curve()


def average(image: npt.NDArray[np.float32], factor: int) -> F32:
    """Mean of squares of pixels; `image` is (..., rows, columns), both multiples of the factor."""
    if factor == 1:
        return image
    *front, rows, cols = image.shape
    averaged = np.zeros((*front, rows // factor, cols // factor), np.float32)
    for down in range(factor):
        for right in range(factor):
            averaged += image[..., down::factor, right::factor]
    averaged *= np.float32(1.0 / factor**2)
    return averaged


def expose(radiance: F32, inner: tuple[slice, slice], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """The picture a camera takes.

    Args:
        radiance: (3, rows, columns) at the finished GSD, with a margin of a pixel or more.
        inner: The rows and columns that are kept.
        rng: Where the noise comes from.

    Returns:
        (3, kept rows, kept columns) uint8.
    """
    rows, cols = inner
    shape = (rows.stop - rows.start, cols.stop - cols.start)
    shared = rng.standard_normal(shape, dtype=np.float32)
    picture = np.empty((3, *shape), np.uint8)
    for channel in range(3):
        seen = _blur(radiance[channel], rows, cols)
        seen *= np.float32(_EXPOSURE)
        seen += _HAZE[channel]
        seen *= np.float32((_STEPS - 1) / _BRIGHTEST)
        np.minimum(seen, _STEPS - 1, out=seen)
        shown = _CURVE.take(seen.astype(np.intp))
        own = rng.standard_normal(shape, dtype=np.float32)
        shown += (shared * np.float32(1.0) + own * np.float32(0.9)) * (np.float32(0.75) + shown * np.float32(0.004))
        np.clip(shown + np.float32(0.5), 0, 255, out=shown)
        picture[channel] = shown.astype(np.uint8)
    return picture


def _blur(plane: F32, rows: slice, cols: slice) -> F32:
    """A separable blur of three taps, computed where it is kept."""
    w = np.float32(_SIDE_TAP)
    part = plane[:, cols.start - 1 : cols.stop + 1]
    lines = part[:, 1:-1] * (1 - 2 * w)
    lines += w * part[:, :-2]
    lines += w * part[:, 2:]
    blurred = lines[rows] * (1 - 2 * w)
    blurred += w * lines[rows.start - 1 : rows.stop - 1]
    blurred += w * lines[rows.start + 1 : rows.stop + 1]
    result: F32 = blurred
    return result
