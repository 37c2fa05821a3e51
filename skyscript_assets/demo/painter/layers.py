"""Layers: shapes with looks, sorted by stages of painting, and their rasters block by block."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import shapely

from skyscript_assets.demo.painter import kernels as k
from skyscript_assets.demo.painter.grid import Block, Geometries
from skyscript_assets.demo.painter.kernels import F64, I32
from skyscript_assets.demo.painter.looks import F32, MATERIALS, Look, Season, srgb_to_linear
from skyscript_assets.lib.geometry import Bounds

if TYPE_CHECKING:
    from skyscript_assets.demo.painter.fields import Fields

Stage = tuple[int, int, int]
GROUND, ROOFS, THINGS = (0, 0, 0), (2, 0, 0), (3, 0, 0)
"""Stages of painting: what grows and lies, then made ground and its marks level by level, roofs, small things."""

DECK_M = 5.5
"""Height of a bridge above what it crosses, per level."""

_BURNING = threading.Lock()
"""Rasterio swaps the warning filters of the whole process while it burns, which only one thread at a time may do."""


def built(level: int, marks: int = 0) -> Stage:
    """The stage of roads, squares and pitches on a level of OSM's `layer`, or (1) of the marks on them."""
    return 1, level, marks


class Shape(NamedTuple):
    """A polygon, its place in the order of its stage, its look; a building's row of `k.lay`'s roofs, and walls."""

    order: float
    polygon: shapely.Geometry
    look: Look
    roof: tuple[float, ...] = ()
    walls: F64 = np.zeros((0, 4))


_UNMAPPED = [Shape(0.0, shapely.Polygon(), MATERIALS[name]) for name in ("yard", "garden", "rough")]
"""What lies where nothing is mapped (`k.settle`): the first shapes of the ground."""


@dataclass(frozen=True)
class Layer:
    """Polygons in painting order, with rows of looks and roofs, and the walls of these (`k.lay`)."""

    polygons: Geometries
    looks: F32
    roofs: F64
    walls: F64
    tree: shapely.STRtree

    def inside(self, bounds: Bounds) -> list[int]:
        """Numbers of the polygons that touch a box, in painting order."""
        return sorted(self.tree.query(shapely.box(*bounds)).tolist())


def make_layer(shapes: Sequence[Shape], season: Season, pixel_m: float) -> Layer:
    """Freeze shapes, in order; plants are tinted, rows that pixels of `pixel_m` metres cannot show fade."""
    n, looks = len(shapes), [shape.look for shape in shapes]
    table = np.zeros((n, k.COLUMNS), np.float32)
    for row, look in zip(table, looks, strict=True):
        angle, period, strength = look.rows
        strength *= min(1.0, max(0.0, period / (2.5 * pixel_m) - 1.0))
        row[k.GRAIN : k.ROW_X] = look.grain, look.patch, look.opacity, look.height_m, look.surface or 0
        row[k.ROW_X :] = -np.sin(angle) / period, np.cos(angle) / period, strength, period, *look.crowns
    ends, shape = np.reshape([(look.a, look.b) for look in looks], (n, 2, 3)), (n, 1, 1)
    green, tone = (np.reshape([getattr(look, of) for look in looks], shape) for of in ("green", "tone"))
    first, second = np.moveaxis(srgb_to_linear(season.tint(ends, green)) * tone, 1, 0)
    table[:, :3], table[:, 3:6] = first, second - first
    polygons = np.array([shape.polygon for shape in shapes], dtype=object)
    walls = np.cumsum([0, *(len(shape.walls) for shape in shapes)])
    roofs = [(*shape.roof, walls[n], walls[n + 1]) for n, shape in enumerate(shapes) if shape.roof]
    joined = np.concatenate([np.zeros((0, 4)), *(shape.walls for shape in shapes)])
    return Layer(polygons, table, np.reshape(roofs, (-1, 10)) * 1.0, joined, shapely.STRtree(polygons))


@dataclass
class Studio:
    """Where the objects of a painting become shapes, and trees: rows of `k.scatter`'s crowns.

    `fields` are the coarse maps, `roads` (line, width, level) of motor roads; `made` counts what the map lacks.
    """

    pixel_m: float
    seed: int
    fields: Fields
    shapes: defaultdict[Stage, list[Shape]] = field(default_factory=lambda: defaultdict(list))
    trees: list[tuple[float, ...]] = field(default_factory=list)
    roads: list[tuple[shapely.Geometry, float, int]] = field(default_factory=list)
    made: Counter[str] = field(default_factory=Counter)

    def add(self, stage: Stage, polygons: Iterable[shapely.Geometry], look: Look, order: float = 0.0) -> None:
        """Add polygons of one look; those of a greater order are painted later."""
        self.shapes[stage].extend(Shape(order, polygon, look) for polygon in polygons)

    def stroke(self, stage: Stage, lines: Iterable[shapely.Geometry], width_m: float, look: Look) -> None:
        """Add lines as bands of a width; where pixels are larger they are wider and fainter."""
        width = max(width_m, self.pixel_m)
        bands = shapely.buffer(list(lines), width / 2, quad_segs=2, cap_style="flat")
        self.add(stage, bands, replace(look, opacity=look.opacity * width_m / width))

    def dashes(self, stage: Stage, at: tuple[F64, F64, F64, F64], half_m: float, width_m: float, look: Look) -> None:
        """Add straight lines of a half length by their middles and unit vectors (x, y, ux, uy), which broadcast."""
        x, y, ux, uy = at
        ends = [np.stack([x + side * ux, y + side * uy], axis=-1) for side in (-half_m, half_m)]
        self.stroke(stage, shapely.linestrings(np.stack(ends, axis=1)), width_m, look)

    def layers(self, season: Season, bounds: Bounds) -> dict[Stage, Layer]:
        """All shapes as layers in painting order, cut to a box in local metres."""
        layers = {}
        for stage in sorted({GROUND, *self.shapes}):
            shapes = sorted(self.shapes[stage], key=lambda shape: shape.order)
            polygons = clip(np.array([shape.polygon for shape in shapes], dtype=object), bounds)
            seen = [shapes[n]._replace(polygon=polygons[n]) for n in np.flatnonzero(~shapely.is_empty(polygons))]
            unmapped = _UNMAPPED if stage == GROUND else []
            layers[stage] = make_layer([*unmapped, *seen], season, self.pixel_m)
        return layers


def clip(polygons: Geometries, bounds: Bounds) -> Geometries:
    """Polygons cut to a box; what cannot be cut as it stands is made valid first."""
    try:
        return np.asarray(shapely.clip_by_rect(polygons, *bounds))
    except shapely.errors.GEOSException:
        return np.asarray(shapely.clip_by_rect(shapely.make_valid(polygons), *bounds))


def burn(polygons: Geometries, block: Block) -> I32:
    """The number (from 1) of the last polygon over each pixel's centre, 0 where there is none."""
    from affine import Affine
    from rasterio.features import rasterize

    (x0, y0, x1, y1), p = block.bounds, block.pixel_m
    large = shapely.get_num_coordinates(polygons) > 40  # more than these are cut to the block first
    if large.any():
        polygons = polygons.copy()
        polygons[large] = clip(polygons[large], (x0 - p, y0 - p, x1 + p, y1 + p))
    areas = {"Polygon", "MultiPolygon", "GeometryCollection"}
    kept = [(area, n) for n, area in enumerate(polygons, 1) if not area.is_empty and area.geom_type in areas]
    if not kept:
        return np.zeros((block.height, block.width), np.int32)
    with _BURNING:
        shape, transform = (block.height, block.width), Affine(p, 0.0, x0, 0.0, p, y0)
        burnt: I32 = rasterize(kept, shape, transform=transform, fill=0, dtype="int32")
    return burnt
