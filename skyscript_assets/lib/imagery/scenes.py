"""Scenes: the images of a source that cover a region, as `scenes.parquet` stores them and every later stage reads them.

What a kind of source does to find its scenes belongs to that kind's module; only the table and its rows are here.
"""

import datetime as dt
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import shapely

from skyscript_assets.lib.errors import CorruptInputError
from skyscript_assets.lib.files import write_json
from skyscript_assets.lib.geometry import Bounds
from skyscript_assets.lib.secrets import shown, told
from skyscript_assets.lib.settings.base import BBox
from skyscript_assets.lib.tables import BBOX_TYPE, fields, read_table, rows_to_table, write_table

SCENES_FILE = "scenes.parquet"
UNUSABLE_FILE = "unusable_items.json"

MAX_LISTED, MAX_REASON = 1000, 500
"""Most unusable images that are listed, and the longest reason, characters."""

SCENE_SCHEMA = pa.schema(
    [
        *fields(pa.string(), "scene_id", "region", "source", "kind"),
        ("datetime", pa.timestamp("ms", tz="UTC")),
        ("date_is", pa.string()),
        ("geometry", pa.binary()),
        ("bbox", BBOX_TYPE),
        *fields(pa.float64(), "cloud_share", "gsd_m", "effective_gsd_m"),
        ("crs", pa.string()),
        ("transform", pa.list_(pa.float64())),
        *fields(pa.int32(), "width", "height"),
        ("hrefs", pa.list_(pa.string())),
        *fields(pa.string(), "access", "fingerprint"),
        ("bands", pa.list_(pa.int32())),
        *fields(pa.list_(pa.float64()), "scale_low", "scale_high"),
        ("nodata", pa.float64()),
        ("ignore_alpha", pa.bool_()),
        *fields(pa.string(), "licence", "attribution"),
        ("synthetic", pa.bool_()),
    ]
)
"""Columns of `scenes.parquet`; geometry is WKB in EPSG:4326, `access` a JSON object."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One image of a source over a region.

    Attributes:
        scene_id: Unique within its region and source.
        kind: Kind of the source: how its images are reached.
        datetime: Acquisition time, UTC.
        date_is: What that is worth, as `DateIs` of the settings has it.
        footprint: Ground with data, EPSG:4326.
        cloud_share: Share of cloud in 0..1 as its provider states it, None where unknown.
        gsd_m: Metres on the ground per pixel at the scene's centre.
        effective_gsd_m: Metres on the ground of the finest detail by its spectrum (`effective`), None where unknown.
        crs: CRS of the image, `EPSG:n` or WKT.
        transform: Affine (a, b, c, d, e, f) from pixel corners (column, row) to `crs`; chips that lie on this grid are
            not resampled.
        hrefs: Where the image is: one address for all bands, or one each for red, green and blue. An absolute path, a
            file name inside the folder of `scenes.parquet`, a web address, a tile template or an image id, as the kind
            has it; never with a token or a signature.
        access: What the kind's reader needs to know besides, JSON values by name; never a secret.
        fingerprint: Changes when the image's bytes change.
        bands: Band numbers (from 1) shown as red, green, blue.
        scale_low: Raw values of red, green and blue that become 0; None where the data is 8-bit and shown as it is.
        scale_high: Raw values that become 255.
        nodata: Raw value without data that the settings or the file state.
        ignore_alpha: Whether a band that is tagged alpha hides nothing.
        attribution: Credit line of the image.
        synthetic: Whether it is painted and no photograph.
        folder: Folder of the `scenes.parquet` that it was read from; `hrefs` start there.
    """

    scene_id: str
    region: str
    source: str
    kind: str = "files"
    datetime: dt.datetime
    date_is: str = "stated"
    footprint: shapely.Geometry
    cloud_share: float | None = None
    gsd_m: float
    effective_gsd_m: float | None = None
    crs: str
    transform: tuple[float, float, float, float, float, float]
    width: int
    height: int
    hrefs: tuple[str, ...]
    access: Mapping[str, Any] = field(default_factory=dict, hash=False)
    fingerprint: str
    bands: tuple[int, int, int] = (1, 2, 3)
    scale_low: tuple[float, float, float] | None = None
    scale_high: tuple[float, float, float] | None = None
    nodata: float | None = None
    ignore_alpha: bool = False
    licence: str
    attribution: str
    synthetic: bool = False
    folder: Path = field(default=Path(), compare=False)

    @property
    def path(self) -> Path:
        """The image file of a scene on this machine; an absolute path in `hrefs` stands for itself."""
        return self.folder / self.hrefs[0]

    @property
    def where(self) -> str:
        """Where the image is, as messages name it: its path, or its address without query and credentials."""
        return shown(self.hrefs[0]) if "://" in self.hrefs[0] else str(self.path)

    @property
    def bounds(self) -> Bounds:
        """(west, south, east, north) of the footprint in degrees."""
        west, south, east, north = shapely.bounds(self.footprint)
        return float(west), float(south), float(east), float(north)


def write_scenes(out: Path, scenes: Iterable[Scene]) -> None:
    """Write `scenes.parquet` (GeoParquet 1.1) into a folder, sorted by scene id; no scenes make an empty table."""
    rows = []
    for scene in sorted(scenes, key=lambda scene: scene.scene_id):
        row = {name: getattr(scene, name, None) for name in SCENE_SCHEMA.names}
        row["access"] = json.dumps(row["access"], sort_keys=True)
        row["geometry"] = shapely.to_wkb(scene.footprint)
        row["bbox"] = dict(zip(("xmin", "ymin", "xmax", "ymax"), scene.bounds, strict=True))
        rows.append(row)
    types = {shapely.from_wkb(row["geometry"]).geom_type for row in rows}
    write_table(out / SCENES_FILE, rows_to_table(rows, SCENE_SCHEMA), geometry="geometry", geometry_types=sorted(types))


def write_unusable(out: Path, unusable: Iterable[tuple[str, str]]) -> None:
    """List images that cannot be used, (name, reason) each, beside `scenes.parquet`."""
    listed = [{"item": name, "reason": told(reason, MAX_REASON)} for name, reason in unusable]
    write_json(out / UNUSABLE_FILE, listed[:MAX_LISTED])


def read_scenes(folder: Path) -> list[Scene]:
    """Read the scenes of a `scene_index` folder, sorted by scene id.

    Raises:
        CorruptInputError: a footprint, a list or a JSON text is broken; and what `read_table` raises.
    """
    path = folder / SCENES_FILE
    scenes = []
    for row in read_table(path, SCENE_SCHEMA).select(SCENE_SCHEMA.names).to_pylist():
        del row["bbox"]
        lists: dict[str, Any] = {name: tuple(row.pop(name) or ()) for name in ("bands", "transform", "hrefs")}
        row |= {name: row[name] and tuple(row[name]) for name in ("scale_low", "scale_high")}
        known = all(row[name] is not None for name in ("scene_id", "region", "source", "kind", "geometry", "access"))
        sizes = [len(lists[name]) for name in ("bands", "transform", "hrefs")]
        if not known or sizes not in ([3, 6, 1], [3, 6, 3]) or None in lists["hrefs"]:
            raise CorruptInputError(
                f"{path}: scene {row['scene_id']} needs names, a footprint, 3 bands, 6 coefficients and 1 or 3 "
                "addresses; make it again"
            )
        try:
            footprint, access = shapely.from_wkb(row.pop("geometry")), json.loads(row.pop("access"))
        except (shapely.errors.GEOSException, ValueError) as error:
            raise CorruptInputError(
                f"{path}: scene {row['scene_id']} has a broken footprint or access ({error}); make it again"
            ) from error
        scenes.append(Scene(**row, **lists, footprint=footprint, access=access, folder=folder))
    return sorted(scenes, key=lambda scene: scene.scene_id)


def covers(region: BBox | None, extent: BBox | None) -> bool:
    """Whether a region and a source may overlap; a box that is not stated (None) may be anywhere."""
    return region is None or extent is None or region.intersects(extent)


def acquisition_time(stated: dt.datetime | dt.date) -> dt.datetime:
    """A date or time of the settings in UTC: without a zone it is meant as UTC, a mere date as its midnight."""
    if not isinstance(stated, dt.datetime):
        stated = dt.datetime.combine(stated, dt.time())
    return stated.replace(tzinfo=dt.UTC) if stated.tzinfo is None else stated.astimezone(dt.UTC)
