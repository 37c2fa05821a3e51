"""The scenes that a source has over a region: `scene_index`."""

from __future__ import annotations

import json
from typing import Any

import dagster as dg
import pyarrow as pa

from skyscript_assets import metadata
from skyscript_assets.lib.imagery.access import depends_on, index_scenes, needs_objects
from skyscript_assets.lib.imagery.scenes import SCENE_SCHEMA
from skyscript_assets.lib.imagery.stac import UNUSABLE_FILE
from skyscript_assets.lib.settings import Settings
from skyscript_assets.lib.storage import OutputKey
from skyscript_assets.stages import Counts, Parts, Scheme, StageRun, stage


def _reads_source(settings: Settings, parts: Parts) -> Any:
    return depends_on(settings.sources[parts[1]], settings)


def _needs_objects_to_paint(settings: Settings, parts: Parts, key: OutputKey) -> bool:
    return key.asset != "osm_objects" or needs_objects(settings.sources[parts[1]])


def _scene_preview(run: StageRun) -> dict[str, dg.MetadataValue]:
    columns = ["scene_id", "kind", "datetime", "gsd_m", "crs", "cloud_share", "licence", "attribution", "synthetic"]
    shown = {"scenes": metadata.parquet_rows(run.out / "scenes.parquet", columns)}
    if (run.out / "painting.json").exists():
        painted = json.loads((run.out / "painting.json").read_text(encoding="utf-8"))
        overview = metadata.shrunk_image(run.out / "overview.jpg", "Synthetic orthophoto")
        shown |= {"synthetic orthophoto": overview, "painting": dg.MetadataValue.json(painted)}
    unusable = run.out / UNUSABLE_FILE
    if unusable.exists() and (items := json.loads(unusable.read_text(encoding="utf-8"))):
        shown["unusable items"] = metadata.rows(pa.Table.from_pylist(items))
    return shown


@stage(
    Scheme.REGION_SOURCE,
    group="imagery",
    kinds=["geotiff", "parquet"],
    code_version="2",
    upstream=("osm_extract", "osm_objects"),
    needs=_needs_objects_to_paint,
    tables={"scenes.parquet": SCENE_SCHEMA},
    reads=_reads_source,
    may_be_empty=True,
    preview=_scene_preview,
    pool="imagery",
    retries=3,
)
def scene_index(run: StageRun) -> Counts:
    """The scenes of a source that cover a region. A synthetic source paints its scene here, from OSM objects."""
    region, key = run.parts
    objects = run.input("osm_objects") / "objects.parquet" if needs_objects(run.settings.sources[key]) else None
    cache = run.store.cache("tiles")
    return index_scenes(
        region, key, run.settings, run.region_bbox(), run.out, run.progress, objects=objects, cache=cache
    )
