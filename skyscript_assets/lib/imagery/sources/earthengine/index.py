"""The images of an Earth Engine collection over a region, each one scene."""

import dataclasses
import datetime as dt
import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import shapely
import shapely.geometry
from affine import Affine
from pyproj.exceptions import CRSError

from skyscript_assets.lib.errors import CorruptInputError, SceneError
from skyscript_assets.lib.geometry import ground_gsd_m, is_stated_gsd, parse_crs
from skyscript_assets.lib.imagery.footprints import outline_of
from skyscript_assets.lib.imagery.geotiff.describe import EDGE_POINTS, Stated, crs_text, scaling_of, scene_id
from skyscript_assets.lib.imagery.scenes import Scene, write_scenes
from skyscript_assets.lib.imagery.sources.earthengine.reader import SCHEME, EarthEngineReader, read_pixels
from skyscript_assets.lib.imagery.sources.earthengine.session import EarthEngine, has_credentials, installed
from skyscript_assets.lib.imagery.sources.earthengine.settings import EarthEngineSource
from skyscript_assets.lib.imagery.sources.kind import INTERNET, Reading, Requirement, Search, SourceKind, of_variable
from skyscript_assets.lib.settings.base import Shared

PREVIEW_PX = 512
"""Longer side of the thinned copy from which percentiles are taken."""


class _LeftOutError(Exception):
    """An image that is no scene of the source; the argument is the reason."""


def index_earth_engine(search: Search[EarthEngineSource]) -> dict[str, Any]:
    """Write `scenes.parquet`: the collection's images over a region, perhaps none.

    Returns:
        `images` that the collection has there by date and cloud, at most `max_scenes`, the `scenes` among them, and how
        many were `left_out` by reason. `gsd`: their pixels are not of the source's `gsd_m`; `outside`: they do not
        reach the region; `crs`: they lie on no usable grid. `why_none` where the extent has nothing of the region.

    Raises:
        MissingInputError: package, credentials or project are missing or refused.
        RefusedError: there is no such collection.
        UnreachableError: Earth Engine gives no answer.
        SceneError: no image has the bands, or all are of another resolution, or a scaling is missing.
        CorruptInputError: the answer is no list of images.
    """
    key, source, out = search.key, search.source, search.out
    ground = search.ground
    if ground.area == 0:
        return {"images": 0, "left_out": {}, **search.outside(f"sources.yaml: {key}.extent")}
    engine = EarthEngine(source, key)
    scenes: dict[str, Scene] = {}
    left_out: Counter[str] = Counter()
    images = _images(engine, source, shapely.bounds(ground).tolist())
    for image in images:
        try:
            scene = _scene(image, search, ground, engine)
            scenes[scene.scene_id] = scene
        except _LeftOutError as error:
            left_out[str(error)] += 1
    if images and left_out["gsd"] == len(images):
        raise SceneError(
            f"source {key}: none of the {len(images)} images of {source.collection} has pixels of about "
            f"{source.gsd_m:g} m on the ground; correct gsd_m in sources.yaml"
        )
    write_scenes(out, scenes.values())
    return {"images": len(images), "scenes": len(scenes), "left_out": dict(sorted(left_out.items()))}


def _images(engine: EarthEngine, source: EarthEngineSource, bounds: list[float]) -> list[dict[str, Any]]:
    """Descriptions of the images over a box: by date and cloud, the clearest or the newest first."""
    import ee

    def ask() -> Any:
        collection = ee.ImageCollection(source.collection).filterBounds(ee.Geometry.Rectangle(bounds, geodesic=False))
        if source.start is not None or source.end is not None:
            start, end = source.start or dt.date(1900, 1, 1), source.end or dt.date(2200, 1, 1)
            collection = collection.filterDate(start.isoformat(), end.isoformat())
        if source.cloud_property is not None:
            collection = collection.filter(ee.Filter.lte(source.cloud_property, source.max_cloud_percent))
            collection = collection.sort(source.cloud_property)
        else:
            collection = collection.sort("system:time_start", False)  # noqa: FBT003 - the client's own order
        return collection.limit(source.max_scenes).getInfo()

    answer = engine.call(ask)
    features = answer.get("features") if isinstance(answer, dict) else None
    if not isinstance(features, list) or not all(isinstance(feature, dict) for feature in features):
        raise CorruptInputError(f"Earth Engine describes {source.collection} as no collection of images")
    return features[: source.max_scenes]


def _scene(
    image: Mapping[str, Any], search: Search[EarthEngineSource], ground: shapely.Geometry, engine: EarthEngine
) -> Scene:
    """The scene that an image is; _LeftOutError where it is none of this source over this ground."""
    source, name = search.source, str(image.get("id", ""))
    bands = _bands(image, name, search.key, source)
    try:
        first = bands[0]
        crs = parse_crs(first.get("crs") or first["crs_wkt"])
        origin = first.get("origin") or (0, 0)
        affine = Affine(*map(float, first["crs_transform"])) @ Affine.translation(float(origin[0]), float(origin[1]))
        width, height = (int(side) for side in first["dimensions"])
        properties = image["properties"]
        when = dt.datetime.fromtimestamp(float(properties["system:time_start"]) / 1000.0, dt.UTC)
    except (KeyError, TypeError, ValueError, OverflowError, CRSError):
        raise _LeftOutError("crs") from None
    outline = outline_of(crs, tuple(affine[:6]), width, height, EDGE_POINTS)
    if outline is None:
        raise _LeftOutError("crs")
    footprint = _footprint(properties.get("system:footprint"), outline)
    if not footprint.intersects(ground):
        raise _LeftOutError("outside")
    gsd = float(ground_gsd_m(crs, affine[:6], *(affine @ (width / 2, height / 2))))
    if not is_stated_gsd(gsd, source.gsd_m):
        raise _LeftOutError("gsd")
    cloud = properties.get(source.cloud_property or "")
    facts = {"id": name, "version": image.get("version"), "bands": source.bands}
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()
    scene = search.scene(
        scene_id=scene_id(name.rpartition("/")[2], digest),
        datetime=when,
        footprint=footprint,
        cloud_share=min(1.0, max(0.0, float(cloud) / 100.0)) if isinstance(cloud, int | float) else None,
        gsd_m=gsd,
        crs=crs_text(crs),
        transform=tuple(affine[:6]),
        width=width,
        height=height,
        hrefs=(f"{SCHEME}{name}",),
        access={"bands": list(source.bands)},
        fingerprint=digest,
    )
    return _scaled(scene, bands, source, engine)


def _bands(image: Mapping[str, Any], name: str, key: str, source: EarthEngineSource) -> list[dict[str, Any]]:
    """Descriptions of the three bands that are shown."""
    described = {str(band.get("id")): band for band in image.get("bands") or () if isinstance(band, dict)}
    if missing := [band for band in source.bands if band not in described]:
        raise SceneError(
            f"{name} has no band {missing[0]!r}; it has {', '.join(sorted(described)[:30]) or 'none'}: correct "
            f"sources.yaml: {key}.bands"
        )
    return [described[band] for band in source.bands]


def _footprint(stated: Any, outline: shapely.Geometry) -> shapely.Geometry:
    """The stated footprint inside the image's edge; the edge where it is none, as for images of the whole globe."""
    try:
        found = shapely.geometry.shape(stated)
        if found.geom_type in ("LinearRing", "LineString"):
            found = shapely.Polygon(found.coords)
        found = shapely.make_valid(found).intersection(outline)
    except (AttributeError, KeyError, TypeError, ValueError, shapely.errors.GEOSException):
        return outline
    return shapely.normalize(found) if found.area > 0 else outline


def _scaled(scene: Scene, bands: list[dict[str, Any]], source: EarthEngineSource, engine: EarthEngine) -> Scene:
    """The scene with the raw values that become 0 and 255, the same for all bands."""
    scaling, preview = source.scaling, None
    if scaling is None:
        types = [band.get("data_type") or {} for band in bands]
        if not all(type_.get("min", -1) >= 0 and type_.get("max", 256) <= 255 for type_ in types):
            raise SceneError(
                f"{scene.where} is not 8-bit: state sources.yaml: {scene.source}.scaling, either low and high raw "
                "values or percentiles such as [2, 98]"
            )
    elif scaling.percentiles is not None:
        step = max(1.0, max(scene.width, scene.height) / PREVIEW_PX)
        shape = (math.ceil(scene.width / step), math.ceil(scene.height / step))
        thinned = Affine(*scene.transform) @ Affine.scale(scene.width / shape[0], scene.height / shape[1])
        preview = read_pixels(engine, scene, tuple(thinned[:6]), *shape)
        if not preview[1].any():
            raise _LeftOutError("outside")
    low, high = scaling_of(scene.where, Stated(scene.source, source.gsd_m, scaling, None), preview)
    return dataclasses.replace(scene, scale_low=low, scale_high=high)


def _requirements(source: EarthEngineSource, _shared: Shared) -> list[Requirement]:
    needed = [
        INTERNET,
        Requirement("extra earthengine", installed(), "pip install 'skyscript-assets[earthengine]'"),
        *of_variable(source.credentials_variable, "path of a key file"),
    ]
    if source.credentials_variable is None:
        needed.append(Requirement("Google credentials", has_credentials(), "run `earthengine authenticate`"))
        needed.append(Requirement("project", source.project is not None, "state its project in sources.yaml"))
    elif path := os.environ.get(source.credentials_variable, "").strip():
        needed.append(Requirement("the key file", Path(path).is_file(), f"{path} does not exist"))
    return needed


KIND = SourceKind(
    settings=EarthEngineSource,
    version="2",
    index=index_earth_engine,
    open_scene=lambda scene, source, _cache: EarthEngineReader(scene, source),
    requirements=_requirements,
    reading=lambda _source: Reading(chip_requests=1),
    sample=lambda source: source.model_copy(update={"max_scenes": 1}),
)
