"""The scenes that a source has over a region, and how they lie against OSM: `scene_index`, `scene_offsets`."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import dagster as dg
import pyarrow as pa

from skyscript_assets import metadata
from skyscript_assets.lib.imagery.scenes import SCENE_SCHEMA
from skyscript_assets.lib.imagery.sources.access import depends_on, index_scenes, needs_objects, open_scene
from skyscript_assets.lib.imagery.sources.stac.index import UNUSABLE_FILE
from skyscript_assets.lib.registration.estimate import write_offsets
from skyscript_assets.lib.registration.figure import FIGURE_FILE
from skyscript_assets.lib.registration.shift import OFFSET_SCHEMA, OFFSETS_FILE
from skyscript_assets.lib.settings.load import Settings
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


def _reads_offsets(settings: Settings, parts: Parts) -> Any:
    source = settings.sources[parts[1]].model_dump(mode="json", exclude={"title"})
    apply = settings.plant.plan.apply_offsets
    return {"offsets": settings.plant.offsets.model_dump(), "apply": apply, "source": source}


_SIGN = (
    "Add dx_m (metres east) and dy_m (metres north) to OSM coordinates to land on the image. dx_px and dy_px are the "
    "same in columns and rows of the scene. Where the status is not `estimated`, nothing is said and nothing is moved."
)


def _offsets_preview(run: StageRun) -> dict[str, dg.MetadataValue]:
    columns = [name for name in OFFSET_SCHEMA.names if name != "windows"]
    shown = {"offsets": metadata.parquet_rows(run.out / OFFSETS_FILE, columns), "sign": dg.MetadataValue.md(_SIGN)}
    figure = run.out / FIGURE_FILE
    return shown | (
        {"before and after": metadata.image(figure, "Outlines as mapped and moved")} if figure.exists() else {}
    )


@stage(
    Scheme.REGION_SOURCE,
    group="imagery",
    kinds=["parquet"],
    upstream=("osm_objects", "scene_index"),
    tables={OFFSETS_FILE: OFFSET_SCHEMA},
    reads=_reads_offsets,
    may_be_empty=True,
    preview=_offsets_preview,
    pool="imagery",
    retries=2,
)
def scene_offsets(run: StageRun) -> Counts:
    """The shift between OSM and each scene, from outlines of buildings and roads against the image, with confidence."""
    objects, scenes, plant = run.input("osm_objects") / "objects.parquet", run.input("scene_index"), run.settings.plant
    reader = partial(open_scene, source=run.settings.sources[run.parts[1]])
    apply = plant.plan.apply_offsets
    return vars(write_offsets(scenes, objects, plant.offsets, run.out, run.progress, apply=apply, open_scene=reader))
