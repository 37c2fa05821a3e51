"""The scenes that a source has over a region: `scene_index`."""

from __future__ import annotations

import json
from typing import Any

import dagster as dg

from skyscript_assets import metadata
from skyscript_assets.lib.errors import UnsupportedSourceError
from skyscript_assets.lib.imagery.files import files_of, index_files
from skyscript_assets.lib.imagery.scenes import SCENE_SCHEMA
from skyscript_assets.lib.imagery.synthetic import paint_scene
from skyscript_assets.lib.settings import FilesSource, Settings, SyntheticSource
from skyscript_assets.lib.storage import OutputKey, file_stamp
from skyscript_assets.stages import Counts, Parts, Scheme, StageRun, stage


def _reads_source(settings: Settings, parts: Parts) -> Any:
    source = settings.sources[parts[1]]
    read: dict[str, Any] = {"source": source.model_dump(mode="json", exclude={"title", "choice"})}
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
