"""Matching edges: how well the outlines of a window fit its image at each shift, and what many windows say together.

Pixels only; x grows with columns, y with rows. Directions are compared at twice their angle, so that an edge fits
whether it goes from dark to bright or from bright to dark, and an edge across the outline counts against it
(orientation correlation after Fitch et al., BMVC 2002, on squared gradients as in Bigün and Granlund, ICCV 1987).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import fft, ndimage

from skyscript_assets.lib.arrays import BoolArray, FloatArray

GRADIENT_SIGMA_PX = 1.0
"""Width of the Gaussian whose derivative the gradient is taken with, pixels."""

SAMPLE_PX = 0.5
"""Distance of the points that an outline is drawn with, pixels."""

MAX_DRAWN = 1.0
"""Greatest weight of a drawn pixel: walls that buildings share count once."""

INVALID_MARGIN_PX = 4
"""Gradients nearer than this to pixels without data are not used, pixels."""

LEAST_OVERLAP = 0.5
"""Least share of an outline's weight on pixels with data; shifts with less are not looked at."""

SPLITS = 64
"""Random halves of the windows that are compared."""

Rgb = npt.NDArray[np.float32]
ComplexArray = npt.NDArray[np.complex64]


@dataclass(frozen=True)
class Consensus:
    """What many windows say together.

    Attributes:
        dx: Shift in columns, to a fraction of a pixel.
        dy: Shift in rows.
        own: Each window's own best shift (dx, dy), [n, 2], whole pixels.
        used: Windows whose own shift agrees, [n].
        spread_px: Median distance of the used windows' own shifts from the joint one, pixels; NaN where none is used.
        peak_ratio: Second best peak of the joint surface by the best, 0..1.
        halves: Share of random halves of the windows whose two joint peaks agree.
        on_border: Whether the best shift lies on the border of what was searched.
    """

    dx: float
    dy: float
    own: FloatArray
    used: BoolArray
    spread_px: float
    peak_ratio: float
    halves: float
    on_border: bool


def edge_field(rgb: Rgb, valid: BoolArray) -> tuple[ComplexArray, BoolArray]:
    """The image's edges, and which pixels no pixel without data reaches; the image's border has none beyond it.

    Of pixels (rows, columns, 3), 0..255, and which hold data, (rows, columns), it gives magnitude 0..1 with twice the
    direction of the gradient as the angle, and the pixels that can be used; both (rows, columns), the former 0 outside
    the latter.
    """
    values = rgb.copy()
    if not valid.all() and valid.any():
        values[~valid] = values[valid].mean(axis=0)
    usable = np.asarray(ndimage.binary_erosion(valid, np.ones((3, 3), bool), iterations=INVALID_MARGIN_PX))
    squared = np.zeros(valid.shape, dtype=np.complex64)
    for channel in np.moveaxis(values, -1, 0):
        gx = ndimage.gaussian_filter(channel, GRADIENT_SIGMA_PX, order=(0, 1))
        gy = ndimage.gaussian_filter(channel, GRADIENT_SIGMA_PX, order=(1, 0))
        squared += (gx + 1j * gy) ** 2
    squared[~usable] = 0
    magnitude = np.sqrt(np.abs(squared))
    typical = float(np.median(magnitude[usable])) if usable.any() else 0.0
    # Strong and very strong edges count alike; what is weaker than most of the image hardly counts.
    soft = magnitude**2 / (magnitude**2 + (2.0 * typical) ** 2 + 1e-3)
    return np.asarray(squared / np.maximum(np.abs(squared), 1e-12) * soft, dtype=np.complex64), usable


def draw(start: FloatArray, end: FloatArray, weight: FloatArray, size: int) -> ComplexArray:
    """Edges drawn as an edge field (size, size): the weight as magnitude, twice the direction of the normal as angle.

    Their first and last points (x, y), [n, 2], are in pixels from the upper left corner; weights [n].
    """
    along = end - start
    length = np.hypot(*along.T)
    count = np.ceil(length / SAMPLE_PX).astype(np.int64)
    which = np.repeat(np.arange(len(start)), count)
    place = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + 0.5
    points = start[which] + along[which] * (place / count[which])[:, None] - 0.5
    tangent = (along[:, 0] + 1j * along[:, 1]) / np.maximum(length, 1e-12)
    value = (-(tangent**2) * weight * length / np.maximum(count, 1))[which]
    column, row = np.floor(points).astype(np.int64).T
    fx, fy = points[:, 0] - column, points[:, 1] - row
    drawn = np.zeros(size * size, dtype=np.complex128)
    for x, y, share in (
        (column, row, (1 - fx) * (1 - fy)),
        (column + 1, row, fx * (1 - fy)),
        (column, row + 1, (1 - fx) * fy),
        (column + 1, row + 1, fx * fy),
    ):
        inside = (x >= 0) & (x < size) & (y >= 0) & (y < size)
        at, of = (y * size + x)[inside], (value * share)[inside]
        drawn += np.bincount(at, of.real, size * size) + 1j * np.bincount(at, of.imag, size * size)
    picture = drawn.reshape(size, size)
    return np.asarray(picture / np.maximum(np.abs(picture) / MAX_DRAWN, 1.0), dtype=np.complex64)


def surface(field: ComplexArray, usable: BoolArray, outline: ComplexArray, radius: int) -> FloatArray | None:
    """How well an outline fits an edge field at each shift, [2 radius + 1, 2 radius + 1], as deviations from the mean.

    At a shift by (dx, dy), element [radius + dy, radius + dx], the value is the weighted mean of cos 2(angle between
    the outline's normal and the image's gradient), where the image has an edge, over the outline's pixels with data.

    Args:
        field: `edge_field` of the window, (rows, columns).
        usable: Pixels that can be used, (rows, columns).
        outline: `draw` of the window's outlines, smaller by `radius` on every side.
        radius: Greatest shift in columns and in rows, pixels.

    Returns:
        None where no shift has the outline on data, or the image is without edges.
    """
    rows, columns = field.shape
    shape = (fft.next_fast_len(rows), fft.next_fast_len(columns))
    shifts = (slice(0, 2 * radius + 1), slice(0, 2 * radius + 1))
    spectrum = np.conj(fft.fft2(outline, shape))
    fit = fft.ifft2(fft.fft2(field, shape) * spectrum).real[shifts]
    weight = np.abs(outline)
    covered = fft.ifft2(fft.fft2(usable.astype(np.float32), shape) * np.conj(fft.fft2(weight, shape))).real[shifts]
    looked_at = covered >= LEAST_OVERLAP * float(weight.sum())
    if not looked_at.any():
        return None
    score = np.where(looked_at, fit / np.maximum(covered, 1e-6), np.nan).astype(np.float64)
    deviation = float(np.nanstd(score))
    if not deviation > 1e-9:
        return None
    return np.asarray(np.nan_to_num((score - np.nanmean(score)) / deviation))


def consensus(surfaces: FloatArray, tolerance_px: float) -> Consensus:
    """The shift that windows agree on, by the `surface` of each, [n, side, side], n of 2 or more.

    The joint surface is the mean of the windows'; its peak is found again from those windows alone whose own peak lies
    near it, no farther apart than `tolerance_px`, and placed by a parabola through its neighbours.
    """
    side = surfaces.shape[1]
    radius = side // 2
    smooth = ndimage.gaussian_filter(surfaces, (0, tolerance_px / 3, tolerance_px / 3))
    joint = smooth.mean(axis=0)
    peak = _argmax(joint)
    own = np.array([_argmax(one) for one in smooth])
    used = np.hypot(*(own - peak).T) <= tolerance_px
    final = smooth[used].mean(axis=0) if used.any() else joint
    row, column = _argmax(final)
    dy, dx = _vertex(final, row, column)
    apart = np.hypot(*(own[used] - (dy, dx)).T)
    yy, xx = np.mgrid[:side, :side]
    elsewhere = np.hypot(yy - peak[0], xx - peak[1]) > 2 * tolerance_px
    second = float(joint[elsewhere].max(initial=0.0))
    return Consensus(
        dx=dx - radius,
        dy=dy - radius,
        own=own[:, ::-1] - float(radius),
        used=used,
        spread_px=float(np.median(apart)) if used.any() else float("nan"),
        peak_ratio=float(np.clip(second / max(float(joint[tuple(peak)]), 1e-9), 0.0, 1.0)),
        halves=_halves(smooth, tolerance_px),
        on_border=not (0 < row < side - 1 and 0 < column < side - 1),
    )


def _halves(surfaces: FloatArray, tolerance_px: float) -> float:
    """Share of random halves of the windows whose joint peaks agree."""
    random = np.random.default_rng(0)
    flat = surfaces.reshape(len(surfaces), -1).astype(np.float32)
    order = random.permuted(np.tile(np.arange(len(flat)), (SPLITS, 1)), axis=1)
    chosen = np.zeros((SPLITS, len(flat)), dtype=np.float32)
    np.put_along_axis(chosen, order[:, : len(flat) // 2], 1.0, axis=1)
    peaks = [np.array(divmod(np.argmax(half @ flat, axis=1), surfaces.shape[2])) for half in (chosen, 1.0 - chosen)]
    return float((np.hypot(*(peaks[0] - peaks[1])) <= tolerance_px).mean())


def _argmax(values: FloatArray) -> npt.NDArray[np.int64]:
    """(row, column) of the greatest value."""
    return np.array(np.unravel_index(int(np.argmax(values)), values.shape), dtype=np.int64)


def _vertex(values: FloatArray, row: int, column: int) -> tuple[float, float]:
    """(row, column) of the top of the paraboloid through a peak and its eight neighbours, by least squares."""
    if not (0 < row < values.shape[0] - 1 and 0 < column < values.shape[1] - 1):
        return float(row), float(column)
    y, x = np.mgrid[-1:2, -1:2].reshape(2, 9).astype(np.float64)
    terms = np.column_stack([x * x, x * y, y * y, x, y, np.ones(9)])
    near = values[row - 1 : row + 2, column - 1 : column + 2].ravel()
    a, b, c, d, e, _ = np.linalg.lstsq(terms, near, rcond=None)[0]
    determinant = 4 * a * c - b * b
    if not (a < 0 and c < 0 and determinant > 0):
        return float(row), float(column)
    top_x, top_y = (b * e - 2 * c * d) / determinant, (b * d - 2 * a * e) / determinant
    return float(row + np.clip(top_y, -1, 1)), float(column + np.clip(top_x, -1, 1))
