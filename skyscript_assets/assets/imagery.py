"""The scenes that a source has over a region, and how they lie against OSM: `scene_index`, `scene_offsets`."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import dagster as dg

from skyscript_assets import metadata
from skyscript_assets.lib.errors import UnsupportedSourceError
from skyscript_assets.lib.imagery.access import open_scene
from skyscript_assets.lib.imagery.files import files_of, index_files
from skyscript_assets.lib.imagery.scenes import SCENE_SCHEMA
from skyscript_assets.lib.imagery.synthetic import paint_scene
from skyscript_assets.lib.offset.estimate import write_offsets
from skyscript_assets.lib.offset.figure import FIGURE_FILE
from skyscript_assets.lib.offset.shift import OFFSET_SCHEMA, OFFSETS_FILE
from skyscript_assets.lib.settings import FilesSource, Settings, SyntheticSource
from skyscript_assets.lib.storage import OutputKey, file_stamp
from skyscript_assets.stages import Counts, Parts, Scheme, StageRun, stage


def _reads_source(settings: Settings, parts: Parts) -> Any:
    source = settings.sources[parts[1]]
    read: dict[str, Any] = {"source": source.model_dump(mode="json", exclude={"title"})}
    if isinstance(source, FilesSource):
        read["files"] = [file_stamp(path) for path in files_of(source, settings)]
    if isinstance(source, SyntheticSource):
        read["zoom"] = settings.plant.split.zoom
    return read


def _needs_objects_to_paint(settings: Settings, parts: Parts, key: OutputKey) -> bool:
    return key.asset != "osm_objects" or isinstance(settings.sources[parts[1]], SyntheticSource)


def _scene_preview(run: StageRun) -> dict[str, dg.MetadataValue]:
    columns = ["scene_id", "datetime", "gsd_m", "crs", "cloud_share", "licence", "attribution", "synthetic"]
    shown = {"scenes": metadata.parquet_rows(run.out / "scenes.parquet", columns)}
    if (run.out / "painting.json").exists():
        painted = json.loads((run.out / "painting.json").read_text(encoding="utf-8"))
        overview = metadata.shrunk_image(run.out / "overview.jpg", "Synthetic orthophoto")
        shown |= {"synthetic orthophoto": overview, "painting": dg.MetadataValue.json(painted)}
    return shown


@stage(
    Scheme.REGION_SOURCE,
    group="imagery",
    kinds=["geotiff", "parquet"],
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
    source, bbox = run.settings.sources[key], run.region_bbox()
    match source:
        case FilesSource():
            return vars(index_files(region, key, source, run.settings, bbox, run.out))
        case SyntheticSource():
            objects, zoom = run.input("osm_objects") / "objects.parquet", run.settings.plant.split.zoom
            return vars(paint_scene(region, key, source, bbox, objects, run.out, zoom, run.progress))
        case _:
            raise UnsupportedSourceError(
                f"source {key}: kind {source.kind!r} is described in the settings but cannot be read by this version; "
                "download its files and describe them with `kind: files`"
            )


def _reads_offsets(settings: Settings, parts: Parts) -> Any:
    source = settings.sources[parts[1]].model_dump(mode="json", exclude={"title"})
    apply = settings.plant.chips.apply_offsets
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
    apply = plant.chips.apply_offsets
    return vars(write_offsets(scenes, objects, plant.offsets, run.out, run.progress, apply=apply, open_scene=reader))
