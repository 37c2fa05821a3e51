"""From extracts to objects: `osm_extract`, `osm_objects`, `region_overlap`."""

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import dagster as dg

from skyscript_assets import checks, metadata
from skyscript_assets.asset import Counts, asset
from skyscript_assets.lib.errors import NotCoveredError, TooLittleDataError
from skyscript_assets.lib.imagery.scenes import covers
from skyscript_assets.lib.osm.extract import stage_extract
from skyscript_assets.lib.osm.objects import INVALID_SCHEMA, OBJECT_SCHEMA, write_objects
from skyscript_assets.lib.osm.origin import Earlier, read_of_region
from skyscript_assets.lib.osm.region_overlap import OVERLAP_FILE, OVERLAP_SCHEMA, write_region_overlap
from skyscript_assets.lib.settings.base import UNSEEN, Model, Shared
from skyscript_assets.lib.settings.load import Settings
from skyscript_assets.lib.settings.regions import Region
from skyscript_assets.partitions import Partition, Scheme, Upstream
from skyscript_assets.provenance import Run


class ExtractConfig(Model):
    """Where a region's extract comes from, and stamps of the user's files."""

    region: Annotated[Region, UNSEEN]
    shared: Annotated[Shared, UNSEEN]
    read: dict[str, Any]


def _extract_config(settings: Settings, partition: Partition) -> ExtractConfig:
    region = settings.regions[partition[0]]
    return ExtractConfig(region=region, shared=settings.shared, read=read_of_region(region, settings.shared))


def _extract_preview(run: Run[ExtractConfig]) -> dict[str, dg.MetadataValue]:
    facts = json.loads((run.out / "extract.json").read_text(encoding="utf-8"))
    facts.pop("polygon", None)  # it may be too long for the event log
    return {"header": dg.MetadataValue.json(facts)}


@asset(
    Scheme.REGION,
    group="osm",
    kinds=["file"],
    config=_extract_config,
    preview=_extract_preview,
    pool="download",
    code_version="3",
)
def osm_extract(run: Run[ExtractConfig]) -> Counts:
    """A region's OpenStreetMap extract, whole and checked, with the facts of its header and the ground to use."""
    (region,), config = run.partition, run.config
    record = None if run.previous is None else run.store.record(run.previous)
    earlier = None if record is None else Earlier(record.counts, run.replaced)
    return stage_extract(region, config.region, config.shared, run.out, run.progress, earlier)


def _objects_preview(run: Run[None]) -> dict[str, dg.MetadataValue]:
    columns = ["object_id", "version", "timestamp", "tags", "area_m2", "length_m"]
    return {
        "preview": metadata.parquet_rows(run.out / "objects.parquet", columns),
        "invalid": metadata.parquet_rows(run.out / "invalid.parquet"),
    }


@asset(
    Scheme.REGION,
    group="osm",
    upstream=("osm_extract",),
    tables={"objects.parquet": OBJECT_SCHEMA, "invalid.parquet": INVALID_SCHEMA},
    unique="object_id",
    more_checks=(checks.MOST_SHAPED,),
    preview=_objects_preview,
    code_version="3",
)
def osm_objects(run: Run[None]) -> Counts:
    """Every tagged node, way and area of a region with its geometry, as GeoParquet; invalid geometry is listed."""
    (region,) = run.partition
    origin = next(record.counts["origin"] for key in run.inputs if (record := run.store.record(key)))
    counts = write_objects(run.input("osm_extract"), run.out, run.progress, origin)
    none = not any(counts[kind] for kind in ("nodes", "lines", "areas"))
    if none and counts["outside"]:
        raise NotCoveredError(
            f"region {region}: none of the extract's {counts['outside']} tagged objects lies in its ground "
            f"{run.region_bbox()}; correct bbox or polygon of regions.{region} in regions.yaml"
        )
    if none:
        raise TooLittleDataError(
            f"region {region}: its extract holds no tagged object; give another extract, or take the region out of "
            "regions.yaml"
        )
    return counts


def _regions_on_its_ground(settings: Settings) -> Mapping[str, Sequence[str]]:
    """For each region itself and those after it by name that may share ground with it."""
    boxes = {region: described.bbox for region, described in settings.regions.items()}
    return {
        region: [other for other in boxes if other >= region and covers(boxes[region], boxes[other])]
        for region in boxes
    }


@asset(
    Scheme.REGION,
    group="osm",
    upstream=(Upstream("osm_extract", _regions_on_its_ground), Upstream("osm_objects", _regions_on_its_ground)),
    tables={OVERLAP_FILE: OVERLAP_SCHEMA},
    columns_from={"osm_objects": ["object_id"]},
    unique="object_id",
    empty="passes",
    preview=lambda run: {"preview": metadata.parquet_rows(run.out / OVERLAP_FILE)},
)
def region_overlap(run: Run[None]) -> Counts:
    """Which objects of a region belong to an earlier one: an object in two regions belongs to the first by name."""
    (region,) = run.partition
    objects = {name: folder / "objects.parquet" for (name,), folder in run.folders("osm_objects").items()}
    earlier = {name: (path, run.region_bbox(name)) for name, path in objects.items() if name != region}
    return write_region_overlap(region, run.region_bbox(), objects[region], earlier, run.out)
