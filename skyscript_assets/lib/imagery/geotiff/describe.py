"""What a raster says of itself: CRS, GSD, scaling and the ground with data, checked against what its source states.

Each mistake that a raster can carry ends here, with its name and the command or setting that mends it, so that later
stages meet only scenes that can be read. Where the raster lies, on this machine or elsewhere, is no matter here.
"""

import contextlib
import math
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS, Transformer

from skyscript_assets.lib.errors import SceneError
from skyscript_assets.lib.geometry import ground_gsd_m, is_stated_gsd, parse_crs
from skyscript_assets.lib.imagery.footprints import place
from skyscript_assets.lib.imagery.geotiff.raster import OpenImage
from skyscript_assets.lib.settings.sources import Scaling

POOL_PX = 4
"""Side of the squares of the thinned copy that count as data as a whole: specks and ragged edges cost much time."""

EDGE_POINTS = 32
"""Segments that each side of a raster's outline is divided into before it is transformed."""

MAX_FOOTPRINT_POINTS = 512
"""A ragged footprint with more vertices is replaced by its convex hull."""

LEAST_SHOWN = 0.5
"""Share of an image that an alpha band leaves, below which it may well be none."""

NO_BRIGHTNESS = frozenset(["cyan", "magenta", "yellow", "black", "hue", "saturation", "lightness", "Y", "Cb", "Cr"])
"""Meanings of bands (GDAL's names) whose values are no brightness."""

Preview = tuple[NDArray[Any], NDArray[np.bool_]] | None
"""Raw values (band, row, column) of a thinned copy and which of its pixels hold data; None where none was made."""

Limits = tuple[float, float, float] | None
Calibration = Sequence[tuple[float, float]]
"""Scale and offset of each band shown."""
UNCALIBRATED = (1.0, 0.0)


class Stated(NamedTuple):
    """What a source's settings state of its rasters, and its key for messages; fields as in the settings.

    `gsd_m` is None where there are no settings yet: then any is right.
    `calibration` is what a catalog states; a raster's own goes before it.
    """

    key: str
    gsd_m: float | None
    scaling: Scaling | None
    nodata: float | None
    calibration: Calibration | None = None


class Description(NamedTuple):
    """The frame of a raster and its ground with data, EPSG:4326, and further facts as columns of its scene by name.

    `mostly_hidden` tells that an alpha band hides most of it, so that it may be none.
    """

    outline: shapely.Geometry
    footprint: shapely.Geometry
    columns: dict[str, Any]
    mostly_hidden: bool


def describe(image: OpenImage, stated: Stated, preview_of: Callable[[], Preview]) -> Description | None:
    """The facts of an open image, or None where it holds no data at all.

    `preview_of` gives the thinned copy from which footprint and percentiles are taken; it is called once the image has
    proved fit.

    Raises:
        CorruptInputError: it cannot be decoded.
        SceneError: it cannot be used as it is; the message says what to do.
    """
    _check_bands(image, stated)
    crs = _crs_of(image)
    dataset = image.datasets[0]
    preview = preview_of()
    if preview is not None and not preview[1].any():
        return None
    own = [(each.scales[band - 1], each.offsets[band - 1]) for each, band in image.planes()]
    calibration = stated.calibration if stated.calibration and set(own) == {UNCALIBRATED} else own
    low, high = scaling_of(image.name, stated, preview, calibration)
    gsd_m, outline = located(image, stated)
    footprint = outline
    if preview is not None and not preview[1].all():
        footprint = _placed(image, _valid_outline(preview[1], dataset.width, dataset.height))
    columns = {
        "gsd_m": gsd_m,
        "crs": crs_text(crs),
        "transform": tuple(dataset.transform[:6]),
        "width": dataset.width,
        "height": dataset.height,
        "bands": image.bands,
        "scale_low": low,
        "scale_high": high,
        "nodata": nodata_of(image, stated),
        "ignore_alpha": image.ignore_alpha,
    }
    hides = image.alphas[0] is not None and not image.ignore_alpha
    return Description(outline, footprint, columns, hides and footprint.area < LEAST_SHOWN * outline.area)


def located(image: OpenImage, stated: Stated) -> tuple[float, shapely.Geometry]:
    """What its header alone says of an open image: metres on the ground per pixel, and its frame in EPSG:4326.

    The metres are those at its centre, along the longer side of a pixel that is not square.

    Raises:
        SceneError: it lies nowhere on the globe, or its pixels are not of the size that its source states.
    """
    crs, dataset = _crs_of(image), image.datasets[0]
    outline = _placed(image, shapely.box(0, 0, dataset.width, dataset.height))
    x, y = dataset.transform @ (dataset.width / 2, dataset.height / 2)
    gsd = float(ground_gsd_m(crs, dataset.transform[:6], x, y))
    if stated.gsd_m is not None and not is_stated_gsd(gsd, stated.gsd_m):
        raise SceneError(
            f"{image.name} has pixels of {gsd:.3g} m on the ground, but sources.yaml: {stated.key}.gsd_m says "
            f"{stated.gsd_m:g}: correct it, or keep files of one resolution to a source"
        )
    return gsd, outline


def nodata_of(image: OpenImage, stated: Stated) -> float | None:
    """The value without data, by the settings or the image; None where there is none, or where that is NaN."""
    nodata = stated.nodata if stated.nodata is not None else image.datasets[0].nodatavals[image.bands[0] - 1]
    return None if nodata is None or math.isnan(nodata) else float(nodata)


def scene_id(name: str, fingerprint: str) -> str:
    """A scene's id: what its provider calls it, made fit for file names, and a part of its content's digest.

    Two images of one name thereby are two scenes, and copies of one image under one name are one.
    """
    return f"{re.sub(r'[^A-Za-z0-9_.]+', '-', name)[:60]}-{fingerprint[:8]}"


@contextlib.contextmanager
def unwarned() -> Iterator[None]:
    """A raster without a georeference is an error with a remedy here, and no warning of rasterio's."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Dataset has no geotransform")
        yield


def _check_bands(image: OpenImage, stated: Stated) -> None:
    """Whether the bands that are shown exist, hold plain numbers, and are 8-bit or have a scaling."""
    for dataset, band in image.planes():
        if not 1 <= band <= dataset.count:
            raise SceneError(
                f"{image.name} has {dataset.count} band{'s' * (dataset.count != 1)}, but sources.yaml: "
                f"{stated.key}.bands asks for {list(image.bands)}: name bands that exist (a grey or a palette image: "
                "[1, 1, 1])"
            )
        if (meaning := dataset.colorinterp[band - 1].name) in NO_BRIGHTNESS:
            raise SceneError(f"{image.name}: band {band} is {meaning}, which is no brightness: convert it to RGB first")
    kinds = {dataset.dtypes[band - 1] for dataset, band in image.planes()} if image.colours is None else {"uint8"}
    if any(kind.startswith("complex") for kind in kinds):
        raise SceneError(f"{image.name} holds complex numbers, which are no picture: convert it to amplitudes first")
    if kinds != {"uint8"} and stated.scaling is None:
        raise SceneError(
            f"{image.name} is {', '.join(sorted(kinds))}, not 8-bit: state sources.yaml: {stated.key}.scaling, either "
            "low and high raw values or percentiles such as [2, 98]"
        )
    high = stated.scaling.high if stated.scaling is not None else None
    if kinds == {"uint8"} and high is not None and high > 255:
        raise SceneError(
            f"{image.name} is 8-bit, but sources.yaml: {stated.key}.scaling has {high:g} as its highest value, as "
            "if it had more: leave the scaling out, or name the asset or files with the raw values"
        )


def _crs_of(image: OpenImage) -> CRS:
    """The CRS of a georeferenced raster, geographic or projected."""
    dataset, name = image.datasets[0], image.name
    if dataset.crs is None:
        control = " (it has ground control points: warp it with `gdalwarp`, or else)" if dataset.gcps[0] else ""
        raise SceneError(f"{name} has no CRS{control}: state it with `gdal_edit.py -a_srs EPSG:<code> {name}`")
    transform = dataset.transform
    if transform.is_identity or transform.is_degenerate or not all(map(math.isfinite, transform[:6])):
        raise SceneError(
            f"{name} has no georeference: state its corners with "
            f"`gdal_edit.py -a_ullr <left> <top> <right> <bottom> {name}`"
        )
    crs = parse_crs(dataset.crs.to_wkt())
    if not (crs.is_geographic or crs.is_projected):
        raise SceneError(
            f"{name} has the local CRS {crs.name!r}, which cannot be placed on the globe: "
            f"state the true one with `gdal_edit.py -a_srs EPSG:<code> {name}`"
        )
    return crs


def crs_text(crs: CRS) -> str:
    """`EPSG:n` where that says all of the CRS, else its WKT."""
    code = crs.to_epsg(min_confidence=100)
    return f"EPSG:{code}" if code is not None else crs.to_wkt()


def scaling_of(
    name: str, stated: Stated, preview: Preview, calibration: Calibration = (UNCALIBRATED,) * 3
) -> tuple[Limits, Limits]:
    """The raw values of each band that become 0 and 255; None where they are shown as they are.

    Raises:
        SceneError: there is no preview to take percentiles from, they leave nothing to be seen, or scale and offset are
            not what the settings need.
    """
    scaling = stated.scaling
    if scaling is None:
        return None, None
    if scaling.percentiles is None:
        return _fixed_limits(name, stated.key, scaling, calibration)
    if preview is None:
        raise SceneError(
            f"{name} is too large to take percentiles from without overviews: "
            f"add them with `gdaladdo -r average {name}`, or state {stated.key}.scaling as low and high"
        )
    raw, valid = preview
    low, high = np.percentile(raw[:, valid], scaling.percentiles, axis=1)
    if not (low < high).all():
        raise SceneError(
            f"{name}: percentiles {list(scaling.percentiles)} of a band are both {low[low >= high][0]:g}, so that "
            f"nothing would be seen: state sources.yaml: {stated.key}.scaling as low and high"
        )
    return tuple(low.tolist()), tuple(high.tolist())


def _fixed_limits(name: str, key: str, scaling: Scaling, calibration: Calibration) -> tuple[Limits, Limits]:
    """The raw values of each band that the settings' `low` and `high` are."""
    scale, offset = np.array([UNCALIBRATED] if scaling.values == "stored" else calibration).T
    missing = scaling.values == "physical" and set(calibration) == {UNCALIBRATED}
    if missing or not (np.isfinite(offset).all() and (scale > 0).all() and np.isfinite(scale).all()):
        raise SceneError(
            f"{name} states scales {scale.tolist()} and offsets {offset.tolist()}, which sources.yaml: "
            f"{key}.scaling.values: {scaling.values} cannot use: give low and high as values that are stored"
        )
    unit = scale if scaling.values == "physical" else 1.0
    low, high = np.array([[scaling.low], [scaling.high]]) / unit - offset / scale + np.zeros(3)
    return tuple(low.tolist()), tuple(high.tolist())


def _placed(image: OpenImage, in_pixels: shapely.Geometry) -> shapely.Geometry:
    """A part of a raster on the globe, EPSG:4326."""
    dataset, to_wgs84 = image.datasets[0], Transformer.from_crs(_crs_of(image), 4326, always_xy=True)
    fine = shapely.segmentize(in_pixels, max(dataset.width, dataset.height) / EDGE_POINTS)
    placed = place(fine, dataset.transform[:6], to_wgs84)
    if placed is None or placed.is_empty:
        raise SceneError(
            f"{image.name} does not lie on the globe by its CRS and georeference: correct them with "
            f"`gdal_edit.py -a_srs EPSG:<code> -a_ullr <left> <top> <right> <bottom> {image.name}`"
        )
    return placed


def _valid_outline(valid: NDArray[np.bool_], width: int, height: int) -> shapely.Geometry:
    """The valid part of a raster in its pixel coordinates, closed over specks and a little too large."""
    from rasterio.features import shapes

    padded = np.pad(valid, [(0, -side % POOL_PX) for side in valid.shape])
    pooled = padded.reshape(padded.shape[0] // POOL_PX, POOL_PX, -1, POOL_PX).any(axis=(1, 3))
    rings = [shape["coordinates"] for shape, _ in shapes(pooled.astype(np.uint8), mask=pooled)]
    area = shapely.union_all([shapely.Polygon(shell, holes) for shell, *holes in rings])
    area = area.buffer(1, join_style="mitre").buffer(-0.75, join_style="mitre").simplify(0.25)
    if shapely.get_num_coordinates(area) > MAX_FOOTPRINT_POINTS:
        area = area.convex_hull
    step = (POOL_PX * width / valid.shape[1], POOL_PX * height / valid.shape[0])
    return shapely.transform(area, lambda points: points * step).intersection(shapely.box(0, 0, width, height))
