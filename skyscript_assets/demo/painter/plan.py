"""From objects to layers: everything that is decided once for a painting, before the first block is painted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import shapely

from skyscript_assets.demo.painter.cells import Cells, make_cells
from skyscript_assets.demo.painter.coast import sea_polygons
from skyscript_assets.demo.painter.grid import Grid
from skyscript_assets.demo.painter.ground import Surroundings, add_area, make_surroundings, water_areas
from skyscript_assets.demo.painter.invent import Places, invent
from skyscript_assets.demo.painter.layers import Layer, LayerBuilder, Style
from skyscript_assets.demo.painter.light import Sun
from skyscript_assets.demo.painter.markings import add_graves, add_parking, add_pitch_lines
from skyscript_assets.demo.painter.noise import F32, CoarseField, rng_of, spectral_tile
from skyscript_assets.demo.painter.objects import REACH_M, MapObject
from skyscript_assets.demo.painter.palette import MATERIAL_INDEX, MATERIALS, Season, Surface, season_of
from skyscript_assets.demo.painter.props import add_power_line, add_thing
from skyscript_assets.demo.painter.roofs import Buildings, make_buildings
from skyscript_assets.demo.painter.shapes import line_parts
from skyscript_assets.demo.painter.vegetation import KINDS, CrownTile, TreeBuilder, Trees, make_crown_tile
from skyscript_assets.demo.painter.ways import add_barrier, add_crossings, add_rail, add_road, add_stream
from skyscript_assets.demo.settings import SyntheticSource
from skyscript_assets.lib.geometry import Bounds
from skyscript_assets.lib.osm.meaning import layer_of
from skyscript_assets.lib.osm.roads import is_motor_road, road_class, road_width_m


@dataclass(frozen=True)
class Textures:
    """Repeating noise, mean 0 and deviation 1: from pixel to pixel, from metre to metre, and waves.

    Attributes:
        grain: (n, n) float32.
        patch: (n, n) float32.
        waves: (n, n) float32.
        fray: Two (n, n) integers: by how many pixels the edges of soft areas are shifted, down and to the right.
    """

    grain: F32
    patch: F32
    waves: F32
    fray: tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]


@dataclass(frozen=True)
class Painting:
    """All that a block needs.

    Attributes:
        grid: The canvas.
        ground: Areas with soft edges: plants, bare ground, water.
        built: Areas with crisp edges: roads, paths, squares, pitches.
        marks: What is painted on them.
        buildings: Buildings.
        things: Small things with a height.
        trees: Single trees.
        crowns: Fields of crowns by kind.
        surroundings: Coarse maps.
        cells: What goes by cell.
        textures: Noise.
        season: The season.
        sun: The sun.
        seed: Seed of everything random.
        invented: How many objects of each kind the map lacks.
    """

    grid: Grid
    ground: Layer
    built: Layer
    marks: Layer
    buildings: Buildings
    things: Layer
    trees: Trees
    crowns: dict[str, CrownTile]
    surroundings: Surroundings
    cells: Cells
    textures: Textures
    season: Season
    sun: Sun
    seed: int
    invented: Counter[str]


MARK_M = 0.3
"""Width of the thinnest marks; where pixels are larger, marks are drawn wider and fainter."""

_FRAY_M = 0.5
"""Deviation of the frayed edges of soft areas, metres."""

_GROUNDWORK = {"building", "zone", "area", "stream", "coastline"}
"""Roles that say what a place is like; they are sorted in first."""


@dataclass
class _Studio:
    """What the objects of a painting are sorted into."""

    seed: int
    trees: TreeBuilder
    ground: LayerBuilder = field(default_factory=LayerBuilder)
    built: LayerBuilder = field(default_factory=LayerBuilder)
    marks: LayerBuilder = field(default_factory=LayerBuilder)
    things: LayerBuilder = field(default_factory=LayerBuilder)
    buildings: list[MapObject] = field(default_factory=list)
    zones: list[MapObject] = field(default_factory=list)
    crossings: list[MapObject] = field(default_factory=list)
    coast: list[MapObject] = field(default_factory=list)
    areas: list[tuple[str, shapely.Geometry]] = field(default_factory=list)
    roads: list[tuple[shapely.Geometry, float, int]] = field(default_factory=list)
    tracks: list[shapely.Geometry] = field(default_factory=list)
    water: list[shapely.Geometry] = field(default_factory=list)
    parked: int = 0
    urban: CoarseField | None = None

    def take(self, item: MapObject) -> None:
        """Sort one object in."""
        handlers: dict[str, Callable[[MapObject], None]] = {
            "building": self.buildings.append,
            "zone": self.zones.append,
            "crossing": self.crossings.append,
            "coastline": self.coast.append,
            "area": self._area,
            "road": self._road,
            "rail": self._rail,
            "stream": lambda item: self.water.extend(add_stream(item, self.ground)),
            "barrier": lambda item: add_barrier(item, self.things),
            "tree": self.trees.add_object,
            "tree_row": self.trees.add_object,
            "power_line": lambda item: add_power_line(item, self.marks),
            "thing": lambda item: add_thing(item, self.things),
        }
        handlers[item.role](item)

    def _area(self, item: MapObject) -> None:
        name = add_area(item, self.ground, self.built, self.seed)
        if name is None:
            return
        self.areas.append((name, item.geometry))
        if MATERIALS[MATERIAL_INDEX[name]].surface == Surface.PITCH:
            add_pitch_lines(item, name, self.marks, self.things)
        elif item.tags.get("amenity") == "parking":
            self.parked += add_parking(item, self.marks, self.things, self.seed)
        elif name == "cemetery":
            add_graves(item, self.marks, self.seed)
        elif name == "orchard":
            self._orchard(item)

    def _orchard(self, item: MapObject) -> None:
        x0, y0, x1, y1 = item.geometry.bounds
        x, y = (axis.ravel() for axis in np.meshgrid(np.arange(x0, x1, 6.0), np.arange(y0, y1, 6.0)))
        for index in np.flatnonzero(shapely.contains_xy(item.geometry, x, y)):
            self.trees.add(f"{item.object_id}/{index}", float(x[index]), float(y[index]))

    def _road(self, item: MapObject) -> None:
        assert self.urban is not None
        add_road(item, self.ground, self.built, self.marks, self.urban, self.seed)
        if is_motor_road(item.tags):
            width = road_width_m(item.tags, road_class(item.tags)[1])
            level = max(0, layer_of(item.tags))
            self.roads.extend((line, width, level) for line in line_parts(item.geometry))

    def _rail(self, item: MapObject) -> None:
        add_rail(item, self.ground, self.built, self.marks)
        if item.tags["railway"] != "tram":
            self.tracks.append(item.geometry)


def make_painting(
    grid: Grid, objects: list[MapObject], source: SyntheticSource, split_zoom: int, bbox: Bounds
) -> Painting:
    """Decide everything about a painting.

    Args:
        grid: The canvas.
        objects: What is painted, sorted by id.
        source: Date, sun, seed, colours and rates.
        split_zoom: Zoom of the Web Mercator cells by which palette and sun vary.
        bbox: Ground of the region in degrees, where objects are known without gaps.
    """
    seed, season = source.seed, season_of(source.datetime, (bbox[1] + bbox[3]) / 2)
    cells = make_cells(grid, split_zoom, seed, random_colours=source.colours == "random")
    studio = _Studio(seed, TreeBuilder(season, seed))
    first = [item for item in objects if item.role in _GROUNDWORK]
    for item in first:
        studio.take(item)
    width, height = grid.size_m
    bounds = (-REACH_M, -REACH_M, width + REACH_M, height + REACH_M)
    (ground,) = grid.to_local(np.array([shapely.segmentize(shapely.box(*bbox), 0.001)], dtype=object))
    sea = sea_polygons([item.geometry for item in studio.coast], ground, REACH_M)
    studio.ground.add_all(sea, -1.0, Style(MATERIAL_INDEX["water"], surface=int(Surface.WATER)))
    studio.water += sea + water_areas(studio.areas)
    outlines = [item.geometry for item in studio.buildings]
    surroundings = make_surroundings(grid, outlines, studio.zones, studio.water, seed)
    studio.urban = surroundings.urban
    for item in objects:
        if item.role not in _GROUNDWORK:
            studio.take(item)
    add_crossings(studio.crossings, studio.roads, studio.marks)
    buildings = make_buildings(studio.buildings, surroundings.urban, studio.things, seed)
    studio.marks.widen((grid.pixel_m - MARK_M) / 2)
    places = _places(studio, surroundings, outlines)
    layers = (studio.built, studio.things)
    invented = invent(grid, places, source.invent_per_km2, layers, studio.trees, seed)
    invented["car"] += studio.parked
    return Painting(
        grid=grid,
        ground=studio.ground.freeze(bounds),
        built=studio.built.freeze(bounds),
        marks=studio.marks.freeze(bounds),
        buildings=buildings,
        things=studio.things.freeze(bounds),
        trees=studio.trees.freeze(),
        crowns={name: make_crown_tile(name, grid.pixel_m, season, seed) for name in KINDS},
        surroundings=surroundings,
        cells=cells,
        textures=_textures(grid.pixel_m, seed),
        season=season,
        sun=Sun(source.sun_azimuth_deg, source.sun_elevation_deg, cells),
        seed=seed,
        invented=invented,
    )


def _places(studio: _Studio, surroundings: Surroundings, outlines: list[shapely.Geometry]) -> Places:
    ground_roads = [(line, width) for line, width, level in studio.roads if level == 0]
    bodies = [shapely.buffer(line, width / 2 + 0.5) for line, width, _ in studio.roads]
    tracks = [shapely.buffer(track, 3.0) for track in studio.tracks]
    paved = {Surface.PAVED, Surface.PITCH, Surface.PATH, Surface.ROAD, Surface.FARMLAND}
    made = [geometry for name, geometry in studio.areas if MATERIALS[MATERIAL_INDEX[name]].surface in paved]
    yards = [zone.geometry for zone in studio.zones if zone.tags.get("landuse") in {"industrial", "retail", "port"}]
    return Places(
        ground_roads, outlines + bodies + tracks + made + studio.water, studio.water, yards, outlines, surroundings
    )


def _textures(pixel_m: float, seed: int) -> Textures:
    """Noise tiles of 1024 pixels; wavelengths in metres."""

    def tile(name: str, shortest_m: float, longest_m: float, stretch: tuple[float, float] = (1.0, 1.0)) -> F32:
        return spectral_tile(rng_of(seed, name), 1024, shortest_m / pixel_m, longest_m / pixel_m, stretch)

    def shift(name: str) -> npt.NDArray[np.intp]:
        pixels: npt.NDArray[np.intp] = np.rint(tile(name, 0.8, 7.0) * _FRAY_M / pixel_m).astype(np.intp)
        return pixels

    return Textures(
        grain=spectral_tile(rng_of(seed, "grain"), 1024, 0.35, 3.0),
        patch=tile("patch", 0.8, 7.0),
        waves=tile("waves", 0.5, 4.0, (1.0, 2.2)),
        fray=(shift("down"), shift("right")),
    )
