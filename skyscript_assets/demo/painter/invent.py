"""Things that the map lacks: cars on roads, trees, sheds, lorries on works' yards, boats on water; all counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely

from skyscript_assets.demo.painter.grid import Grid
from skyscript_assets.demo.painter.ground import Surroundings
from skyscript_assets.demo.painter.layers import LayerBuilder, Style
from skyscript_assets.demo.painter.noise import rng_of
from skyscript_assets.demo.painter.palette import MATERIAL_INDEX, Surface
from skyscript_assets.demo.painter.props import add_boat, add_cars, add_shed, add_truck
from skyscript_assets.demo.painter.shapes import stations
from skyscript_assets.demo.painter.vegetation import TreeBuilder

DRIVEWAYS = 0.65
"""Share of houses that get a driveway to the nearest road."""

SHARES: dict[str, float] = {"car": 0.45, "tree": 0.30, "shed": 0.13, "lorry": 0.05, "boat": 0.07}
"""How the invented objects divide into kinds; a kind without a place to stand is not painted."""

_TRIES = 6
"""Places tried for each invented object before it is given up."""


@dataclass(frozen=True)
class Places:
    """Where invented things may stand.

    Attributes:
        roads: (line, width in metres) of the motor roads on the ground.
        taken: Buildings, roads, tracks and water: nothing grows or is built there.
        water: Water.
        yards: Works' grounds.
        buildings: Ground plans of buildings.
        surroundings: Coarse maps.
    """

    roads: list[tuple[shapely.Geometry, float]]
    taken: list[shapely.Geometry]
    water: list[shapely.Geometry]
    yards: list[shapely.Geometry]
    buildings: list[shapely.Geometry]
    surroundings: Surroundings


def invent(
    grid: Grid,
    places: Places,
    per_km2: float,
    layers: tuple[LayerBuilder, LayerBuilder],
    trees: TreeBuilder,
    seed: int,
) -> Counter[str]:
    """Add invented objects and return how many of each kind found a place.

    Args:
        grid: The canvas.
        places: Where they may stand.
        per_km2: Objects wanted per square kilometre.
        layers: Layers that get driveways (made ground), and vehicles, boats and sheds (things).
        trees: Gets trees.
        seed: Seed of the painting.
    """
    made: Counter[str] = Counter()
    wanted = {kind: round(per_km2 * grid.area_km2 * share) for kind, share in SHARES.items()}
    built, things = layers
    free = _Ground(places.taken)
    if per_km2 > 0:
        made["driveway"], made["car"] = _driveways(places, built, things, seed)
    made["car"] += _cars(grid, places, wanted["car"], things, seed)
    for x, y in _open_places(grid, free, wanted["tree"], 2.5, rng_of(seed, "trees")):
        trees.add(f"invented/{made['tree']}", x, y)
        made["tree"] += 1
    settled = places.surroundings.settled
    rng = rng_of(seed, "sheds")
    for x, y in _open_places(grid, free, wanted["shed"] * 2, 3.5, rng):
        if settled.value(x, y) > 0.4 and made["shed"] < wanted["shed"]:
            add_shed(things, rng, x, y)
            made["shed"] += 1
    made["lorry"] = _lorries(places, free, wanted["lorry"], things, seed)
    made["boat"] = _boats(places, wanted["boat"], things, seed)
    return made


class _Ground:
    """Answers whether places are free of what is taken."""

    def __init__(self, taken: list[shapely.Geometry]) -> None:
        self._tree = shapely.STRtree(taken)

    def is_free(self, places: npt.NDArray[np.float64], distance: float) -> npt.NDArray[np.bool_]:
        free = np.ones(len(places), bool)
        hits = self._tree.query(shapely.points(places), predicate="dwithin", distance=distance)
        free[hits[0]] = False
        return free


def _open_places(
    grid: Grid, free: _Ground, wanted: int, distance: float, rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    width, height = grid.size_m
    places = rng.uniform((0, 0), (width, height), (wanted * _TRIES, 2))
    return places[free.is_free(places, distance)][:wanted]


def _cars(grid: Grid, places: Places, wanted: int, things: LayerBuilder, seed: int) -> int:
    """Cars on the right-hand side of motor roads, about one in four the other way round as parked ones are."""
    rng = rng_of(seed, "cars")
    spots = []
    for line, road_width in places.roads:
        x, y, ux, uy = stations(line, 13.0, float(rng.uniform(3, 13)))
        spots.append(np.column_stack([x, y, ux, uy, np.full(len(x), road_width)]))
    table = np.concatenate(spots) if spots else np.zeros((0, 5))
    width, height = grid.size_m
    inside = (table[:, 0] > 0) & (table[:, 0] < width) & (table[:, 1] > 0) & (table[:, 1] < height)
    table = table[inside]
    table = table[rng.permutation(len(table))[:wanted]]
    along = np.where(rng.random(len(table)) < 0.5, 1.0, -1.0)
    ux, uy = table[:, 2] * along, table[:, 3] * along
    side = np.maximum(0.22 * table[:, 4] + rng.normal(0, 0.12, len(table)), 0.0)
    # y grows southward, so that (-uy, ux) points to the right of the heading.
    add_cars(things, rng, table[:, 0] - uy * side, table[:, 1] + ux * side, ux, uy)
    return len(table)


def _driveways(places: Places, built: LayerBuilder, things: LayerBuilder, seed: int) -> tuple[int, int]:
    """Ways from houses outside towns to the nearest road, with a car on some; returns (driveways, cars)."""
    if not places.roads:
        return 0, 0
    rng = rng_of(seed, "driveways")
    tree = shapely.STRtree([line for line, _ in places.roads])
    made = cars = 0
    for house in places.buildings:
        chance, paved, parked = rng.random(3)
        if not 60 < house.area < 420 or chance > DRIVEWAYS:
            continue
        centre = house.centroid
        line, width = places.roads[int(tree.nearest(centre))]
        way = shapely.shortest_line(house, line)
        if not width / 2 + 3 < way.length < 38 or places.surroundings.urban.value(centre.x, centre.y) > 0.4:
            continue
        (x, y), (x1, y1) = way.coords[0], way.coords[-1]
        ux, uy = (x1 - x) / way.length, (y1 - y) / way.length
        name = "parking" if paved < 0.35 else "gravel"
        polygon = shapely.buffer(way, 1.7, cap_style="flat")
        built.add(polygon, 1.5, Style(MATERIAL_INDEX[name], 0.9 + 0.2 * paved, surface=int(Surface.PAVED)))
        made += 1
        if parked < 0.4:
            spot = np.array([[x + 3.2 * ux, y + 3.2 * uy, ux, uy]])
            add_cars(things, rng, *spot.T)
            cars += 1
    return made, cars


def _lorries(places: Places, free: _Ground, wanted: int, things: LayerBuilder, seed: int) -> int:
    rng, made = rng_of(seed, "lorries"), 0
    if not places.yards:
        return 0
    for _ in range(wanted):
        yard = places.yards[int(rng.integers(len(places.yards)))]
        spot = _inside(yard, rng)
        if spot is not None and free.is_free(np.array([spot]), 7.0)[0]:
            angle = float(rng.uniform(0, 2 * np.pi))
            add_truck(things, rng, *spot, float(np.cos(angle)), float(np.sin(angle)))
            made += 1
    return made


def _boats(places: Places, wanted: int, things: LayerBuilder, seed: int) -> int:
    """Boats on waters of more than a hectare and a half."""
    rng, made = rng_of(seed, "boats"), 0
    waters = [shapely.buffer(water, -6.0) for water in places.water if shapely.area(water) > 15_000]
    waters = [water for water in waters if not water.is_empty]
    if not waters:
        return 0
    for _ in range(wanted):
        spot = _inside(waters[int(rng.integers(len(waters)))], rng)
        if spot is not None:
            add_boat(things, rng, *spot)
            made += 1
    return made


def _inside(area: shapely.Geometry, rng: np.random.Generator) -> tuple[float, float] | None:
    x0, y0, x1, y1 = area.bounds
    tries = rng.uniform((x0, y0), (x1, y1), (_TRIES, 2))
    hits = np.flatnonzero(shapely.contains_xy(area, tries[:, 0], tries[:, 1]))
    return (float(tries[hits[0], 0]), float(tries[hits[0], 1])) if len(hits) else None
