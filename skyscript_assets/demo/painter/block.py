"""Painting one block: ground, made ground, marks, roofs, small things, crowns; then light and camera."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from skyscript_assets.demo.painter.grid import Block
from skyscript_assets.demo.painter.layers import Layer, burn
from skyscript_assets.demo.painter.light import illuminate, margins_px
from skyscript_assets.demo.painter.noise import F32, rng_of, wrap
from skyscript_assets.demo.painter.palette import MATERIAL_INDEX, MATERIALS, Surface, srgb_to_linear
from skyscript_assets.demo.painter.plan import Painting
from skyscript_assets.demo.painter.roofs import roof_pixels
from skyscript_assets.demo.painter.sensor import average, expose
from skyscript_assets.demo.painter.vegetation import CROWN_REACH_M, Canopy, grow, plant

_VEIL = np.float32(0.14)
"""Share of colour that air and camera take away."""

_UNMAPPED = ("yard", "garden", "rough", "soil")
"""Materials of ground that nobody mapped."""

_LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)
"""Luminance of linear sRGB (IEC 61966-2-1)."""


@dataclass(frozen=True)
class Painted:
    """A finished block.

    Attributes:
        picture: (3, rows, columns) uint8.
        surfaces: (rows, columns) uint8, codes of `Surface`.
        crowns: Crowns of the fields that stand in it.
    """

    picture: npt.NDArray[np.uint8]
    surfaces: npt.NDArray[np.uint8]
    crowns: int


@dataclass(frozen=True)
class Fields:
    """Noise and coarse maps over a block, all (rows, columns).

    Attributes:
        grain: From pixel to pixel.
        patch: From metre to metre.
        broad: Over tens of metres, with what the cell adds.
        growth: Where trees gather.
        settled: Whether people live nearby.
    """

    grain: F32
    patch: F32
    broad: F32
    growth: F32
    settled: F32


@dataclass
class Canvas:
    """A block in the making: linear albedo (3, rows, columns), height in metres, surface codes."""

    albedo: F32
    height_m: F32
    surface: npt.NDArray[np.uint8]


def block_of(painting: Painting, window: tuple[int, int, int, int]) -> Block:
    """A block with the margins that shadows, crowns and the camera's blur need.

    Args:
        painting: The painting.
        window: (row, column, height, width) of the part that is kept, painted pixels.
    """
    row, col, height, width = window
    grid, sun = painting.grid, painting.sun
    p, factor = grid.pixel_m, grid.supersampling
    reach = sun.reach_m(1e9)
    box = (col * p - reach, row * p - reach, (col + width) * p + reach, (row + height) * p + reach)
    heights = [25.0]
    near = painting.buildings.inside(box)
    heights.extend((painting.buildings.eaves_m[near] + painting.buildings.rise_m[near] + 2.5).tolist())
    heights.extend(painting.things.height_m[painting.things.inside(box)].tolist())
    margins = margins_px(sun.reach_m(max(heights)), sun, p, CROWN_REACH_M + 2 * grid.gsd_m)
    top, bottom, left, right = (-(-margin // factor) * factor for margin in margins)
    core = (slice(top, top + height), slice(left, left + width))
    return Block(row - top, col - left, height + top + bottom, width + left + right, core, p)


def paint_block(painting: Painting, window: tuple[int, int, int, int]) -> Painted:
    """Paint a window of the canvas.

    Args:
        painting: The painting.
        window: (row, column, height, width) in painted pixels; multiples of the supersampling.
    """
    block = block_of(painting, window)
    fields = _fields(painting, block)
    canvas, chances = _paint_ground(painting, block, fields)
    taken = _paint_built(painting, block, fields, canvas)
    roofed = _paint_roofs(painting, block, fields, canvas)
    _paint_things(painting, block, canvas)
    taken |= ndimage.maximum_filter(roofed, max(1, round(2.4 / block.pixel_m) | 1))
    crowns = _paint_crowns(painting, block, fields, canvas, (chances, taken))
    if painting.cells.random is not None:
        _recolour(canvas, painting.cells.random, painting.cells.index(block))
    illuminate(canvas.albedo, canvas.height_m, canvas.surface == Surface.TREES, block, painting.sun)
    _tint(painting, block, canvas)
    factor = painting.grid.supersampling
    inner = (_finer(block.core[0], factor), _finer(block.core[1], factor))
    picture = expose(average(canvas.albedo, factor), inner, rng_of(painting.seed, "camera", *window))
    middle = factor // 2
    surfaces = canvas.surface[block.core][middle::factor, middle::factor]
    return Painted(picture, np.ascontiguousarray(surfaces), crowns)


def _finer(part: slice, factor: int) -> slice:
    return slice(part.start // factor, part.stop // factor)


def _fields(painting: Painting, block: Block) -> Fields:
    around = painting.surroundings
    broad = around.vigour.at(block)
    broad += np.float32(2.0) * painting.cells.fields["vigour"].at(block)
    return Fields(
        grain=wrap(painting.textures.grain, block),
        patch=wrap(painting.textures.patch, block),
        broad=broad,
        growth=around.growth.at(block),
        settled=around.settled.at(block),
    )


# ------------------------------------------------------------------------------------------------- ground, made ground


@dataclass(frozen=True)
class _Table:
    """Looks of the polygons of a block, one row each after a row 0 that is never used."""

    material: npt.NDArray[np.int32]
    a: F32
    rise: F32
    tone: F32
    grain: F32
    patch: F32
    mix: F32
    surface: npt.NDArray[np.uint8]
    rows: F32
    height_m: F32


def _table(painting: Painting, layer: Layer, numbers: npt.NDArray[np.intp], extra: tuple[str, ...] = ()) -> _Table:
    season = painting.season
    first = [srgb_to_linear(season.tint(m.a, m.green)) for m in MATERIALS]
    second = [srgb_to_linear(season.tint(m.b, m.green)) for m in MATERIALS]
    a_of, b_of = np.array(first, np.float32), np.array(second, np.float32)
    material = np.concatenate([[0], layer.material[numbers], [MATERIAL_INDEX[name] for name in extra]]).astype(np.int32)
    a, b = a_of[material], b_of[material]
    own = np.full((len(material), 3), np.nan, np.float32)
    own[1 : len(numbers) + 1] = layer.colour[numbers]
    has_own = ~np.isnan(own[:, 0])
    a[has_own], b[has_own] = own[has_own] * np.float32(0.92), own[has_own] * np.float32(1.08)

    def of(name: str) -> F32:
        return np.array([getattr(m, name) for m in MATERIALS], np.float32)[material]

    def padded(values: npt.NDArray[np.generic], default: float) -> npt.NDArray[np.generic]:
        tail = np.full((len(extra), *values.shape[1:]), default, values.dtype)
        head = np.full((1, *values.shape[1:]), default, values.dtype)
        return np.concatenate([head, values[numbers], tail])

    surface = np.array([int(m.surface) for m in MATERIALS], np.uint8)[material]
    given = padded(layer.surface, 0).astype(np.uint8)
    return _Table(
        material=material,
        a=a,
        rise=b - a,
        tone=padded(layer.tone, 1.0).astype(np.float32),
        grain=of("grain"),
        patch=of("patch"),
        mix=of("mix") * np.float32(0.30),
        surface=np.where(given > 0, given, surface).astype(np.uint8),
        rows=padded(layer.rows, 0.0).astype(np.float32),
        height_m=padded(layer.height_m, 0.0).astype(np.float32),
    )


def _albedo(
    table: _Table, index: npt.NDArray[np.intp], noise: tuple[F32, F32, F32], ramp: F32 | None = None
) -> tuple[F32, F32]:
    """(position in the materials' mix, brightness factor) of pixels by their rows in a table and their noise."""
    grain, patch, broad = noise
    position = broad + np.float32(0.6) * patch
    position *= table.mix.take(index)
    position += np.float32(0.5)
    np.clip(position, -0.2, 1.2, out=position)
    bright = table.grain.take(index) * grain
    bright += table.patch.take(index) * patch
    bright += np.float32(1.0)
    bright *= table.tone.take(index)
    if ramp is not None:
        bright *= ramp
    return position, bright


def _paint_ground(painting: Painting, block: Block, fields: Fields) -> tuple[Canvas, dict[str, F32]]:
    """The ground and, for every field of crowns, the chance of a crown at each pixel."""
    numbers = painting.ground.inside(block.bounds)
    index = _fray(painting, burn(painting.ground.polygons[numbers], block), block).astype(np.intp)
    table = _table(painting, painting.ground, numbers, _UNMAPPED)
    bare = index == 0
    if bare.any():
        index = np.where(bare, len(numbers) + 1 + _unmapped(painting, block, fields), index)
    position, bright = _albedo(table, index, (fields.grain, fields.patch, fields.broad))
    canvas = Canvas(
        np.empty((3, *block.shape), np.float32), np.zeros(block.shape, np.float32), table.surface.take(index)
    )
    for channel in range(3):
        plane = canvas.albedo[channel]
        np.multiply(table.rise[:, channel].take(index), position, out=plane)
        plane += table.a[:, channel].take(index)
        plane *= bright
    _paint_rows(table, index, block, canvas)
    water = (table.material == MATERIAL_INDEX["water"]).take(index)
    if water.any():
        _paint_water(painting, block, np.flatnonzero(water), canvas)
    return canvas, _chances(table, index, fields)


def _fray(painting: Painting, index: npt.NDArray[np.int32], block: Block) -> npt.NDArray[np.int32]:
    """Shift pixels by noise of up to about a metre, so that the edges of plants and shores are not ruled lines."""
    if not index.any():
        return index
    down, right = painting.textures.fray
    source = wrap(down, block) * np.intp(block.width)
    source += wrap(right, block)
    source += np.arange(index.size, dtype=np.intp).reshape(block.shape)
    # A shift past the block's edge lands anywhere in its margin, which is not kept.
    return index.ravel().take(source, mode="clip")


def _unmapped(painting: Painting, block: Block, fields: Fields) -> npt.NDArray[np.intp]:
    """Which of the unmapped materials lies at each pixel: paved where built-up or industrial, else garden or wild."""
    around = painting.surroundings
    paved = around.urban.at(block) * np.float32(1.2)
    paved += around.works.at(block) * np.float32(0.85)
    paved += np.float32(0.16) * fields.broad
    paved += np.float32(0.05) * fields.patch
    kind = np.where(fields.settled > 0.3, 1, 2).astype(np.intp)
    kind[(fields.broad + np.float32(0.5) * fields.patch) > 2.7] = 3
    kind[paved > 0.62] = 0
    return kind


def _paint_rows(table: _Table, index: npt.NDArray[np.intp], block: Block, canvas: Canvas) -> None:
    """Rows of crops, stripes of mowing, and the wheel tracks of tractors every 18 m."""
    if not (table.rows[:, 2] > 0).any():
        return
    pixels = np.flatnonzero(table.rows[:, 2].take(index))
    if len(pixels) == 0:
        return
    rows, cols = np.divmod(pixels, block.width)
    look = table.rows[index.ravel()[pixels]]
    x, y = block.xs()[cols], block.ys()[rows]
    phase = x * look[:, 0] + y * look[:, 1]
    visible = np.clip(look[:, 3] / (2.5 * block.pixel_m) - 1.0, 0, 1)
    factor = 1 + look[:, 2] * visible * np.sin(2 * np.pi * phase).astype(np.float32)
    metres = phase * look[:, 3]
    off = np.abs(np.mod(metres, 18.0) - 9.0)
    wheel = (np.abs(off - 0.9) < 0.42) & (look[:, 3] < 3.0)
    factor[wheel] *= 0.84
    for channel in range(3):
        canvas.albedo[channel].ravel()[pixels] *= factor


_SHALLOWS = srgb_to_linear((78, 92, 76))


def _paint_water(painting: Painting, block: Block, pixels: npt.NDArray[np.intp], canvas: Canvas) -> None:
    """Paler, greener water along the shore, waves, and a few glints where waves face the sun."""
    shore = painting.surroundings.shore.at(block).ravel()[pixels]
    waves = wrap(painting.textures.waves, block).ravel()[pixels]
    shallow = np.float32(0.55) * shore**2
    ripple = np.float32(1.0) + np.float32(0.07) * waves
    glint = np.float32(0.035) * np.clip(waves - np.float32(2.5), 0, 2)
    for channel in range(3):
        plane = canvas.albedo[channel].ravel()
        plane[pixels] = (plane[pixels] * (1 - shallow) + _SHALLOWS[channel] * shallow) * ripple + glint


def _chances(table: _Table, index: npt.NDArray[np.intp], fields: Fields) -> dict[str, F32]:
    """Chance of crowns by field: by material, gathered by noise; wild ground grows groves where noise is high."""
    by_row = {
        name: np.array([getattr(m, name) for m in MATERIALS], np.float32)[table.material]
        for name in ("conifers", "broadleaves", "lone")
    }
    chances = {name: values.take(index) for name, values in by_row.items()}
    chances["lone"] *= np.clip(np.float32(0.75) + np.float32(0.45) * fields.growth, 0.1, 1.6)
    wild = np.flatnonzero((table.material == MATERIAL_INDEX["rough"]).take(index))
    grove = np.clip(np.float32(0.68) * fields.growth.ravel()[wild] - np.float32(0.093), 0, 0.56)
    for name in ("conifers", "broadleaves"):
        chances[name].ravel()[wild] = grove
    return chances


def _paint_built(painting: Painting, block: Block, fields: Fields, canvas: Canvas) -> npt.NDArray[np.bool_]:
    """Made ground and the marks on it, level by level; returns the pixels where nothing grows."""
    built, marks = painting.built, painting.marks
    numbers, drawn = built.inside(block.bounds), marks.inside(block.bounds)
    taken = np.zeros(block.shape, bool)
    age = np.float32(1.0) + painting.cells.fields["age"].at(block)
    for level in sorted({*built.level[numbers].tolist(), *marks.level[drawn].tolist()}):
        here = numbers[built.level[numbers] == level]
        if len(here):
            taken |= _paint_level(painting, block, fields, canvas, (here, age))
        lines = drawn[marks.level[drawn] == level]
        if len(lines):
            _overlay(marks, lines, block, canvas)
    taken |= canvas.surface == Surface.WATER
    return taken


def _paint_level(
    painting: Painting, block: Block, fields: Fields, canvas: Canvas, what: tuple[npt.NDArray[np.intp], F32]
) -> npt.NDArray[np.bool_]:
    numbers, age = what
    index = burn(painting.built.polygons[numbers], block).astype(np.intp)
    table = _table(painting, painting.built, numbers)
    pixels = np.flatnonzero(index)
    row = index.ravel()[pixels]
    noise = tuple(field.ravel()[pixels] for field in (fields.grain, fields.patch, fields.broad))
    position, bright = _albedo(table, row, (noise[0], noise[1], noise[2]), age.ravel()[pixels])
    for channel in range(3):
        canvas.albedo[channel].ravel()[pixels] = (
            table.rise[:, channel].take(row) * position + table.a[:, channel].take(row)
        ) * bright
    canvas.surface.ravel()[pixels] = table.surface[row]
    canvas.height_m.ravel()[pixels] = table.height_m[row]
    _paint_rows(table, index, block, canvas)
    hard = table.surface != Surface.GRASS
    hard[0] = False
    covered: npt.NDArray[np.bool_] = hard.take(index)
    return covered


def _overlay(layer: Layer, numbers: npt.NDArray[np.intp], block: Block, canvas: Canvas) -> None:
    """Blend the colours of polygons over the canvas."""
    index = burn(layer.polygons[numbers], block)
    pixels = np.flatnonzero(index)
    which = numbers[index.ravel()[pixels] - 1]
    opacity = layer.opacity[which]
    for channel in range(3):
        plane = canvas.albedo[channel].ravel()
        plane[pixels] += (layer.colour[which, channel] * layer.tone[which] - plane[pixels]) * opacity
    surface = layer.surface[which]
    given = surface > 0
    canvas.surface.ravel()[pixels[given]] = surface[given]


# ---------------------------------------------------------------------------------------------- roofs, things, crowns


def _paint_roofs(painting: Painting, block: Block, fields: Fields, canvas: Canvas) -> npt.NDArray[np.bool_]:
    """Roofs with their heights; returns the pixels they cover."""
    buildings = painting.buildings
    roofed = np.zeros(block.shape, bool)
    numbers = buildings.inside(block.bounds)
    if len(numbers) == 0:
        return roofed
    roofs = roof_pixels(buildings, numbers, block)
    pixels, which = roofs.pixels, roofs.building
    bright = np.float32(1.0) + buildings.rough[which] * (fields.grain.ravel()[pixels] + fields.patch.ravel()[pixels])
    bright *= np.float32(1.0) + np.float32(0.05) * np.clip(fields.broad.ravel()[pixels], -2, 2)
    # Sheets and tiles run down the slope; soot and moss darken what is near the eaves.
    bright *= 1 + np.float32(0.025) * np.sin(roofs.along * np.float32(2 * np.pi / 1.3))
    bright *= np.float32(0.93) + np.float32(0.10) * roofs.ridge
    edge = roofs.edge
    for channel in range(3):
        colour = np.where(edge, buildings.wall[which, channel], buildings.colour[which, channel])
        canvas.albedo[channel].ravel()[pixels] = colour * bright
    canvas.height_m.ravel()[pixels] = roofs.height_m
    canvas.surface.ravel()[pixels] = Surface.BUILDING
    roofed.ravel()[pixels] = True
    return roofed


def _paint_things(painting: Painting, block: Block, canvas: Canvas) -> None:
    layer = painting.things
    numbers = layer.inside(block.bounds)
    if len(numbers) == 0:
        return
    index = burn(layer.polygons[numbers], block)
    pixels = np.flatnonzero(index)
    which = numbers[index.ravel()[pixels] - 1]
    above = layer.height_m[which] > canvas.height_m.ravel()[pixels]
    pixels, which = pixels[above], which[above]
    opacity = layer.opacity[which]
    for channel in range(3):
        plane = canvas.albedo[channel].ravel()
        plane[pixels] += (layer.colour[which, channel] * layer.tone[which] - plane[pixels]) * opacity
    canvas.height_m.ravel()[pixels] = layer.height_m[which]
    surface = layer.surface[which]
    canvas.surface.ravel()[pixels[surface > 0]] = surface[surface > 0]


def _paint_crowns(
    painting: Painting,
    block: Block,
    fields: Fields,
    canvas: Canvas,
    where: tuple[dict[str, F32], npt.NDArray[np.bool_]],
) -> int:
    """Crowns of the fields and single trees, where they rise above what is there; returns the fields' crowns."""
    chances, taken = where
    canopy = Canopy(np.zeros(block.shape, np.float32), np.zeros((3, *block.shape), np.float32))
    crowns = 0
    for name, tile in painting.crowns.items():
        chance = chances[name]
        chance[taken] = 0
        crowns += grow(canopy, tile, chance, block)
    plant(canopy, painting.trees, block)
    pixels = np.flatnonzero(canopy.height_m)
    patch, grain = fields.patch.ravel()[pixels], fields.grain.ravel()[pixels]
    bare = grain < np.float32(4.0) * (np.float32(0.75) - np.float32(painting.season.leaf)) - np.float32(2.5)
    height = canopy.height_m.ravel()[pixels] + np.float32(0.30) * patch
    visible = (height > canvas.height_m.ravel()[pixels]) & ~bare
    pixels = pixels[visible]
    bright = np.float32(1.0) + np.float32(0.10) * patch[visible] + np.float32(0.08) * grain[visible]
    for channel in range(3):
        canvas.albedo[channel].ravel()[pixels] = canopy.colour[channel].ravel()[pixels] * bright
    canvas.height_m.ravel()[pixels] = height[visible]
    canvas.surface.ravel()[pixels] = Surface.TREES
    return crowns


# ------------------------------------------------------------------------------------------------------- colour, tone


def _nominal_luminance() -> F32:
    """Mean luminance of the materials of every surface class, by code."""
    luminance = np.full(max(Surface) + 1, 0.15, np.float32)
    for surface in Surface:
        values = [float(srgb_to_linear(m.a) @ _LUMA) for m in MATERIALS if m.surface == surface]
        if values:
            luminance[surface] = sum(values) / len(values)
    luminance[Surface.TREES] = 0.085
    return luminance


_NOMINAL = _nominal_luminance()


def _recolour(canvas: Canvas, colours: F32, cell: npt.NDArray[np.intp]) -> None:
    """Give every surface of a cell its random colour, keeping texture: the ratio to the class's usual brightness.

    Args:
        canvas: Changed in place.
        colours: (cells, surface codes, 3) linear.
        cell: (rows, columns) number of the cell.
    """
    ratio = np.tensordot(_LUMA, canvas.albedo, axes=1)
    ratio /= _NOMINAL[canvas.surface]
    np.clip(ratio, 0.45, 2.2, out=ratio)
    row = cell * colours.shape[1] + canvas.surface
    for channel in range(3):
        np.multiply(colours[:, :, channel].ravel().take(row), ratio, out=canvas.albedo[channel])


def _tint(painting: Painting, block: Block, canvas: Canvas) -> None:
    """Brightness and warmth of the cell; the grey veil of the air between."""
    grey = np.tensordot(_LUMA, canvas.albedo, axes=1)
    grey *= _VEIL
    canvas.albedo *= 1 - _VEIL
    canvas.albedo += grey
    tone = np.float32(1.0) + painting.cells.fields["tone"].at(block)
    warmth = painting.cells.fields["warmth"].at(block)
    canvas.albedo[0] *= tone * (1 + warmth)
    canvas.albedo[1] *= tone
    canvas.albedo[2] *= tone * (1 - warmth)
