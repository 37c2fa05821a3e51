"""The one scene that a tile or map service is over a region: the tiles over it, as one image."""

import contextlib
import datetime as dt
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from skyscript_assets.lib.errors import CorruptInputError, SceneError
from skyscript_assets.lib.imagery.footprints import outline_of
from skyscript_assets.lib.imagery.geotiff.describe import crs_text
from skyscript_assets.lib.imagery.scenes import Scene, acquisition_time, write_scenes
from skyscript_assets.lib.imagery.sources.kind import INTERNET, Reading, Search, SourceKind, of_variable
from skyscript_assets.lib.imagery.sources.services.cache import shared_folder
from skyscript_assets.lib.imagery.sources.services.client import Client
from skyscript_assets.lib.imagery.sources.services.grid import EDGE_PIECES, TileRange, nearest_grid, web_mercator_grid
from skyscript_assets.lib.imagery.sources.services.layer import WORLD, Served, ServedLayer
from skyscript_assets.lib.imagery.sources.services.reader import TileReader
from skyscript_assets.lib.imagery.sources.services.settings import Service, WcsSource, WmsSource, WmtsSource, XyzSource
from skyscript_assets.lib.imagery.sources.services.tile import TileAddress, fetch_tile
from skyscript_assets.lib.imagery.sources.services.wcs import served_by_wcs
from skyscript_assets.lib.imagery.sources.services.wms import served_by_wms
from skyscript_assets.lib.imagery.sources.services.wmts import served_by_wmts
from skyscript_assets.lib.secrets import told

MAX_SCENE_PX = (1 << 31) - 1
"""Most columns or rows of a scene: its table holds them as 32-bit integers."""


def index_service(search: Search[Any], served: Served) -> dict[str, Any]:
    """Write `scenes.parquet`: a scene of the tiles over a region, or none where the service ends before it.

    One tile is fetched, the one at the centre: a service that refuses, or sends something else than tiles of the stated
    size, is found out before chips are planned.

    Returns:
        `scenes`: 1, or 0 where the service has nothing over the region, and `why_none`; with a scene its number of
        `tiles`, its `gsd_m` at the centre, the zoom, tile matrix or CRS of its `grid`, what its `first_tile` is:
        `image` or `no data`, and the time and terms of use that the service states.

    Raises:
        SettingsError: the key of the service is missing.
        SceneError: the layer, its resolution or its date is not what the settings say.
        MissingInputError: the service refuses.
        UnreachableError: it gives no usable answer.
        CorruptInputError: its capabilities or its tiles cannot be read.
    """
    key, source = search.key, search.source
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(shared_folder(search.cache)))
        client = Client(source, key, folder)
        ground = _clipped(search.ground, WORLD)
        if ground.is_empty:
            return search.outside(f"sources.yaml: {key}.extent")
        layer = served(source, key, ground, client)
        area = layer.grid.crs.area_of_use
        limits = {"the ground that the service states": layer.ground}
        limits |= {f"where {layer.grid.crs.name} may be used": shapely.box(*area.bounds)} if area else {}
        for what, limit in limits.items():
            if (common := _clipped(ground, limit)).is_empty:
                return search.outside(f"{what}, {shapely.bounds(limit).round(4).tolist()}")
            ground = common
        if (tiles := layer.grid.tiles_over(ground)) is None:
            return search.outside(f"the tiles of {layer.grid.name} that the service has")
        scene = _scene(search, layer, tiles, ground)
        first = _first_tile(client, scene)
    write_scenes(search.out, [scene])
    found = {"tiles": tiles.columns * tiles.rows, "gsd_m": scene.gsd_m, "grid": layer.grid.name, "first_tile": first}
    said = {"time_stated": layer.datetime and layer.datetime.isoformat(), "terms_stated": told(layer.terms, 200)}
    return {"scenes": 1, **found, **said}


def _clipped(ground: shapely.Geometry, limits: shapely.Geometry) -> shapely.Geometry:
    """The part of a box inside another one; a mere edge counts as nothing."""
    common = shapely.normalize(ground.intersection(limits))
    return common if common.area > 0 else shapely.Polygon()


def _served_as_xyz(source: XyzSource, key: str, ground: shapely.Geometry, _: Client) -> ServedLayer:
    """The zoom of a template that is nearest to the wanted resolution."""
    zooms = [web_mercator_grid(zoom, source.tile_px) for zoom in range(source.max_zoom + 1)]
    grid = nearest_grid(zooms, source.gsd_m, ground, f"source {key} up to zoom {source.max_zoom}")
    template = source.template.replace("{z}", grid.name)
    return ServedLayer(grid, template, WORLD, None, {"zoom": int(grid.name), "rows": 1 << int(grid.name)})


def _scene(search: Search[Any], layer: ServedLayer, tiles: TileRange, ground: shapely.Geometry) -> Scene:
    region, key, source, grid = search.region, search.key, search.source, layer.grid
    width, height = tiles.columns * grid.tile_width, tiles.rows * grid.tile_height
    if max(width, height) > MAX_SCENE_PX:
        raise SceneError(
            f"source {key}: {region} has more than {MAX_SCENE_PX} pixels in a row there: give the region a smaller "
            "bbox, or the source a coarser gsd_m"
        )
    access = {
        **layer.facts,
        "first": [tiles.column, tiles.row],
        "tile": [grid.tile_width, grid.tile_height],
        "probe": [tiles.column + tiles.columns // 2, tiles.row + tiles.rows // 2],
        "nodata": source.nodata,
        "blank_sha256": sorted(source.blank_sha256),
    }
    transform = grid.transform(tiles)
    outline = outline_of(grid.crs, transform, width, height, EDGE_PIECES)
    # Where a service ends, its tiles may cover less than the region.
    covered = ground if outline is None else shapely.normalize(ground.intersection(outline))
    when = _moment(source, layer, key)
    # What a service shows may change unseen: the fingerprint is of what is asked for.
    asked = {"template": layer.template, "access": access, "absent": sorted(source.absent_statuses)}
    facts = asked | {"transform": transform, "when": when.isoformat()}
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return search.scene(
        scene_id=f"{region}_{key}_{when:%Y%m%d}-{digest[:8]}",
        datetime=when,
        date_is=source.date_is if source.datetime is not None else "stated",
        footprint=covered if covered.area > 0 else ground,
        gsd_m=grid.gsd_m(ground),
        crs=crs_text(grid.crs),
        transform=transform,
        width=width,
        height=height,
        hrefs=(layer.template,),
        access=access,
        fingerprint=digest,
    )


def _moment(source: Service, layer: ServedLayer, key: str) -> dt.datetime:
    """The date of the images: the settings', else that of the service's TIME."""
    if source.datetime is not None:
        return acquisition_time(source.datetime)
    if layer.datetime is None:
        raise SceneError(
            f"source {key}: the service states no time of its images: state sources.yaml: {key}.datetime, a date that "
            "stands for them"
        )
    return layer.datetime


def _first_tile(client: Client, scene: Scene) -> str:
    """Fetch the tile at the centre."""
    try:
        _, pixels = fetch_tile(client, TileAddress(scene), *scene.access["probe"])
    except CorruptInputError as error:
        raise CorruptInputError(f"the first tile of the service {error}") from error
    return "image" if pixels is not None and bool(np.any(pixels.valid)) else "no data"


def _kind(settings: type[Service], served: Served) -> SourceKind[Any]:
    return SourceKind(
        settings=settings,
        index=lambda search: index_service(search, served),
        open_scene=TileReader,
        requirements=lambda source, _shared: [INTERNET, *of_variable(source.api_key_variable, "the service's key")],
        # The tiles of a WMTS are taken for the usual ones: their size is in its capabilities alone.
        reading=lambda source: Reading(getattr(source, "tile_px", 256), 0, 1, 0, source.requests_per_second),
    )


XYZ, WMTS = _kind(XyzSource, _served_as_xyz), _kind(WmtsSource, served_by_wmts)
WMS, WCS = _kind(WmsSource, served_by_wms), _kind(WcsSource, served_by_wcs)
