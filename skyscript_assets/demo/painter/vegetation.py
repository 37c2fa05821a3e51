"""Trees: repeating fields of crowns for woods and gardens, and single crowns where a tree is mapped.

A crown of a field stands whole or not at all: each of its pixels knows where its centre is, and the centre decides. So
the edges of woods follow crowns, not the straight edges of polygons.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from skyscript_assets.demo.painter.grid import Block
from skyscript_assets.demo.painter.noise import F32, rng_of, wrap
from skyscript_assets.demo.painter.objects import MapObject
from skyscript_assets.demo.painter.palette import RGB, Season, srgb_to_linear
from skyscript_assets.demo.painter.shapes import line_parts, stations
from skyscript_assets.lib.geometry import unit_hash
from skyscript_assets.lib.osm.meaning import number

CROWN_REACH_M = 7.0
"""Greatest radius of a crown; the margin around a block."""

_TILE_M = 190.0
_NEEDLES: tuple[RGB, RGB] = ((49, 62, 39), (68, 82, 50))
_LEAVES: tuple[RGB, RGB] = ((66, 90, 44), (110, 126, 66))
_BARE: RGB = (128, 117, 102)


@dataclass(frozen=True)
class CrownKind:
    """A field of crowns: distance of centres, radii and heights in metres, share of conifers."""

    spacing_m: float
    radius_m: tuple[float, float]
    slender: float
    conifers: float


KINDS: dict[str, CrownKind] = {
    "conifers": CrownKind(2.9, (1.3, 2.5), 6.0, 0.96),
    "broadleaves": CrownKind(4.1, (2.0, 4.2), 3.2, 0.04),
    "lone": CrownKind(7.6, (0.8, 3.7), 2.3, 0.25),
}


@dataclass(frozen=True)
class CrownTile:
    """A repeating field of crowns.

    Attributes:
        height_m: (n, n) height of the canopy, 0 between crowns.
        crown: (n, n) number of the crown; the number of crowns itself where there is none.
        over: (2, n, n) in -1, 0, 1: in which repetition, down and right, the pixel's crown has its centre.
        centre: (crowns, 2) row and column of the centres.
        chance: One number in [0, 1) per crown: it stands where the chance of a crown is greater.
        colour: (crowns, 3) linear.
    """

    height_m: F32
    crown: npt.NDArray[np.int32]
    over: npt.NDArray[np.int8]
    centre: npt.NDArray[np.int32]
    chance: F32
    colour: F32


def crown_profile(
    dx: npt.NDArray[np.floating], dy: npt.NDArray[np.floating], phase: tuple[float, float], *, conifer: bool
) -> npt.NDArray[np.float64]:
    """Relative height of a crown at offsets in radii: a cone or a dome with a lobed outline; negative outside."""
    angle = np.arctan2(dy, dx)
    lobes = 1 + 0.13 * np.sin(3 * angle + phase[0]) + 0.09 * np.sin(5 * angle + phase[1])
    r = np.hypot(dx, dy) * lobes
    inside = 1 - 0.75 * r if conifer else 0.42 + 0.58 * np.sqrt(np.maximum(0, 1 - r * r))
    return np.where(r < 1, inside, -1.0)


def make_crown_tile(name: str, pixel_m: float, season: Season, seed: int) -> CrownTile:
    """A field of crowns of a kind, at a size of pixel."""
    kind, rng = KINDS[name], rng_of(seed, "crowns", name)
    n = max(8, round(_TILE_M / pixel_m))
    count = max(1, int(_TILE_M / kind.spacing_m))
    spacing = n / count
    lattice = (np.arange(count) + 0.5) * spacing
    y, x = (axis.ravel() for axis in np.meshgrid(lattice, lattice, indexing="ij"))
    jitter = rng.uniform(-0.42, 0.42, (2, len(x))) * spacing
    x, y = x + jitter[0], y + jitter[1]
    radius = kind.radius_m[0] + (kind.radius_m[1] - kind.radius_m[0]) * rng.beta(1.6, 1.8, len(x))
    conifer = rng.random(len(x)) < kind.conifers
    tile = CrownTile(
        height_m=np.zeros((n, n), np.float32),
        crown=np.full((n, n), len(x), np.int32),
        over=np.zeros((2, n, n), np.int8),
        centre=np.floor(np.column_stack([y, x])).astype(np.int32) % n,
        chance=rng.random(len(x)).astype(np.float32),
        colour=_crown_colours(rng, conifer, season),
    )
    phases = rng.uniform(0, 2 * math.pi, (len(x), 2))
    tall = radius * kind.slender * rng.uniform(0.8, 1.15, len(x)) * np.where(conifer, 1.1, 1.0) + 0.5
    for index in range(len(x)):
        _stamp(tile, index, (y[index], x[index]), radius[index] / pixel_m, tall[index], phases[index], conifer[index])
    return tile


def _stamp(
    tile: CrownTile,
    index: int,
    centre: tuple[float, float],
    radius_px: float,
    height_m: float,
    phase: npt.NDArray[np.float64],
    conifer: bool,
) -> None:
    """Draw one crown into a tile, across its edges; the higher crown wins."""
    n, reach = tile.height_m.shape[0], math.ceil(radius_px * 1.25) + 1
    row, col = math.floor(centre[0]), math.floor(centre[1])
    offsets = np.arange(-reach, reach + 1)
    dy = (offsets + row + 0.5 - centre[0])[:, None] / radius_px
    dx = (offsets + col + 0.5 - centre[1])[None, :] / radius_px
    height = crown_profile(dx, dy, (float(phase[0]), float(phase[1])), conifer=conifer) * height_m
    at_rows, at_cols = offsets + row, offsets + col
    at = (at_rows % n)[:, None] * n + (at_cols % n)[None, :]
    higher = height > tile.height_m.ravel()[at]
    pixels = at[higher]
    tile.height_m.ravel()[pixels] = height[higher]
    tile.crown.ravel()[pixels] = index
    over = tile.over.reshape(2, -1)
    over[:, pixels] = 0
    if not (reach <= row < n - reach and reach <= col < n - reach):
        down, right = np.meshgrid(row // n - at_rows // n, col // n - at_cols // n, indexing="ij")
        over[0, pixels], over[1, pixels] = down[higher], right[higher]


def _crown_colours(rng: np.random.Generator, conifer: npt.NDArray[np.bool_], season: Season) -> F32:
    mix = rng.random(len(conifer))
    colours = [_crown_colour(float(t), season, conifer=bool(needles)) for t, needles in zip(mix, conifer, strict=True)]
    return srgb_to_linear(np.array(colours).reshape(-1, 3))


def _crown_colour(mix: float, season: Season, *, conifer: bool) -> RGB:
    low, high = _NEEDLES if conifer else _LEAVES
    red, green, blue = (a + (b - a) * mix for a, b in zip(low, high, strict=True))
    if conifer:
        return red, green, blue
    turned = Season(1.0, season.autumn * (0.3 + mix), season.leaf).tint((red, green, blue), 2.0)
    red, green, blue = (c + (bare - c) * (1 - season.leaf) for c, bare in zip(turned, _BARE, strict=True))
    return red, green, blue


@dataclass
class Canopy:
    """What is above the ground of a block.

    Attributes:
        height_m: Height of the highest crown, 0 where there is none.
        colour: (3, rows, columns) linear.
    """

    height_m: F32
    colour: F32


def grow(canopy: Canopy, tile: CrownTile, chance: F32, block: Block) -> int:
    """Add the crowns of a field whose centres have a chance greater than their own number; returns those in the core.

    Args:
        canopy: Changed in place.
        tile: The field.
        chance: (rows, columns) chance of a crown with its centre there.
        block: The block.
    """
    if not chance.any():
        return 0
    n, crowns = tile.crown.shape[0], len(tile.chance)
    rows, cols = block.row + np.arange(block.height), block.col + np.arange(block.width)
    first = rows[0] // n - 1, cols[0] // n - 1
    repeats = rows[-1] // n + 2 - first[0], cols[-1] // n + 2 - first[1]
    down = (np.arange(repeats[0]) + first[0])[:, None] * n + tile.centre[None, :, 0] - block.row
    right = (np.arange(repeats[1]) + first[1])[:, None] * n + tile.centre[None, :, 1] - block.col
    there = chance[np.clip(down, 0, block.height - 1)[:, None], np.clip(right, 0, block.width - 1)[None, :]]
    stands = np.zeros((*repeats, crowns + 1), bool)
    stands[:, :, :crowns] = tile.chance < there
    # The number of a crown among all repetitions, less that of the repetition of the pixel itself.
    code = tile.crown + (crowns + 1) * (tile.over[1] + repeats[1] * tile.over[0].astype(np.int32))
    number_of = wrap(code.astype(np.intp), block)
    number_of += ((rows // n - first[0]) * (repeats[1] * (crowns + 1)))[:, None]
    number_of += ((cols // n - first[1]) * (crowns + 1))[None, :]
    pixels = np.flatnonzero(stands.ravel().take(number_of))
    at_row, at_col = np.divmod(pixels, block.width)
    height = tile.height_m[(at_row + block.row) % n, (at_col + block.col) % n]
    higher = height > canopy.height_m.ravel()[pixels]
    pixels = pixels[higher]
    which = number_of.ravel()[pixels] % (crowns + 1)
    canopy.height_m.ravel()[pixels] = height[higher]
    for channel in range(3):
        canopy.colour[channel].ravel()[pixels] = tile.colour[which, channel]
    core_rows, core_cols = block.core
    inside = ((down >= core_rows.start) & (down < core_rows.stop))[:, None] & (
        (right >= core_cols.start) & (right < core_cols.stop)
    )[None, :]
    return int((stands[:, :, :crowns] & inside).sum())


@dataclass(frozen=True)
class Trees:
    """Single trees as columns: places and radii in local metres, heights, phases of their outline, linear colours."""

    x: F32
    y: F32
    radius_m: F32
    height_m: F32
    phase: F32
    conifer: npt.NDArray[np.bool_]
    colour: F32


class TreeBuilder:
    """Gathers single trees."""

    def __init__(self, season: Season, seed: int) -> None:
        self._season, self._seed = season, seed
        self._rows: list[tuple[float, ...]] = []

    def add(self, name: str, x: float, y: float, item: MapObject | None = None) -> None:
        """A tree at a place; its size and colour by tags, else by a hash of its name."""
        seed, tags = self._seed, item.tags if item else {}
        conifer = {"needleleaved": True, "broadleaved": False}.get(tags.get("leaf_type", ""))
        if conifer is None:
            conifer = unit_hash("conifer", seed, name) < 0.22
        size = unit_hash("size", seed, name)
        crown = number(tags, "diameter_crown", 0.5, 2 * CROWN_REACH_M)
        radius = crown / 2 if crown else (1.3 + 1.3 * size if conifer else 1.6 + 2.6 * size)
        height = number(tags, "height", 1.0, 45.0) or (radius * 5.0 if conifer else 3.0 + radius * 2.4)
        colour = _crown_colour(unit_hash("leaves", seed, name), self._season, conifer=conifer)
        phase = 6.283 * unit_hash("phase", seed, name)
        self._rows.append((x, y, radius, height, phase, float(conifer), *colour))

    def add_object(self, item: MapObject) -> None:
        """A mapped tree, or a row of trees every 7 m."""
        if item.role == "tree":
            self.add(item.object_id, item.geometry.x, item.geometry.y, item)
            return
        for part, line in enumerate(line_parts(item.geometry)):
            x, y, _, _ = stations(line, 7.0, 0.5)
            for index in range(len(x)):
                self.add(f"{item.object_id}/{part}/{index}", float(x[index]), float(y[index]), item)

    def freeze(self) -> Trees:
        """The trees as columns."""
        table = np.array(self._rows, np.float32).reshape(-1, 9)
        return Trees(
            x=table[:, 0],
            y=table[:, 1],
            radius_m=table[:, 2],
            height_m=table[:, 3],
            phase=table[:, 4],
            conifer=table[:, 5] > 0.5,
            colour=srgb_to_linear(table[:, 6:9]),
        )


def plant(canopy: Canopy, trees: Trees, block: Block) -> None:
    """Add single trees to a canopy."""
    x0, y0, x1, y1 = block.bounds
    reach = CROWN_REACH_M * 1.3
    near = (trees.x > x0 - reach) & (trees.x < x1 + reach) & (trees.y > y0 - reach) & (trees.y < y1 + reach)
    xs, ys = block.xs(), block.ys()
    for index in np.flatnonzero(near):
        radius, x, y = float(trees.radius_m[index]), float(trees.x[index]), float(trees.y[index])
        cols = slice(*np.searchsorted(xs, (x - radius * 1.25, x + radius * 1.25)))
        rows = slice(*np.searchsorted(ys, (y - radius * 1.25, y + radius * 1.25)))
        if cols.start == cols.stop or rows.start == rows.stop:
            continue
        phase = float(trees.phase[index])
        dx = (xs[None, cols].astype(np.float64) - x) / radius
        dy = (ys[rows, None].astype(np.float64) - y) / radius
        profile = crown_profile(dx, dy, (phase, 2.3 * phase), conifer=bool(trees.conifer[index]))
        height = (profile * trees.height_m[index]).astype(np.float32)
        higher = height > canopy.height_m[rows, cols]
        canopy.height_m[rows, cols][higher] = height[higher]
        canopy.colour[:, rows, cols][:, higher] = trees.colour[index][:, None]
