"""Where the objects of a region lie in chips: pieces, boxes and what they take, in chip pixels."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from pyproj import Transformer

from skyscript_assets.lib.arrays import BoolArray, FloatArray, IntArray
from skyscript_assets.lib.chips.plan import PIXEL_DECIMALS
from skyscript_assets.lib.registration.shift import NO_SHIFT, move

MIN_OVERLAP_PX = 8.0
"""Least longer side of the overlap of a surrounding object with the chip, pixels; points count always."""

LINE_WIDTH_PX = 4.0
"""Width that a line is given when objects are ranked by the share of the chip they take, pixels."""

POINT_AREA_PX = 64.0
"""Area that a point is given in that ranking, square pixels."""

RIM_PX = 3.0
"""Width of the chip's rim, pixels: a piece within it of an object that goes on beyond the chip is not told."""

SLIVER = 0.1
"""Share of its own extent and of the chip's below which a piece of an object that is no texture does not tell it."""

Geometries = npt.NDArray[np.object_]


@dataclass(frozen=True)
class Overlay:
    """Overlaps of objects with chips: of the chips' own focus objects first, one each, then of others by chip and row.

    Attributes:
        sizes: Width and height of each chip, pixels.
        chip: Number of the chip, of each overlap.
        row: The object's row.
        piece: What of it lies in the chip, in chip pixels; an empty geometry or None where nothing does.
        box: (x0, y0, x1, y1) of that in whole chip pixels, half open.
        taken: Square pixels that it takes.
        whole: Whether all of the object lies in the chip.
    """

    sizes: IntArray
    chip: IntArray
    row: IntArray
    piece: Geometries
    box: IntArray
    taken: FloatArray
    whole: BoolArray

    def by_chip(self) -> list[list[int]]:
        """The overlaps of each chip, that of its focus object first."""
        counts = np.bincount(self.chip, minlength=len(self.sizes))
        return [own.tolist() for own in np.split(np.argsort(self.chip, kind="stable"), np.cumsum(counts)[:-1])]


def overlay(
    chips: Sequence[Mapping[str, Any]],
    focus: IntArray,
    geometry: Geometries,
    candidates: IntArray,
    tree: shapely.STRtree,
    textures: BoolArray,
) -> Overlay:
    """Overlay chips with objects; what of a candidate is too small to be seen in a chip is left out there.

    Args:
        chips: Rows of a plan, of one CRS and moved alike against OSM.
        focus: Row of each chip's focus object.
        geometry: Objects, in degrees.
        candidates: Rows of those that may lie around another.
        tree: Of the candidates' geometry.
        textures: Whether a piece without an outline tells an object, by row.
    """
    transforms = np.array([chip["transform"] for chip in chips])
    sizes = np.array([(chip["width"], chip["height"]) for chip in chips])
    corner, step = transforms[:, [2, 5]], transforms[:, [0, 4]]
    opposite = corner + sizes * step
    frames = np.concatenate([np.minimum(corner, opposite), np.maximum(corner, opposite)], axis=1)
    to_crs = Transformer.from_crs(4326, chips[0]["crs"], always_xy=True)
    shift = tuple(chips[0]["osm_shift_m"] or NO_SHIFT)
    back = (-shift[0], -shift[1])
    lon, lat = to_crs.transform(frames[:, [0, 2, 2, 0]], frames[:, [1, 1, 3, 3]], direction="INVERSE")
    # Beyond 180 degrees where the region's objects are, which lies across them.
    west, _, east, _ = shapely.bounds(geometry[focus]).T
    lon += 360.0 * np.rint(((west + east)[:, None] / 2 - lon) / 360.0)
    outlines = shapely.transform(shapely.polygons(np.stack([lon, lat], axis=-1)), lambda p: move(p, back))
    near, which = tree.query(outlines, predicate="intersects")
    found = candidates[which]
    others = np.lexsort((found, near))
    others = others[found[others] != focus[near[others]]]
    near = np.concatenate([np.arange(len(chips)), near[others]])
    found = np.concatenate([focus, found[others]])

    used, place = np.unique(found, return_inverse=True)
    projected = shapely.transform(geometry[used], lambda p: np.column_stack(to_crs.transform(*move(p, shift).T)))
    pieces, whole = _clip(projected[place], frames[near])
    bounds = shapely.bounds(pieces).reshape(-1, 4)
    # Rows grow southward: a piece's north-western corner is its first pixel.
    boxes = np.round((bounds[:, [0, 3, 2, 1]] - np.tile(corner[near], 2)) / np.tile(step[near], 2), PIXEL_DECIMALS)
    dimension, pixel = shapely.get_dimensions(geometry[used])[place], step[near, 0]
    taken = np.select(
        [dimension == 2, dimension == 1],
        [shapely.area(pieces) / pixel**2, shapely.length(pieces) / pixel * LINE_WIDTH_PX],
        POINT_AREA_PX,
    )
    longer = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0.0)
    extent, own = (np.where(dimension == 2, shapely.area(g), shapely.length(g)) for g in (pieces, projected[place]))
    chip = np.where(dimension == 2, sizes[near].prod(axis=1) * pixel**2, sizes[near].max(axis=1) * pixel)
    sliver = (extent < SLIVER * np.minimum(own, chip)) & (dimension > 0) & ~textures[found]
    rim = ((boxes[:, 2:] <= RIM_PX) | (boxes[:, :2] >= sizes[near] - RIM_PX)).any(axis=1) & ~whole
    shown = np.isfinite(boxes).all(axis=1) & ((dimension == 0) | (longer >= MIN_OVERLAP_PX)) & ~sliver & ~rim
    shown[: len(chips)] = True
    near, size = near[shown], sizes[near[shown]]
    boxes = np.nan_to_num(boxes[shown])
    first = np.clip(np.floor(boxes[:, :2]), 0, size - 1)
    last = np.clip(np.ceil(boxes[:, 2:]), first + 1, size)
    return Overlay(
        sizes=sizes,
        chip=near,
        row=found[shown],
        piece=_in_pixels(pieces[shown], corner[near], step[near]),
        box=np.concatenate([first, last], axis=1).astype(np.int64),
        taken=np.nan_to_num(taken[shown]),
        whole=whole[shown],
    )


def robust(operation: Callable[..., Any], *geometries: Geometries) -> Any:
    """An operation of shapely; where clipping has left an outline that touches itself, on what is valid of it.

    Raises:
        shapely.GEOSException: it fails all the same.
    """
    try:
        return operation(*geometries)
    except shapely.GEOSException:
        return operation(*map(shapely.make_valid, geometries))


def _clip(geometry: Geometries, frames: FloatArray) -> tuple[Geometries, BoolArray]:
    """Each geometry's piece in its frame (xmin, ymin, xmax, ymax), and whether that is all of it.

    A piece is None where its geometry leaves the CRS's domain.
    """
    bounds = shapely.bounds(geometry).reshape(-1, 4)
    finite = np.isfinite(bounds).all(axis=1)
    inside = ((bounds[:, :2] >= frames[:, :2]) & (bounds[:, 2:] <= frames[:, 2:])).all(axis=1)
    pieces = geometry.copy()
    pieces[~finite] = None
    across = np.flatnonzero(finite & ~inside)
    # One call for each: shapely's clip takes one frame at a time and is still four times as fast as its intersection.
    pieces[across] = [shapely.clip_by_rect(geometry[i], *frames[i].tolist()) for i in across]
    return pieces, inside


def _in_pixels(pieces: Geometries, corner: FloatArray, step: FloatArray) -> Geometries:
    """Geometries of a CRS in the pixels of grids, given by a corner and the step of each."""
    coordinates, owner = shapely.get_coordinates(pieces, return_index=True)
    return np.asarray(shapely.set_coordinates(pieces, (coordinates - corner[owner]) / step[owner]))
