"""Layers: styled polygons in painter's order, and their rasters block by block."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import shapely

from skyscript_assets.demo.painter.grid import Block
from skyscript_assets.demo.painter.noise import F32
from skyscript_assets.demo.painter.palette import RGB, srgb_to_linear
from skyscript_assets.lib.geometry import Bounds

Polygons = npt.NDArray[np.object_]

_BURNING = threading.Lock()
"""Rasterio swaps the warning filters of the whole process while it burns, which only one thread at a time may do."""

_CLIP_FROM = 40
"""Polygons of more vertices are clipped to a block before they are burnt."""


@dataclass(frozen=True)
class Style:
    """How one polygon is painted; what a layer does not use stays at its default.

    Attributes:
        material: Index of its material.
        tone: Factor on the brightness.
        level: OSM's layer, for bridges.
        height_m: Height of its top above the ground.
        colour: Its own sRGB colour in place of the material's.
        opacity: Share of its colour in the pixels it covers.
        surface: Class it gives to the pixels, 0 to leave what is there.
        angle: Direction of rows, radians from x to y.
        period_m: Distance of rows, 0 for none.
        stripes: Relative strength of rows.
    """

    material: int = -1
    tone: float = 1.0
    level: int = 0
    height_m: float = 0.0
    colour: RGB | None = None
    opacity: float = 1.0
    surface: int = 0
    angle: float = 0.0
    period_m: float = 0.0
    stripes: float = 0.0


@dataclass(frozen=True)
class Layer:
    """Polygons in the order they are painted, with their styles as columns.

    Attributes:
        polygons: Local metres.
        material: int; -1 where a colour stands for itself.
        tone: float32.
        level: int.
        height_m: float32.
        colour: (n, 3) linear float32, NaN where the material decides.
        opacity: float32.
        surface: uint8.
        rows: (n, 4) float32: cosine and sine of the rows' normal over their distance, strength, distance.
        tree: Spatial index of the polygons.
    """

    polygons: Polygons
    material: npt.NDArray[np.int32]
    tone: F32
    level: npt.NDArray[np.int32]
    height_m: F32
    colour: F32
    opacity: F32
    surface: npt.NDArray[np.uint8]
    rows: F32
    tree: shapely.STRtree

    def inside(self, bounds: Bounds) -> npt.NDArray[np.intp]:
        """Numbers of the polygons that touch a box, in painting order."""
        found: npt.NDArray[np.intp] = np.sort(self.tree.query(shapely.box(*bounds)))
        return found


@dataclass
class LayerBuilder:
    """Gathers polygons with a place in the painting order, then freezes them into a layer."""

    _polygons: list[shapely.Geometry] = field(default_factory=list)
    _orders: list[float] = field(default_factory=list)
    _styles: list[Style] = field(default_factory=list)

    def add(self, polygon: shapely.Geometry, order: float, style: Style) -> None:
        """Add a polygon; a greater order is painted later, among equals the first comes first."""
        self._polygons.append(polygon)
        self._orders.append(order)
        self._styles.append(style)

    def add_all(self, polygons: Iterable[shapely.Geometry], order: float, style: Style) -> None:
        """Add several polygons of one style."""
        for polygon in polygons:
            self.add(polygon, order, style)

    def widen(self, metres: float) -> None:
        """Widen all polygons and thin out their colour by as much, so that no line falls between pixels."""
        if metres <= 0 or not self._polygons:
            return
        before = np.array(self._polygons, dtype=object)
        after = shapely.buffer(before, metres, quad_segs=1, join_style="mitre")
        shares = shapely.area(before) / np.maximum(shapely.area(after), 1e-9)
        self._polygons = list(after)
        self._styles = [
            replace(style, opacity=style.opacity * float(share))
            for style, share in zip(self._styles, shares, strict=True)
        ]

    def freeze(self, bounds: Bounds) -> Layer:
        """The layer, clipped to a box in local metres."""
        polygons = np.array(self._polygons, dtype=object)
        if len(polygons):
            large = shapely.get_num_coordinates(polygons) > _CLIP_FROM
            polygons[large] = clip(polygons[large], bounds)
        seen = shapely.intersects(polygons, shapely.box(*bounds)) & ~shapely.is_empty(polygons)
        order = np.argsort(np.array(self._orders)[seen], kind="stable")
        styles = [self._styles[index] for index in np.flatnonzero(seen)[order]]
        return _layer(polygons[seen][order], styles)


def clip(polygons: Polygons, bounds: Bounds) -> Polygons:
    """Polygons cut to a box; what cannot be cut as it stands is made valid first."""
    try:
        clipped: Polygons = shapely.clip_by_rect(polygons, *bounds)
    except shapely.errors.GEOSException:
        clipped = shapely.clip_by_rect(shapely.make_valid(polygons), *bounds)
    return clipped


def burn(polygons: Polygons, block: Block) -> npt.NDArray[np.int32]:
    """The number (from 1) of the last polygon over each pixel's centre, 0 where there is none."""
    from affine import Affine
    from rasterio.features import rasterize

    large = shapely.get_num_coordinates(polygons) > _CLIP_FROM
    if large.any():
        polygons = polygons.copy()
        x0, y0, x1, y1 = block.bounds
        p = block.pixel_m
        polygons[large] = clip(polygons[large], (x0 - p, y0 - p, x1 + p, y1 + p))
    kept = [
        (polygon, number)
        for number, polygon in enumerate(polygons, start=1)
        if not polygon.is_empty and polygon.geom_type in {"Polygon", "MultiPolygon", "GeometryCollection"}
    ]
    if not kept:
        return np.zeros(block.shape, np.int32)
    with _BURNING:
        burnt: npt.NDArray[np.int32] = rasterize(
            kept, out_shape=block.shape, transform=Affine(*block.transform), fill=0, dtype="int32"
        )
    return burnt


def _layer(polygons: Polygons, styles: Sequence[Style]) -> Layer:
    n = len(styles)
    colour = np.full((n, 3), np.nan, np.float32)
    for index, style in enumerate(styles):
        if style.colour is not None:
            colour[index] = srgb_to_linear(style.colour)
    angle = np.array([style.angle for style in styles], np.float32)
    period = np.array([style.period_m for style in styles], np.float32)
    inverse = np.divide(1.0, period, out=np.zeros(n, np.float32), where=period > 0)
    stripes = np.array([style.stripes for style in styles], np.float32)
    rows = np.stack([-np.sin(angle) * inverse, np.cos(angle) * inverse, stripes, period], axis=1)
    return Layer(
        polygons=polygons,
        material=np.array([style.material for style in styles], np.int32),
        tone=np.array([style.tone for style in styles], np.float32),
        level=np.array([style.level for style in styles], np.int32),
        height_m=np.array([style.height_m for style in styles], np.float32),
        colour=colour,
        opacity=np.array([style.opacity for style in styles], np.float32),
        surface=np.array([style.surface for style in styles], np.uint8),
        rows=rows.astype(np.float32),
        tree=shapely.STRtree(polygons),
    )
