"""What a chip plan is: its table, what it is made from and by which rules, and its counts. `planning` makes it."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from skyscript_assets.lib.geometry import Bounds
from skyscript_assets.lib.settings.plant import PlanSettings
from skyscript_assets.lib.settings.sources import SceneChoice
from skyscript_assets.lib.tables import BBOX_TYPE, fields

PLAN_FILE = "plan.parquet"

PLAN_SCHEMA = pa.schema(
    [
        *fields(pa.string(), "chip_id", "object_id", "region", "source", "scene_id", "crs"),
        ("transform", pa.list_(pa.float64(), 6)),
        *fields(pa.int32(), "width", "height"),
        ("gsd_m", pa.float64()),
        ("bbox", BBOX_TYPE),
        ("focus_box", pa.list_(pa.int32(), 4)),
        *fields(pa.string(), "stratum", "cell", "split"),
        ("osm_shift_m", pa.list_(pa.float64(), 2)),
    ]
)
"""Columns of `plan.parquet`. `transform` is affine (a, b, c, d, e, f) from pixel corners to `crs`; `focus_box` is
(x0, y0, x1, y1) in chip pixels, half open; `cell` is the Web Mercator tile `x/y` of the chip's centre; `bbox` is
where OSM has the chip's ground: `osm_shift_m`, metres east and north, moves OSM's coordinates onto the image."""

PIXEL_DECIMALS = 3
"""Places in pixels are rounded to this before they become whole: what a projection adds in noise is far below."""


@dataclass(frozen=True)
class Ground:
    """What is planned.

    Attributes:
        bbox: (west, south, east, north) of the region in degrees; objects centred outside are not planned.
        gsd_m: GSD that the source states, metres: the sampling snapshot must have counted at it.
        data_time: Time of the OSM data; None: the last edit of any of the objects.
    """

    region: str
    source: str
    bbox: Bounds
    gsd_m: float
    data_time: dt.datetime | None = None


@dataclass(frozen=True)
class PlanInputs:
    """Where a plan reads.

    Attributes:
        objects: `objects.parquet` of the region.
        overlap: `overlap.parquet` of the region: objects that another region plans.
        scenes: `scene_index` folder of the region and source; no scenes make an empty plan.
        snapshot: `sampling_snapshot` folder; the tags of a region that it does not know are counted here instead.
        offsets: `scene_offsets` folder: objects are moved by the shifts in it before they are placed. None: by none.
    """

    objects: Path
    overlap: Path
    scenes: Path
    snapshot: Path
    offsets: Path | None = None


@dataclass(frozen=True)
class PlanRules:
    """What decides which objects become chips, and where these lie.

    Attributes:
        plan: Rule, sampling, quota, sizes, shift and seed.
        zoom: Zoom of the Web Mercator tiles that are never divided between splits.
        choice: Which scene shows an object.
        effective: Whether a scene counts with its effective resolution where that is coarser than its pixels.
    """

    plan: PlanSettings
    zoom: int
    choice: SceneChoice = field(default_factory=SceneChoice)
    effective: bool = False


@dataclass(frozen=True)
class PlanSummary:
    """Counts of one chip plan: the source's scenes over the region, those with a chip, objects of the extract, chips.

    Attributes:
        elsewhere: Objects that another region plans and those centred outside the region's box.
        drawn: Objects drawn at the GSD of at least one scene.
        planned: Chips planned: of one object as many as its source's `choice.dates` at most.
        dropped: Reason -> drawn objects without a chip. `outside`: no scene holds the tile; `season`, `cloud`, `date`:
            the source's `choice` refuses all scenes that cover the object; `size`: the object does not fit a tile of
            the wanted size; `split`: every tile tried touches two splits; `near`: a
            chip of the same stratum shows much the same ground.
        splits: Split -> chips.
        tags: Tags seen at the scenes' GSDs and counted in the snapshot.
        tags_short: Of these, with fewer chips than wanted.
        resampled: Chips that are resampled because the scene's own pixels are not square on the ground.
        effective_strata: Strata as many as which, equally frequent, would be as varied: exp of their entropy.
        gini_of_strata: How unevenly chips fall upon strata, 0 to 1.
    """

    scenes: int
    objects: int
    elsewhere: int
    drawn: int
    planned: int
    scenes_used: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    splits: Mapping[str, int] = field(default_factory=dict)
    tags: int = 0
    tags_short: int = 0
    resampled: int = 0
    effective_strata: float = 0.0
    gini_of_strata: float = 0.0
