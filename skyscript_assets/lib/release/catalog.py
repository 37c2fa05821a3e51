"""What programs read of a release: Croissant 1.1 with GeoCroissant 1.0, and a STAC collection with its items.

Sources: docs.mlcommons.org/croissant (Croissant 1.1, RAI 1.0, geo 1.0); stacspec.org 1.1; stac-geoparquet 1.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from skyscript_assets.lib.files import file_sha256, replacing
from skyscript_assets.lib.release.card import Told
from skyscript_assets.lib.release.data import DATA_SCHEMA, SPLIT_NAMES, batches, data_files
from skyscript_assets.lib.release.text import plain, write_linked
from skyscript_assets.lib.settings.regions import OSM_ATTRIBUTION, OSM_LICENCE
from skyscript_assets.lib.tables import BBOX_TYPE, fields, geo_metadata

ODBL_URL = "https://opendatacommons.org/licenses/odbl/1-0/"
PARQUET = "application/x-parquet"
CRS = "OGC:CRS84"
"""Longitude and latitude on WGS 84, in this order."""

_CROISSANT = "http://mlcommons.org/croissant"
_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    **{
        name: f"cr:{name}"
        for name in (
            *("arrayShape", "citeAs", "column", "containedIn", "equivalentProperty", "extract", "field"),
            *("fileObject", "fileProperty", "fileSet", "format", "includes", "isArray", "isLiveDataset", "jsonPath"),
            *("key", "md5", "parentField", "path", "recordSet", "references", "regex", "repeated", "replace"),
            *("samplingRate", "separator", "source", "subField", "transform"),
        )
    },
    "conformsTo": "dct:conformsTo",
    "cr": f"{_CROISSANT}/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "geocr": f"{_CROISSANT}/geo/",
    "name": {"@container": "@language"},
    "rai": f"{_CROISSANT}/RAI/",
    "sc": "https://schema.org/",
}
_TYPES = {"int32": "sc:Integer", "double": "sc:Float", "bool": "sc:Boolean", "timestamp[ms, tz=UTC]": "sc:DateTime"}

_LINK = pa.struct(fields(pa.string(), "href", "rel", "type"))
_ASSET = pa.struct([*fields(pa.string(), "href", "type", "title"), ("roles", pa.list_(pa.string()))])
ITEM_SCHEMA = pa.schema(
    [
        *fields(pa.string(), "type", "stac_version"),
        ("stac_extensions", pa.list_(pa.string())),
        ("id", pa.string()),
        ("geometry", pa.binary()),
        ("bbox", BBOX_TYPE),
        ("links", pa.list_(_LINK)),
        ("assets", pa.struct([("pair", _ASSET)])),
        ("collection", pa.string()),
        DATA_SCHEMA.field("datetime"),
        ("gsd", pa.float64()),
        *fields(pa.string(), "title", "license", "attribution", "region", "source", "split", "object_id"),
    ]
)
"""Columns of `items.parquet`; geometry is WKB. The asset is the Parquet file that has the pair."""


def write_croissant(told: Told, release: Path) -> None:
    """Write `croissant.json`: files with digests, a record set a source, ground, resolution, sampling, bias, RAI."""
    settings, figures, whole = told.settings, told.figures, told.figures.whole
    west, south, east, north = figures.boxes[0]
    licences = sorted({row["licence"] for row in figures.owners} - {OSM_LICENCE})
    data = [_file(path.relative_to(release).as_posix(), release) for path in data_files(release)]
    others = [_file(name, release) for name in ("items.parquet", "objects.parquet") if (release / name).is_file()]
    sets = [
        {
            "@type": "cr:FileSet",
            "@id": f"files-{row['source']}",
            "name": f"files-{row['source']}",
            "encodingFormat": PARQUET,
            "includes": f"data/{row['source']}/*.parquet",
        }
        for row in figures.sources
    ]
    document = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": [f"{_CROISSANT}/1.1", f"{_CROISSANT}/geo/1.0", f"{_CROISSANT}/RAI/1.0"],
        "name": settings.name,
        "description": told.about,
        "version": settings.version,
        "license": [ODBL_URL, *(plain(each, 500) for each in licences)],
        "citeAs": f"{', '.join(plain(each) for each in settings.authors)}: {settings.name} {settings.version}.",
        "creator": [{"@type": "Organization", "name": plain(each)} for each in settings.authors],
        "creditText": "; ".join(
            dict.fromkeys([OSM_ATTRIBUTION, *(plain(r["attribution"], 500) for r in figures.owners)])
        ),
        **({"datePublished": settings.published.isoformat()} if settings.published else {}),
        "keywords": ["remote sensing", "OpenStreetMap", *(plain(row["tag"]) for row in figures.tags[:10])],
        "spatialCoverage": {"@type": "Place", "geo": {"@type": "GeoShape", "box": f"{south} {west} {north} {east}"}},
        "temporalCoverage": f"{_utc(whole['first'])}/{_utc(whole['last'])}",
        "geocr:coordinateReferenceSystem": CRS,
        "geocr:spatialResolution": f"{whole['finest']:.3g} m to {whole['coarsest']:.3g} m, see the field gsd_m",
        "geocr:samplingStrategy": told.sampling,
        "geocr:spatialBias": told.bias,
        "rai:dataCollection": f"{told.about} {told.sampling}",
        "rai:dataCollectionType": ["Software Collection", "Secondary Data Analysis"],
        "rai:dataAnnotationProtocol": "Captions and tags follow from OpenStreetMap by rules; no person wrote them.",
        "rai:dataPreprocessingProtocol": ["Chips without data, clouded, blank or blurred are left out."],
        "rai:dataBiases": [told.bias],
        "rai:dataLimitations": told.errors,
        "rai:dataUseCases": ["Training", "Validation", "Testing"],
        "rai:personalSensitiveInformation": [told.persons],
        "rai:dataReleaseMaintenancePlan": f"Samples are removed on request: {plain(settings.contact, 200)}",
        "distribution": [*data, *others, *sets],
        "recordSet": [_record_set(row) for row in figures.sources],
    }
    write_linked(release / "croissant.json", document)


def _file(name: str, release: Path) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": name,
        "name": name,
        "contentUrl": name,
        "contentSize": f"{(release / name).stat().st_size} B",
        "encodingFormat": PARQUET,
        "sha256": file_sha256(release / name),
    }


def _record_set(row: Mapping[str, Any]) -> dict[str, Any]:
    source = row["source"]
    resolution = {"minValue": row["finest"], "maxValue": row["coarsest"], "unitText": "m"}
    return {
        "@type": "cr:RecordSet",
        "@id": source,
        "name": source,
        "description": f"{row['pairs']:,} pairs of the source {source}.",
        "key": {"@id": f"{source}/chip_id"},
        "geocr:spatialResolution": {"@type": "QuantitativeValue", **resolution},
        "field": [_field(source, each) for each in DATA_SCHEMA],
    }


def _field(source: str, field: pa.Field) -> dict[str, Any]:
    image, array = field.name == "image", pa.types.is_list(field.type)
    kind = field.type.value_type if array else field.type
    told: dict[str, Any] = {
        "@type": "cr:Field",
        "@id": f"{source}/{field.name}",
        "name": field.name,
        "dataType": "sc:ImageObject" if image else _TYPES.get(str(kind), "sc:Text"),
        "source": {"fileSet": {"@id": f"files-{source}"}, "extract": {"column": field.name}},
    }
    if image:
        bands = {"geocr:totalBands": 3, "geocr:bandNameList": ["Red", "Green", "Blue"]}
        told["source"]["transform"] = {"jsonPath": "bytes"}
        told["geocr:bandConfiguration"] = {"@type": "geocr:BandConfiguration", **bands}
    if array:
        told |= {"isArray": True, "arrayShape": "4" if field.name in ("bbox", "focus_box") else "-1"}
    if field.name == "gsd_m":
        told["equivalentProperty"] = "geocr:spatialResolution"
    return told


def write_items(told: Told, release: Path) -> None:
    """Write `items.parquet` (stac-geoparquet), some rows in memory at a time."""
    links = [{"href": "./collection.json", "rel": "collection", "type": "application/json"}]
    columns = ["chip_id", "text", "bbox", "datetime", "gsd_m", "licence", "attribution"]
    same = ["region", "source", "split", "object_id"]
    geo = {b"geo": geo_metadata(ITEM_SCHEMA, "geometry"), b"stac-geoparquet": b'{"version": "1.0.0"}'}
    with (
        replacing(release / "items.parquet") as temporary,
        pq.ParquetWriter(temporary, ITEM_SCHEMA.with_metadata(geo), compression="zstd") as writer,
    ):
        for path, batch in batches(release, [*columns, *same]):
            asset = {"href": f"./{path.relative_to(release).as_posix()}", "type": PARQUET, "roles": ["data"]}
            rows = [
                {
                    "type": "Feature",
                    "stac_version": "1.1.0",
                    "stac_extensions": [],
                    "id": row["chip_id"],
                    **_ground(*row["bbox"]),
                    "links": links,
                    "assets": {"pair": asset | {"title": f"The row of chip_id {row['chip_id']}"}},
                    "collection": told.settings.name,
                    "datetime": row["datetime"],
                    "gsd": row["gsd_m"],
                    "title": row["text"],
                    "license": "other",
                    **{name: row[name] for name in ("attribution", *same)},
                }
                for row in batch.to_pylist()
            ]
            writer.write_table(pa.Table.from_pylist(rows, schema=writer.schema))


def _ground(west: float, south: float, east: float, north: float) -> dict[str, Any]:
    """Geometry and box of an item; across the antimeridian two polygons, and a west beyond the east."""
    shape: Any = shapely.box(west, south, min(east, 180.0), north)
    if east > 180.0:
        shape = shapely.MultiPolygon([shape, shapely.box(-180.0, south, east - 360.0, north)])
        east -= 360.0
    return {"geometry": shapely.to_wkb(shape), "bbox": {"xmin": west, "ymin": south, "xmax": east, "ymax": north}}


def write_collection(told: Told, release: Path) -> None:
    """Write `collection.json`, which leads to the items."""
    settings, figures, whole = told.settings, told.figures, told.figures.whole
    alone = {row["licence"] for row in figures.owners} == {OSM_LICENCE}
    owners = dict.fromkeys((row["attribution"], row["licence"]) for row in figures.owners)
    items = {"href": "./items.parquet", "type": PARQUET, "roles": ["collection-mirror"], "title": "Items"}
    document = {
        "type": "Collection",
        "stac_version": "1.1.0",
        "stac_extensions": [],
        "id": settings.name,
        "title": f"{settings.name} {settings.version}",
        "description": told.about,
        "license": OSM_LICENCE if alone else "other",
        "providers": [
            {"name": OSM_ATTRIBUTION, "roles": ["producer"], "url": "https://www.openstreetmap.org/copyright"},
            *({"name": plain(name, 500), "description": plain(of, 500), "roles": ["licensor"]} for name, of in owners),
        ],
        "extent": {
            "spatial": {"bbox": figures.boxes},
            "temporal": {"interval": [[_utc(whole["first"]), _utc(whole["last"])]]},
        },
        "summaries": {
            "gsd": {"minimum": whole["finest"], "maximum": whole["coarsest"]},
            "split": [split for split, name in SPLIT_NAMES.items() if whole[name]],
        },
        "assets": {"items": items},
        "links": [{"rel": "license", "href": "./LICENSE.md", "type": "text/markdown"}],
    }
    write_linked(release / "collection.json", document)


def _utc(moment: Any) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"
