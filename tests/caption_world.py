"""A small region around a few chips of 200 x 100 pixels, given in the pixels of the first one."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from pyproj import Transformer

import skyscript_assets
from skyscript_assets.lib.captions.write import CAPTION_SCHEMA, CaptionInputs, write_captions
from skyscript_assets.lib.chips.plan import PLAN_SCHEMA
from skyscript_assets.lib.settings.plant import CaptionSettings
from skyscript_assets.lib.tables import BBOX_TYPE, TAGS_TYPE, read_table, rows_to_table, write_table

RULES = Path(skyscript_assets.__file__).parent / "settings" / "caption_rules.yaml"
OBJECTS = pa.schema([("object_id", pa.string()), ("tags", TAGS_TYPE), ("geometry", pa.binary()), ("bbox", BBOX_TYPE)])
DEFAULTS = CaptionSettings()
LEFT, TOP = 400_000.0, 5_200_000.0
VISIBLE = {
    ("building", "yes"): 10.0,
    ("building", "house"): 0.5,
    ("place", "island"): 30.0,
    ("aeroway", "aerodrome"): 30.0,
    ("leisure", "nature_reserve"): 30.0,
    ("natural", "wood"): 30.0,
    ("leaf_type", "broadleaved"): 30.0,
    ("roof:shape", "flat"): 1.0,
    ("highway", "path"): 1.0,
    ("bridge", "yes"): 1.0,
    ("highway", "residential"): 1.0,
    ("highway", "platform"): 1.0,
    ("public_transport", "platform"): 1.0,
    ("highway", "secondary"): 10.0,
    ("railway", "rail"): 1.0,
    ("waterway", "stream"): 1.0,
    ("waterway", "river"): 10.0,
    ("natural", "water"): 30.0,
    ("natural", "scrub"): 10.0,
    ("power", "line"): 1.0,
    ("leisure", "pitch"): 10.0,
    ("amenity", "parking"): 10.0,
    ("landuse", "residential"): 30.0,
    ("landuse", "forest"): 30.0,
    ("landuse", "meadow"): 30.0,
    ("man_made", "pier"): 10.0,
    ("name", "Villa Rosa"): 30.0,
    ("natural", "coastline"): 30.0,
    ("piste:type", "downhill"): 10.0,
    ("power", "minor_line"): 1.0,
    ("power", "plant"): 30.0,
    ("natural", "tree"): 0.6,
    ("religion", "hindu"): 30.0,
    ("sport", "soccer"): 1.0,
    ("sport", "tennis"): 10.0,
    ("surface", "gravel"): 0.6,
}


def ground(geometry: shapely.Geometry, gsd_m: float = 0.5, crs: str = "EPSG:32632") -> shapely.Geometry:
    """From pixels of the grid of a GSD to degrees."""
    back = Transformer.from_crs(crs, 4326, always_xy=True)
    return shapely.transform(
        geometry, lambda p: np.column_stack(back.transform(LEFT + p[:, 0] * gsd_m, TOP - p[:, 1] * gsd_m))
    )


@dataclass
class World:
    """A region's objects and a few chips of it, in a folder."""

    folder: Path
    objects: list[dict[str, Any]] = field(default_factory=list)
    chips: list[dict[str, Any]] = field(default_factory=list)
    status: list[str] = field(default_factory=list)

    def add(self, object_id: str, geometry: shapely.Geometry, **tags: str) -> None:
        geometry = ground(geometry)
        box = dict(zip(("xmin", "ymin", "xmax", "ymax"), shapely.bounds(geometry).tolist(), strict=True))
        row = {"object_id": object_id, "tags": tags, "geometry": shapely.to_wkb(geometry), "bbox": box}
        self.objects.append(row)

    def chip(self, object_id: str, x: int = 0, y: int = 0, gsd_m: float = 0.5, status: str = "ok", **more: Any) -> None:
        """A chip of 200 x 100 pixels."""
        row: dict[str, Any] = dict.fromkeys(PLAN_SCHEMA.names)
        row |= {
            "chip_id": f"{object_id}_{x}_{y}_{gsd_m:g}",
            "object_id": object_id,
            "crs": "EPSG:32632",
            "transform": [gsd_m, 0.0, LEFT + x * gsd_m, 0.0, -gsd_m, TOP - y * gsd_m],
            "width": 200,
            "height": 100,
            "gsd_m": gsd_m,
        }
        self.chips.append({**row, **more})
        self.status.append(status)

    def write(self, settings: CaptionSettings = DEFAULTS, rules: Path = RULES, **more: Any) -> dict[str, Any]:
        here = self.folder
        write_table(here / "objects.parquet", rows_to_table(self.objects, OBJECTS))
        write_table(here / "plan.parquet", rows_to_table(self.chips, PLAN_SCHEMA))
        ids = [chip["chip_id"] for chip in self.chips]
        pq.write_table(
            pa.table({"chip_id": pa.array(ids, pa.string()), "status": pa.array(self.status, pa.string())}),
            here / "chips.parquet",
        )
        tags = [{"key": k, "value": v, "coarsest_gsd_m": gsd} for (k, v), gsd in VISIBLE.items()]
        pq.write_table(pa.Table.from_pylist(tags), here / "tags.parquet")
        counts = [{"key": "landuse", "value": "forest", "region": "r", "gsd_m": 0.5, "n_plannable": 1}]
        pq.write_table(pa.Table.from_pylist(counts), here / "snapshot.parquet")
        return write_captions(CaptionInputs(here, here, here / "objects.parquet", here, rules), settings, here, **more)

    def rows(self) -> list[dict[str, Any]]:
        return read_table(self.folder / "captions.parquet", CAPTION_SCHEMA).to_pylist()

    def only(self) -> dict[str, Any]:
        (row,) = self.rows()
        return row
