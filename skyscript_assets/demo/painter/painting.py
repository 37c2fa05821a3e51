"""A painting: what is decided once for it, and its blocks: layers, crowns, light, camera."""

import math
from collections import Counter, defaultdict
from dataclasses import dataclass

import numpy as np
import shapely

from skyscript_assets.demo.painter import fields as coarse
from skyscript_assets.demo.painter import ground, looks
from skyscript_assets.demo.painter import kernels as k
from skyscript_assets.demo.painter.fields import Fields
from skyscript_assets.demo.painter.grid import Block, Grid, Window
from skyscript_assets.demo.painter.houses import add_building
from skyscript_assets.demo.painter.kernels import F64, U8
from skyscript_assets.demo.painter.layers import GROUND, Layer, Stage, Studio, burn
from skyscript_assets.demo.painter.looks import F32, MATERIALS, Season
from skyscript_assets.demo.painter.objects import REACH_M, MapObject
from skyscript_assets.demo.painter.props import MAX_CROWN_M, add_thing, add_trees, invent
from skyscript_assets.demo.painter.shapes import sea_polygons
from skyscript_assets.demo.settings import SyntheticSource
from skyscript_assets.lib.geometry import Bounds

MAX_SHADOW_M = 70.0  # what casts a longer one is cut
_LIGHT = np.array(
    [[0.80, 0.775, 0.735], [0.20, 0.225, 0.265], [0.2126, 0.7152, 0.0722], [0.0125, 0.0150, 0.0195]], np.float32
)
"""Shares of sun and sky in the light on flat open ground, weights of luminance (IEC 61966-2-1), a clear day's haze."""

_GROVES = np.array([(2.9, 1.3, 2.5, 6.0, 0.96), (4.1, 2.0, 4.2, 3.2, 0.04), (7.6, 0.8, 3.7, 2.3, 0.25)])
"""`kernels.scatter`'s conifers, broadleaves, lone trees: spacing, radii, height over radius, share of conifers."""

_CROWN_REACH_M = 0.6 * MAX_CROWN_M + 3.0
"""How far a crown reaches from its centre, with what decides whether it stands."""

_HANDLERS = {
    "building": add_building,
    "area": ground.add_area,
    "road": ground.add_road,
    "rail": ground.add_rail,
    "stream": ground.add_stream,
    "barrier": ground.add_barrier,
    "tree": add_trees,
    "tree_row": add_trees,
    "thing": add_thing,
}


@dataclass(frozen=True)
class Painting:
    """All that a block needs; `made` counts what the map lacks."""

    grid: Grid
    source: SyntheticSource
    season: Season
    fields: Fields
    noise: F32
    dice: F32
    layers: dict[Stage, Layer]
    trees: F64
    tallest_m: float
    made: Counter[str]


def make_painting(grid: Grid, objects: list[MapObject], source: SyntheticSource, zoom: int, bbox: Bounds) -> Painting:
    """Decide everything about a painting of objects, sorted by id, by a source's date, sun, seed, colours and rates.

    Palette and sun vary by Web Mercator cells of a zoom; in `bbox`, degrees, objects are known without gaps.
    """
    (known,) = grid.to_local(np.array([shapely.segmentize(shapely.box(*bbox), 0.001)], dtype=object))
    by_role: defaultdict[str, list[shapely.Geometry]] = defaultdict(list)
    for item in objects:
        works = item.role == "zone" and item.tags.get("landuse") in {"industrial", "retail", "port", "depot"}
        wet = item.role == "area" and looks.area_material(item.tags) == "water"
        for kind in {item.role, "works" if works else item.role, "water" if wet else item.role}:
            by_role[kind].append(item.geometry)
    sea = sea_polygons(by_role["coastline"], known)
    by_role["water"] += sea
    studio = Studio(grid.pixel_m, source.seed, coarse.make_fields(grid, by_role, source, zoom))
    studio.add(GROUND, sea, MATERIALS["water"], -30.0)
    for item in objects:
        if item.role in _HANDLERS:
            _HANDLERS[item.role](studio, item)
    ground.add_crossings(studio, by_role["crossing"])
    for item in invent(studio, grid, source.invent_per_km2):
        _HANDLERS[item.role](studio, item)
    season = looks.season_of(source.datetime, (bbox[1] + bbox[3]) / 2)
    layers = studio.layers(season, (-REACH_M, -REACH_M, grid.size_m[0] + REACH_M, grid.size_m[1] + REACH_M))
    noise = coarse.make_noise(grid.pixel_m, source.seed)
    dice = coarse.rng_of(source.seed, "dice").random((7, 256, 256), np.float32)
    trees = np.array(studio.trees).reshape(-1, 6)
    tops = [shape.look.height_m + sum(shape.roof[1:2]) for shapes in studio.shapes.values() for shape in shapes]
    tallest = max([25.0, *tops, *trees[:, 3]])
    return Painting(grid, source, season, studio.fields, noise, dice, layers, trees, tallest, studio.made)


def block_of(painting: Painting, window: Window) -> Block:
    """A window (row, column, height, width) with margins from which shadows and crowns reach into it."""
    row, col, height, width = window
    source, grid, p = painting.source, painting.grid, painting.grid.pixel_m
    reach, azimuth = min(MAX_SHADOW_M, painting.tallest_m / lowest_sun(source)), math.radians(source.sun_azimuth_deg)
    spread = math.sin(math.radians(coarse.AZIMUTH_SPREAD_DEG))
    towards = (math.cos(azimuth), -math.cos(azimuth), -math.sin(azimuth), math.sin(azimuth))
    metres = [_CROWN_REACH_M + 2 * grid.gsd_m + reach * max(0.0, part + spread) for part in towards]
    factor = grid.supersampling
    top, bottom, left, right = (math.ceil(margin / p / factor) * factor for margin in metres)
    core = (slice(top, top + height), slice(left, left + width))
    return Block(row - top, col - left, height + top + bottom, width + left + right, core, p)


def lowest_sun(source: SyntheticSource) -> float:
    """Rise over run of the light of the lowest sun of any cell."""
    return math.tan(math.radians(max(5.0, source.sun_elevation_deg - coarse.ELEVATION_SPREAD_DEG)))


def paint_block(painting: Painting, window: Window) -> tuple[U8, U8, int]:
    """Paint a window of the canvas, (row, column, height, width) in painted pixels, multiples of the supersampling.

    Returns the picture (3, rows, columns), surface codes (rows, columns), and how many crowns stand in it by chance.
    """
    block, fields, noise = block_of(painting, window), painting.fields, painting.noise
    place, shape = fields.place(block), (block.height, block.width)
    canvas, surface = np.zeros((*shape, 4), np.float32), np.zeros(shape, np.uint8)
    for stage, layer in painting.layers.items():
        near = layer.inside(block.bounds)
        if stage == GROUND:
            near = [0, 1, 2, *near]  # what is not mapped
        index, table = burn(layer.polygons[near], block), layer.looks[near]
        if stage == GROUND:
            burnt, index = index, np.empty_like(index)
            k.settle(burnt, index, noise, fields.maps, place)
            soil = index, table
        roofs = layer.roofs[near] if len(layer.roofs) else layer.roofs
        k.lay(index, table, roofs, layer.walls, noise, fields.maps, place, canvas, surface)
    most = np.prod([np.array(shape) * block.pixel_m / grove[0] + 2 for grove in _GROVES], axis=1).sum()
    crowns = np.empty((int(most), 6))
    crowns = crowns[: k.scatter(_GROVES, painting.dice, *soil, fields.maps, place, canvas, surface, crowns)]
    for trees in (painting.trees, crowns):
        k.stamp(trees, looks.crown_colours(painting.season), painting.season.leaf, noise, place, canvas, surface)
    if fields.random is not None:
        _recolour(fields, place, canvas, surface)
    azimuth, clear = math.radians(painting.source.sun_azimuth_deg), np.empty(shape, np.float32)
    axis = 0 if abs(math.cos(azimuth)) >= abs(math.sin(azimuth)) else 1
    k.cast(canvas, fields.maps, place, MAX_SHADOW_M * lowest_sun(painting.source), axis, clear)
    k.shade(clear, fields.maps, place, _LIGHT, canvas, surface)
    row, col, height, width = window
    at, factor = np.floor(crowns[:, :2] / block.pixel_m), painting.grid.supersampling
    standing = ((at >= (col, row)) & (at < (col + width, row + height))).all(axis=1)
    surfaces = np.ascontiguousarray(surface[block.core][factor // 2 :: factor, factor // 2 :: factor])
    return _photograph(painting, block, window, canvas), surfaces, int(standing.sum())


def _recolour(fields: Fields, place: F64, canvas: F32, surface: U8) -> None:
    """Give every surface of a cell its random colour, keeping texture: the ratio to the class's usual brightness."""
    assert fields.random is not None
    usual = np.full(max(looks.Surface) + 1, 0.2, np.float32)
    for look in reversed(MATERIALS.values()):
        usual[look.surface or 0] = looks.srgb_to_linear(look.a) @ _LIGHT[2]
    ratio = np.clip((canvas[..., :3] @ _LIGHT[2]) / usual[surface], 0.45, 2.2)
    rows, cols = ((np.arange(surface.shape[axis]) + place[axis]) * place[3] + place[4] for axis in (0, 1))
    cell = fields.cell[np.ix_(np.rint(rows).astype(int), np.rint(cols).astype(int))]
    canvas[..., :3] = fields.random[cell, surface] * ratio[..., None]


def _photograph(painting: Painting, block: Block, window: Window, canvas: F32) -> U8:
    """The picture of a block's core, in pixels of the finished size."""
    factor, (rows, cols) = painting.grid.supersampling, block.core
    if factor > 1:
        squares = canvas.reshape(block.height // factor, factor, block.width // factor, factor, 4)
        canvas = squares.mean(axis=(1, 3), dtype=np.float32)
    row, col, height, width = (side // factor for side in window)
    picture, radiance = np.empty((3, height, width), np.uint8), np.linspace(0.0, 1.05, 4096)
    bright = 1.055 * np.maximum(radiance, 1e-9) ** (1 / 2.4) - 0.055  # sRGB's curve
    curve = (255 * np.clip(np.where(radiance <= 0.0031308, 12.92 * radiance, bright), 0, 1)).astype(np.float32)
    k.expose(canvas, rows.start // factor, cols.start // factor, row, col, painting.noise, curve, picture)
    return picture
