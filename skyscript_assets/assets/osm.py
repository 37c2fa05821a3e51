"""From extracts to objects: `osm_extract`, `osm_objects`."""

from __future__ import annotations

import json
from typing import Any

import dagster as dg

from skyscript_assets import metadata
from skyscript_assets.lib.errors import NotCoveredError, TooLittleDataError
from skyscript_assets.lib.osm.extract import stage_extract
from skyscript_assets.lib.osm.objects import INVALID_SCHEMA, OBJECT_SCHEMA, write_objects
from skyscript_assets.lib.osm.origin import Earlier, read_of_region
from skyscript_assets.lib.settings.load import Settings
from skyscript_assets.stages import Counts, Parts, Scheme, StageRun, stage


def _reads_extract(settings: Settings, parts: Parts) -> Any:
    return read_of_region(settings.regions[parts[0]], settings)


def _extract_preview(run: StageRun) -> dict[str, dg.MetadataValue]:
    facts = json.loads((run.out / "extract.json").read_text(encoding="utf-8"))
    facts.pop("polygon", None)  # it may be too long for the event log
    return {"header": dg.MetadataValue.json(facts)}


def _earlier(run: StageRun) -> Earlier | None:
    """The output that the run replaces."""
    key = run.previous
    manifest = run.store.manifest(key) if key is not None else None
    return None if key is None or manifest is None else Earlier(manifest.counts, lambda: run.store.folder(key))


@stage(
    Scheme.REGION,
    group="osm",
    kinds=["file"],
    reads=_reads_extract,
    preview=_extract_preview,
    pool="download",
    retries=3,
    code_version="2",
)
def osm_extract(run: StageRun) -> Counts:
    """A region's OpenStreetMap extract, whole and checked, with the facts of its header and the ground to use."""
    (region,) = run.parts
    return stage_extract(region, run.settings.regions[region], run.settings, run.out, run.progress, _earlier(run))


def _objects_preview(run: StageRun) -> dict[str, dg.MetadataValue]:
    columns = ["object_id", "version", "timestamp", "tags", "area_m2", "length_m"]
    return {
        "preview": metadata.parquet_rows(run.out / "objects.parquet", columns),
        "invalid": metadata.parquet_rows(run.out / "invalid.parquet"),
    }


@stage(
    Scheme.REGION,
    group="osm",
    kinds=["parquet"],
    upstream=("osm_extract",),
    tables={"objects.parquet": OBJECT_SCHEMA, "invalid.parquet": INVALID_SCHEMA},
    unique="object_id",
    preview=_objects_preview,
    code_version="2",
)
def osm_objects(run: StageRun) -> Counts:
    """Every tagged node, way and area of a region with its geometry, as GeoParquet; invalid geometry is listed."""
    (region,) = run.parts
    summary = write_objects(run.input("osm_extract"), run.out, run.progress)
    if summary.outside and not summary.objects:
        raise NotCoveredError(
            f"region {region}: none of the extract's {summary.outside} tagged objects lies in its ground "
            f"{run.region_bbox()}; correct bbox or polygon of regions.{region} in regions.yaml"
        )
    if not summary.objects:
        raise TooLittleDataError(
            f"region {region}: its extract holds no tagged object; give another extract, or take the region out of "
            "regions.yaml"
        )
    return vars(summary)
