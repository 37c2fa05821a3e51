"""Small things with a height: trees, poles, tanks, huts, cars; and those, with sheds, that the map lacks."""

import numpy as np
import shapely

from skyscript_assets.demo.painter.fields import rng_of
from skyscript_assets.demo.painter.grid import Grid
from skyscript_assets.demo.painter.kernels import F64, SETTLED
from skyscript_assets.demo.painter.layers import THINGS, Studio
from skyscript_assets.demo.painter.looks import Surface, plain
from skyscript_assets.demo.painter.objects import MapObject, prop_of
from skyscript_assets.demo.painter.shapes import line_parts, rectangles, stations
from skyscript_assets.lib.geometry import unit_hash
from skyscript_assets.lib.osm.meaning import number

MAX_CROWN_M = 12.0
"""Greatest diameter of a crown."""

SHARES: dict[str, float] = {"car": 0.5, "tree": 0.35, "shed": 0.15}
"""How the invented objects divide into kinds; one that finds no place in six tries is not painted."""

_SOFT = {None, Surface.TREES, Surface.GRASS, Surface.SAND, Surface.BARE}
"""Surfaces where trees grow and sheds are built."""

_GLASS = (54, 62, 70)
_PAINTS = ((226, 226, 225), (178, 181, 184), (121, 123, 127), (54, 56, 60), (132, 48, 44), (62, 82, 118))
_CAR = ((0.0, 2.2, 0.9, 0.95), (-0.2, 1.45, 0.8, 1.4), (-0.3, 0.85, 0.72, 1.45))
"""Body, windscreens and roof of a car: middle ahead of its own, half length, half width, height."""


def add_trees(studio: Studio, item: MapObject) -> None:
    """Add a mapped tree or a row of trees every 7 m: by tags, else by a hash of its name."""
    lines = line_parts(item.geometry)
    rows = [np.column_stack(stations(line, 7.0, 0.5)[:2]) for line in lines]
    for n, (x, y) in enumerate(np.concatenate(rows) if lines else shapely.get_coordinates(item.geometry)):
        chance = {what: unit_hash(what, studio.seed, item.object_id, n) for what in ("conifer", "size", "leaves")}
        conifer = {"needleleaved": True, "broadleaved": False}.get(item.tags.get("leaf_type", ""))
        conifer = chance["conifer"] < 0.22 if conifer is None else conifer
        crown = number(item.tags, "diameter_crown", 0.5, MAX_CROWN_M)
        radius = crown / 2 if crown else (1.3 if conifer else 1.6) * (1 + chance["size"] * (1.0 if conifer else 1.6))
        height = number(item.tags, "height", 1.0, 45.0) or (radius * 5.0 if conifer else 3.0 + radius * 2.4)
        studio.trees.append((float(x), float(y), radius, height, float(conifer), chance["leaves"]))


def add_thing(studio: Studio, item: MapObject) -> None:
    """Add what a point object shows."""
    prop = prop_of(item.tags)
    assert prop is not None, "only what is seen is a thing"
    disc = shapely.buffer(item.geometry, prop.half_m, cap_style="square" if prop.half_m < 2.5 else "round")
    height = number(item.tags, "height", 0.3, 120.0) or prop.height_m
    studio.add(THINGS, [disc], plain(prop.colour, height, prop.surface))


def add_cars(studio: Studio, rng: np.random.Generator, x: F64, y: F64, ux: F64, uy: F64) -> None:
    """Add cars at places, heading along unit vectors."""
    paints, sizes = rng.integers(0, len(_PAINTS), len(x)), rng.uniform(0.92, 1.15, len(x))
    for part, (ahead, length, width, height) in enumerate(_CAR):
        boxes = rectangles(x + ahead * ux, y + ahead * uy, ux, uy, length * sizes, width)
        for box, paint in zip(shapely.buffer(shapely.buffer(boxes, -0.25), 0.25, quad_segs=2), paints, strict=True):
            studio.add(THINGS, [box], plain(_GLASS if part == 1 else _PAINTS[paint], height), float(part))
    studio.made["car"] += len(x)


def invent(studio: Studio, grid: Grid, per_km2: float) -> list[MapObject]:
    """Add cars to all that the map knows, and return trees and sheds as objects like those of the map.

    They are to be painted as such; `per_km2` are wanted per square kilometre, the studio counts those that are made.
    """
    wanted = {kind: round(per_km2 * grid.size_m[0] * grid.size_m[1] / 1e6 * share) for kind, share in SHARES.items()}
    shapes = [shape for stage in studio.shapes if stage != THINGS for shape in studio.shapes[stage]]
    taken = shapely.STRtree([shape.polygon for shape in shapes if shape.look.surface not in _SOFT])
    rng, made = rng_of(studio.seed, "inventions"), list[MapObject]()
    for kind, distance in (("tree", 2.5), ("shed", 3.5)):
        spots = rng.uniform((0, 0), grid.size_m, (6 * wanted[kind], 2))
        free = np.ones(len(spots), bool)
        free[taken.query(shapely.points(spots), predicate="dwithin", distance=distance)[0]] = False
        if kind == "shed":
            free &= np.array([studio.fields.value(SETTLED, *spot) > 0.4 for spot in spots], bool)
        for x, y in spots[free][: wanted[kind]]:
            angle, sides, name = rng.uniform(0, np.pi), rng.uniform((1.3, 1.0), (2.4, 1.6)), f"invented/{len(made)}"
            plan = rectangles(x, y, np.cos(angle), np.sin(angle), *sides)[0]
            shed = MapObject(name, {"building": "shed", "roof:shape": "gabled"}, plan, "building")
            made.append(shed if kind == "shed" else MapObject(name, {"natural": "tree"}, shapely.Point(x, y), "tree"))
            studio.made[kind] += 1
    _add_traffic(studio, grid, wanted["car"])
    return made


def _add_traffic(studio: Studio, grid: Grid, wanted: int) -> None:
    """Cars on the right-hand side of motor roads on the ground."""
    rng, spots = rng_of(studio.seed, "cars"), [np.zeros((0, 5))]
    for line, width, level in studio.roads:
        at = np.column_stack(stations(line, 13.0, float(rng.uniform(3, 13))))
        inside = ((at[:, :2] > 0) & (at[:, :2] < grid.size_m)).all(axis=1) & (level == 0)
        spots.append(np.column_stack([at, np.full(len(at), width)])[inside])
    x, y, ux, uy, width = rng.permutation(np.concatenate(spots))[:wanted].T
    turn, side = np.where(rng.random(len(x)) < 0.5, 1.0, -1.0), np.abs(0.22 * width + rng.normal(0, 0.12, len(x)))
    # y grows southward, so that (-uy, ux) points to the right of the heading.
    add_cars(studio, rng, x - turn * uy * side, y + turn * ux * side, turn * ux, turn * uy)
