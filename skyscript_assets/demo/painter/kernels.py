"""The painter's strokes, compiled: loops over the pixels of a block.

They share arguments. The `canvas` (rows, columns, 4) holds linear red, green, blue and the height in metres of what is
seen, `surface` its codes. A layer: `index`, the number from 1 of the shape over each pixel, and `looks`, one row of
COLUMNS for each shape. What varies over the painting: repeating `noise` (grain from pixel to pixel, patches from metre
to metre; sides are powers of two) and coarse `maps`. A `place` says where the block lies: its first row and
column, the side of a pixel in metres, and scale and shift from pixels to nodes of the maps. All stand in one module,
since the code that numba keeps of a function does not follow changes of functions and constants of other modules.
"""

import math

import numpy as np
import numpy.typing as npt

from skyscript_assets.demo.painter.looks import F32
from skyscript_assets.lib.compiled import compiled

GRAIN, PATCH, OPACITY, HEIGHT, CODE, ROW_X, ROW_Y, STRIPES, PERIOD, CROWNS = range(6, 16)
COLUMNS = CROWNS + 3
"""Columns of looks, after a colour and the way to the other: what `Look` says (CODE is the surface, or 0), crowns."""

URBAN, PAVED, SETTLED, SHORE, VIGOUR, GROWTH, TONE, WARMTH, EAST, SOUTH, UP = MAPS = range(11)
"""The coarse maps: how densely it is built; where unmapped ground is paved; where people live; near 1 on water at the
shore; lush or dry; where trees gather; brightness and warmth; the unit vector to the sun."""

FLAT, GABLED, HIPPED, DOME = range(4)
"""Shapes of roofs; HIPPED rises with the distance to the nearest wall, whatever the ground plan."""

I32 = npt.NDArray[np.int32]
U8 = npt.NDArray[np.uint8]
F64 = npt.NDArray[np.float64]
_MAP, _STACK, _TABLE = (f"Array(float{bits}, {d}, 'C', True)" for bits, d in ((32, 2), (32, 3), (64, 2)))
_PLACE, _INDEX, _CODES = "Array(float64, 1, 'C', True)", "int32[:, ::1]", "uint8[:, ::1]"
_CANVAS = f"float32[:, :, ::1], {_CODES}"

_FRAY_M, _PARAPET_M, _GROUP, _VEIL = 0.5, 0.45, 64, 0.14
"""Wavering of plants' edges; rim of flat roofs; pixels in a row that share a sun; share of colour that air takes."""

TOP, _WATER, _TREES, _BARE = 3, 5, 6, 10
"""Plane of the canvas that is its height; codes of `Surface`, soft ones from TREES to BARE."""


@compiled(f"float64({_STACK}, int64, float64, float64)")
def between(maps: F32, which: int, row: float, col: float) -> float:
    """A coarse map between its nodes: bilinear."""
    i, j = int(row), int(col)
    t, u = row - i, col - j
    above = maps[which, i, j] + (maps[which, i, j + 1] - maps[which, i, j]) * u
    below = maps[which, i + 1, j] + (maps[which, i + 1, j + 1] - maps[which, i + 1, j]) * u
    return float(above + (below - above) * t)


@compiled(f"void({_INDEX}, {_INDEX}, {_STACK}, {_STACK}, {_PLACE})")
def settle(burnt: I32, index: I32, noise: F32, maps: F32, place: F64) -> None:
    """Fray edges of plants and shores into `index`; where nothing is mapped lie shapes 1 to 3: yard, garden, wild."""
    rows, cols = burnt.shape
    first_row, first_col, last = int(place[0]), int(place[1]), noise.shape[1] - 1
    for r in range(rows):
        for c in range(cols):
            y, x = (first_row + r) & last, (first_col + c) & last
            patch = noise[1, y, x]
            down = min(max(patch, -3.0), 3.0) * _FRAY_M / place[2]
            right = min(max(noise[1, (y + 341) & last, (x + 577) & last], -3.0), 3.0) * _FRAY_M / place[2]
            number = burnt[min(max(r + round(down), 0), rows - 1), min(max(c + round(right), 0), cols - 1)]
            if number == 0:
                i, j = (first_row + r) * place[3] + place[4], (first_col + c) * place[3] + place[4]
                lush = between(maps, VIGOUR, i, j)
                if between(maps, PAVED, i, j) + 0.16 * lush + 0.05 * patch > 0.62:
                    number = 1
                else:
                    number = 2 if between(maps, SETTLED, i, j) > 0.3 else 3
            index[r, c] = number


@compiled(f"float64({_TABLE}, int64, int64, float64, float64)")
def wall_distance(walls: F64, first: int, end: int, x: float, y: float) -> float:
    """Metres from a place to the nearest of the walls (x, y, x, y) from `first` to before `end`."""
    nearest = 1e12
    for k in range(first, end):
        dx, dy = walls[k, 2] - walls[k, 0], walls[k, 3] - walls[k, 1]
        t = ((x - walls[k, 0]) * dx + (y - walls[k, 1]) * dy) / max(dx * dx + dy * dy, 1e-12)
        t = min(max(t, 0.0), 1.0)
        px, py = walls[k, 0] + t * dx - x, walls[k, 1] + t * dy - y
        nearest = min(nearest, px * px + py * py)
    return math.sqrt(nearest)


@compiled(f"float64({_PLACE}, {_TABLE}, float64, float64)")
def roof_rise(roof: F64, walls: F64, x: float, y: float) -> float:
    """Metres above the eaves at a place of a roof (see `lay`)."""
    shape = int(roof[0])
    along = ((x - roof[2]) * roof[4] + (y - roof[3]) * roof[5]) / roof[6]
    across = ((y - roof[3]) * roof[4] - (x - roof[2]) * roof[5]) / roof[7]
    if shape == FLAT:
        return 0.5 if wall_distance(walls, int(roof[8]), int(roof[9]), x, y) < _PARAPET_M else 0.0
    if shape == HIPPED:
        share = wall_distance(walls, int(roof[8]), int(roof[9]), x, y) / min(roof[7], 7.0)
    elif shape == GABLED:
        share = 1.0 - abs(across)
    else:
        share = math.sqrt(max(0.0, 1.0 - along * along - across * across))
    return float(roof[1] * min(max(share, 0.0), 1.0))


@compiled("float64(Array(float32, 1, 'C', True), float64, float64)")
def rows_of(look: F32, x: float, y: float) -> float:
    """Brightness of rows of crops, stripes of mowing or seams of sheets, and of wheel tracks every 18 m in fields."""
    phase = x * look[ROW_X] + y * look[ROW_Y]
    wheel = 1.5 < look[PERIOD] < 3.0 and abs(abs((phase * look[PERIOD]) % 18.0 - 9.0) - 0.9) < 0.42
    return float((0.84 if wheel else 1.0) * (1.0 + look[STRIPES] * math.sin(2.0 * math.pi * phase)))


@compiled(f"void({_INDEX}, {_MAP}, {_TABLE}, {_TABLE}, {_STACK}, {_STACK}, {_PLACE}, {_CANVAS})")
def lay(
    index: I32, looks: F32, roofs: F64, walls: F64, noise: F32, maps: F32, place: F64, canvas: F32, surface: U8
) -> None:
    """Lay a layer onto the canvas; what is lower than what is there already stays hidden.

    `roofs`, a row for each shape or none at all: FLAT to DOME, rise, centre (x, y), unit vector along (x, y), half
    length, half width, and the first of its `walls` (x, y, x, y) and the end of them.
    """
    first_row, first_col, last = int(place[0]), int(place[1]), noise.shape[1] - 1
    for r in range(index.shape[0]):
        for c in range(index.shape[1]):
            number = index[r, c] - 1
            if number < 0:
                continue
            look, x_m, y_m = looks[number], (place[1] + c + 0.5) * place[2], (place[0] + r + 0.5) * place[2]
            top = look[HEIGHT] + (roof_rise(roofs[number], walls, x_m, y_m) if roofs.shape[0] > 0 else 0.0)
            if top < canvas[r, c, TOP]:
                continue
            y, x = (first_row + r) & last, (first_col + c) & last
            i, j = (first_row + r) * place[3] + place[4], (first_col + c) * place[3] + place[4]
            bright = 1.0 + look[GRAIN] * noise[0, y, x] + look[PATCH] * noise[1, y, x]
            code = int(look[CODE])
            if code == _WATER:
                mix = 0.55 * between(maps, SHORE, i, j) ** 2
            else:
                lush = between(maps, VIGOUR, i, j) + 0.6 * noise[1, y, x]
                mix = min(max(0.5 + 0.17 * lush, -0.2), 1.2)
            if look[STRIPES] > 0:
                bright *= rows_of(look, x_m, y_m)
            for channel in range(3):
                colour = (look[channel] + look[3 + channel] * mix) * bright
                canvas[r, c, channel] += (colour - canvas[r, c, channel]) * look[OPACITY]
            canvas[r, c, TOP] = top
            surface[r, c] = code if code > 0 else surface[r, c]


@compiled(f"float64({_STACK}, int64, float64, float64, float64)")
def _crown_chance(maps: F32, kind: int, chance: float, i: float, j: float) -> float:
    """Chance of a crown: a negative one stands in groves alone, lone trees (kind 2) gather a little."""
    if chance < 0:
        return min(max(0.68 * between(maps, GROWTH, i, j) - 0.093, 0.0), 0.56)
    return chance * (min(max(0.75 + 0.45 * between(maps, GROWTH, i, j), 0.1), 1.6) if kind == 2 else 1.0)


@compiled(f"boolean({_CANVAS}, int64, int64, int64)")
def _is_free(canvas: F32, surface: U8, r: int, c: int, away: int) -> bool:
    """Whether a pixel, inside the block by `away`, is soft ground with nothing built around it."""
    beside = max(canvas[r - away, c, TOP], canvas[r + away, c, TOP], canvas[r, c - away, TOP], canvas[r, c + away, TOP])
    return bool(_TREES <= surface[r, c] <= _BARE and max(beside, canvas[r, c, TOP]) < 0.5)


@compiled(f"int64({_TABLE}, {_STACK}, {_INDEX}, {_MAP}, {_STACK}, {_PLACE}, {_CANVAS}, float64[:, ::1])")
def scatter(
    groves: F64, dice: F32, index: I32, looks: F32, maps: F32, place: F64, canvas: F32, surface: U8, crowns: F64
) -> int:
    """Write the crowns that stand on a block by chance, by the looks of its ground, and return how many.

    A row of `groves` for each of the chances of looks: spacing, least and greatest radius (m), height over radius,
    share of conifers. `dice` (7, n, n), n a power of two, hold chances for each place of a grove. A row of `crowns`: x,
    y, radius, height, whether conifer, place in the mix of colours.
    """
    pixel, rows, cols, n, last = place[2], index.shape[0], index.shape[1], 0, dice.shape[1] - 1
    away = int(1.5 / pixel) + 1
    for kind in range(3):
        spacing, least, most, slender, conifers = groves[kind]
        for i in range(math.floor(place[0] * pixel / spacing), math.ceil((place[0] + rows) * pixel / spacing)):
            for j in range(math.floor(place[1] * pixel / spacing), math.ceil((place[1] + cols) * pixel / spacing)):
                chance = dice[:, (i + 97 * kind) & last, j & last]
                y, x = (i + 0.08 + 0.84 * chance[0]) * spacing, (j + 0.08 + 0.84 * chance[1]) * spacing
                r, c = math.floor(y / pixel) - int(place[0]), math.floor(x / pixel) - int(place[1])
                inside = away <= r < rows - away and away <= c < cols - away
                if not inside or not _is_free(canvas, surface, r, c, away):
                    continue
                at_row, at_col = (place[0] + r) * place[3] + place[4], (place[1] + c) * place[3] + place[4]
                if chance[2] >= _crown_chance(maps, kind, looks[index[r, c] - 1, CROWNS + kind], at_row, at_col):
                    continue
                conifer, radius = 1.0 if chance[3] < conifers else 0.0, least + (most - least) * chance[4]
                crowns[n, 0], crowns[n, 1], crowns[n, 2] = x, y, radius
                crowns[n, 3] = radius * slender * (0.8 + 0.35 * chance[5]) * (1.0 + 0.1 * conifer) + 0.5
                crowns[n, 4], crowns[n, 5] = conifer, chance[6]
                n += 1
    return n


@compiled(f"void({_TABLE}, {_STACK}, float64, {_STACK}, {_PLACE}, {_CANVAS})")
def stamp(crowns: F64, colours: F32, leaf: float, noise: F32, place: F64, canvas: F32, surface: U8) -> None:
    """Stamp crowns (see `scatter`) onto the canvas, cones and domes with ragged outlines; the higher one is seen.

    `colours` are linear (leaves or needles, end of the mix, 3); `leaf` is 0 where broadleaved trees are bare, else 1.
    """
    pixel, last, bare = place[2], noise.shape[1] - 1, 4.0 * (0.75 - leaf) - 2.5
    for n in range(crowns.shape[0]):
        x, y, radius, tall, conifer, mix = crowns[n]
        top = math.floor((y - 1.2 * radius) / pixel) - int(place[0])
        left, side = math.floor((x - 1.2 * radius) / pixel) - int(place[1]), math.ceil(2.4 * radius / pixel) + 2
        for r in range(max(0, top), min(canvas.shape[0], top + side)):
            for c in range(max(0, left), min(canvas.shape[1], left + side)):
                dy, dx = (place[0] + r + 0.5) * pixel - y, (place[1] + c + 0.5) * pixel - x
                i, j = (int(place[0]) + r) & last, (int(place[1]) + c) & last
                grain, patch = noise[0, i, j], noise[1, i, j]
                d = max(0.0, math.sqrt(dx * dx + dy * dy) / radius + 0.13 * min(max(patch, -1.5), 1.5))
                if d >= 1 or (conifer < 0.5 and grain < bare):
                    continue
                here = (1.0 - 0.75 * d if conifer > 0.5 else 0.42 + 0.58 * math.sqrt(1.0 - d * d)) * tall + 0.3 * patch
                if here <= canvas[r, c, TOP]:
                    continue
                canvas[r, c, TOP], surface[r, c] = here, _TREES
                low, high = colours[int(conifer), 0], colours[int(conifer), 1]
                for channel in range(3):
                    colour = low[channel] + (high[channel] - low[channel]) * mix
                    canvas[r, c, channel] = colour * (1.0 + 0.1 * patch + 0.08 * grain)


@compiled(f"void({_STACK}, {_STACK}, {_PLACE}, float64, int64, float32[:, ::1])")
def cast(canvas: F32, maps: F32, place: F64, tallest: float, axis: int, clear: F32) -> None:
    """Write what the light has to clear at every pixel, `clear` (rows, columns), walking away from the sun by lines.

    It is the height itself, or what had to be cleared one line nearer to the sun, less the drop of the ray; heights
    above `tallest` do not count. Along `axis` 0 lines are rows, for a sun nearer to north or south, along 1 columns.
    """
    lines, length = canvas.shape[axis], canvas.shape[1 - axis]
    ahead, aside = (SOUTH, EAST) if axis == 0 else (EAST, SOUTH)
    toward = 1 if between(maps, ahead, place[0] * place[3] + place[4], place[1] * place[3] + place[4]) > 0 else -1
    shift, drop = 0, 0.0
    for k in range(lines):
        line = lines - 1 - k if toward > 0 else k
        for m in range(length):
            r, c = (line, m) if axis == 0 else (m, line)
            if m == 0 or (int(place[1 - axis]) + m) % _GROUP == 0:
                middle = (((int(place[1 - axis]) + m) // _GROUP) + 0.5) * _GROUP * place[3] + place[4]
                behind = (place[axis] + line) * place[3] + place[4]
                i, j = (behind, middle) if axis == 0 else (middle, behind)
                forward = abs(between(maps, ahead, i, j))
                drop = between(maps, UP, i, j) / forward * place[2]
                # The line towards the sun in whole pixels: its step from this line to the next.
                slope, at = between(maps, aside, i, j) / forward, (int(place[axis]) + line) * toward % _GROUP
                shift = math.floor((at + 1) * slope + 0.5) - math.floor(at * slope + 0.5)
            need = min(float(canvas[r, c, TOP]), tallest)
            if k > 0 and 0 <= m + shift < length:
                before = clear[line + toward, m + shift] if axis == 0 else clear[m + shift, line + toward]
                need = max(need, before - drop)
            clear[r, c] = need


@compiled("float64(float64, float64, float64, float64)")
def _rise(before: float, here: float, after: float, pixel_m: float) -> float:
    """Rise over run at a pixel between two others, but for walls, which are not seen from above."""
    first, second = (here - before) / pixel_m, (after - here) / pixel_m
    return 0.5 * ((first if abs(first) <= 2.2 else 0.0) + (second if abs(second) <= 2.2 else 0.0))


@compiled(f"void({_MAP}, {_STACK}, {_PLACE}, {_MAP}, {_CANVAS})")
def shade(clear: F32, maps: F32, place: F64, light: F32, canvas: F32, surface: U8) -> None:
    """Turn albedo into the light that arrives at the camera: sun, sky, tone of the cell, air between.

    Light enters crowns: their own shadow begins deeper and their slopes are softer. The sky is dimmer deep in a shadow.
    `clear` is that of `cast`; rows of `light` are shares of the sun and of the sky on flat open ground, weights of
    luminance, and haze.
    """
    rows, cols = clear.shape
    first_col, sx, sy, bright, warm = int(place[1]), 0.0, 0.0, 1.0, 0.0
    for r in range(1, rows - 1):
        for c in range(1, cols - 1):
            if c == 1 or (first_col + c) % _GROUP == 0:
                i, j = (place[0] + r) * place[3] + place[4], ((first_col + c) // _GROUP + 0.5) * _GROUP
                j = j * place[3] + place[4]
                up = between(maps, UP, i, j)
                sx, sy = between(maps, EAST, i, j) / up, between(maps, SOUTH, i, j) / up
                bright, warm = 1.0 + between(maps, TONE, i, j), between(maps, WARMTH, i, j)
            leafy = surface[r, c] == _TREES
            dark = 0.0
            for down in range(-1, 2):
                for right in range(-1, 2):
                    depth = clear[r + down, c + right] - canvas[r + down, c + right, TOP] - (1.3 if leafy else 0.0)
                    dark += min(max(2.5 * depth, 0.0), 1.0) / 9.0
            soft, top = (0.6 if leafy else 1.0), canvas[r, c, TOP]
            dx = soft * _rise(canvas[r, c - 1, TOP], top, canvas[r, c + 1, TOP], place[2])
            dy = soft * _rise(canvas[r - 1, c, TOP], top, canvas[r + 1, c, TOP], place[2])
            sun = (1.0 - dark) * max(0.0, (1.0 - sx * dx - sy * dy) / math.sqrt(1.0 + dx * dx + dy * dy))
            sky = 1.0 / (1.0 + 0.03 * max(clear[r, c] - top, 0.0))
            grey = 0.0
            for channel in range(3):
                canvas[r, c, channel] *= sun * light[0, channel] + sky * light[1, channel]
                grey += light[2, channel] * canvas[r, c, channel]
            for channel in range(3):
                seen = canvas[r, c, channel] + _VEIL * (grey - canvas[r, c, channel])
                canvas[r, c, channel] = seen * bright * (1.0 + warm * (1 - channel)) + light[3, channel]


@compiled(f"void({_STACK}, int64, int64, int64, int64, {_STACK}, Array(float32, 1, 'C', True), uint8[:, :, ::1])")
def expose(radiance: F32, top: int, left: int, row: int, col: int, noise: F32, curve: F32, picture: U8) -> None:
    """What a camera sees: blur, tone curve, noise, 8 bits; all in pixels of the finished size.

    The blur (0.17, 0.66, 0.17 both ways) leaves about 0.3 of the contrast at the Nyquist frequency. `radiance` is a
    canvas, kept from its row `top`, 1 or more, and column `left`, which lie at `row` and `col` of the whole picture;
    `curve` holds display values of radiances from 0 to 1.05; `picture` (3, rows, columns) is written to.
    """
    last = noise.shape[1] - 1
    for r in range(picture.shape[1]):
        for c in range(picture.shape[2]):
            shared = noise[0, (row + r + 501) & last, (col + c + 307) & last]
            for channel in range(3):
                seen = 0.0
                for down in range(-1, 2):
                    for right in range(-1, 2):
                        weight = (0.17 if down else 0.66) * (0.17 if right else 0.66)
                        seen += weight * radiance[top + r + down, left + c + right, channel]
                shown = float(curve[int(min(seen / 1.05, 1.0) * (curve.size - 1))])
                own = noise[0, (row + r + 211 * channel) & last, (col + c + 613) & last]
                shown += (shared + 0.9 * own) * (0.75 + 0.004 * shown)
                picture[channel, r, c] = int(min(max(shown + 0.5, 0.0), 255.0))
