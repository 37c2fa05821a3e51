"""What sources state, their scenes, how these lie against OSM: `image_sources`, `scene_index`, `scene_offsets`."""

import json
from functools import partial
from typing import Annotated, Any, Self

import dagster as dg
import pyarrow as pa

from skyscript_assets import checks, metadata
from skyscript_assets.asset import Counts, asset
from skyscript_assets.lib.chips.map import plot_scenes
from skyscript_assets.lib.imagery.scenes import SCENE_SCHEMA, UNUSABLE_FILE
from skyscript_assets.lib.imagery.sources.kind import Search, check_source, check_terms, open_scene, source_kind
from skyscript_assets.lib.registration.estimate import write_offsets
from skyscript_assets.lib.registration.figure import FIGURE_FILE
from skyscript_assets.lib.registration.shift import OFFSET_SCHEMA, OFFSETS_FILE
from skyscript_assets.lib.settings.base import UNSEEN, BBox, Model, Shared
from skyscript_assets.lib.settings.load import Settings
from skyscript_assets.lib.settings.plant import OffsetSettings
from skyscript_assets.lib.settings.sources import SourceBase
from skyscript_assets.lib.tables import rows_to_table, write_table
from skyscript_assets.partitions import Scheme
from skyscript_assets.provenance import Run

SOURCES_SCHEMA = pa.schema([("source", pa.string()), ("gsd_m", pa.float64())])


class SourceConfig(Model):
    """A source, and what its scenes depend on beside region and code, as its kind tells."""

    source: Annotated[SourceBase, UNSEEN]
    shared: Annotated[Shared, UNSEEN]
    depends_on: dict[str, Any]

    @classmethod
    def of(cls, settings: Settings, key: str) -> Self:
        """A source of the settings."""
        source = settings.sources[key]
        depends_on = source_kind(source.kind).depends_on(source, settings.shared)
        return cls(source=source, shared=settings.shared, depends_on=depends_on)


class SourcesConfig(Model):
    """Every source, and the boxes of the regions that their images are to reach."""

    sources: dict[str, SourceConfig]
    boxes: tuple[BBox | None, ...]


@asset(
    Scheme.SINGLE,
    group="imagery",
    tables={"sources.parquet": SOURCES_SCHEMA},
    unique="source",
    config=lambda settings, _: SourcesConfig(
        sources={key: SourceConfig.of(settings, key) for key in settings.sources}, boxes=settings.shared.boxes
    ),
    preview=lambda run: {"sources": metadata.parquet_rows(run.out / "sources.parquet", limit=50)},
)
def image_sources(run: Run[SourcesConfig]) -> Counts:
    """What sources state, checked against the images that are on this machine, before counts are frozen with it."""
    facts = {key: check_source(key, read.source, read.shared) for key, read in run.config.sources.items()}
    rows = [{"source": key, "gsd_m": read.source.gsd_m} for key, read in run.config.sources.items()]
    write_table(run.out / "sources.parquet", rows_to_table(rows, SOURCES_SCHEMA))
    return facts


def _scene_preview(run: Run[SourceConfig]) -> dict[str, dg.MetadataValue]:
    columns = ["scene_id", "kind", "datetime", "date_is", "gsd_m", "effective_gsd_m", "crs", "cloud_share"]
    columns += ["licence", "attribution", "synthetic"]
    shown = {}
    if (run.out / "painting.json").exists():
        overview = metadata.image(run.out / "overview.jpg", "Synthetic orthophoto")
        shown = {"synthetic orthophoto": overview, "painting": metadata.json_file(run.out / "painting.json")}
    shown |= {
        "map": metadata.drawn(lambda path: plot_scenes(run.out, run.region_bbox(), path), "Footprints of the scenes"),
        "scenes": metadata.parquet_rows(run.out / "scenes.parquet", columns),
    }
    unusable = run.out / UNUSABLE_FILE
    if unusable.exists() and (items := json.loads(unusable.read_text(encoding="utf-8"))):
        shown["unusable items"] = metadata.rows(pa.Table.from_pylist(items))
    return shown


@asset(
    Scheme.REGION_SOURCE,
    group="imagery",
    kinds=["geotiff", "parquet"],
    code_version="3",
    upstream=("osm_extract", "osm_objects"),
    after=("region_overlap", "sampling_snapshot", "caption_rules", "pretrained_weights"),
    needs=lambda settings, partition, key: (
        key.asset != "osm_objects" or source_kind(settings.sources[partition[1]].kind).needs_objects
    ),
    tables={"scenes.parquet": SCENE_SCHEMA},
    config=lambda settings, partition: SourceConfig.of(settings, partition[1]),
    empty="warns",
    more_checks=(checks.IMAGES_USABLE,),
    preview=_scene_preview,
    pool="imagery",
)
def scene_index(run: Run[SourceConfig]) -> Counts:
    """The scenes of a source that cover a region. A synthetic source paints its scene here, from OSM objects."""
    region, key = run.partition
    source = run.config.source
    kind = source_kind(source.kind)
    check_terms(key, source)
    search = Search(
        region=region,
        key=key,
        source=source,
        shared=run.config.shared,
        bbox=run.region_bbox(),
        out=run.out,
        progress=run.progress,
        objects=run.input("osm_objects") / "objects.parquet" if kind.needs_objects else None,
        cache=run.store.cache("tiles"),
    )
    return kind.find(search)


class OffsetsConfig(Model):
    """What offsets read: how they are estimated; the images themselves are told by the scenes."""

    offsets: OffsetSettings
    source: Annotated[SourceBase, UNSEEN]


_SIGN = (
    "Add dx_m (metres east) and dy_m (metres north) to OSM coordinates to land on the image. dx_px and dy_px are the "
    "same in columns and rows of the scene. Where the status is not 'estimated', nothing is said and nothing is moved."
)


def _offsets_preview(run: Run[OffsetsConfig]) -> dict[str, dg.MetadataValue]:
    columns = [name for name in OFFSET_SCHEMA.names if name != "windows"]
    figure = run.out / FIGURE_FILE
    shown = {"before and after": metadata.image(figure, "Outlines as mapped and moved")} if figure.exists() else {}
    rows = metadata.parquet_rows(run.out / OFFSETS_FILE, columns)
    return shown | {"offsets": rows, "sign": dg.MetadataValue.text(_SIGN)}


@asset(
    Scheme.REGION_SOURCE,
    group="imagery",
    code_version="3",
    upstream=("osm_objects", "scene_index"),
    tables={OFFSETS_FILE: OFFSET_SCHEMA},
    config=lambda settings, partition: OffsetsConfig(
        offsets=settings.plant.offsets, source=settings.sources[partition[1]]
    ),
    empty="warns",
    preview=_offsets_preview,
    pool="imagery",
)
def scene_offsets(run: Run[OffsetsConfig]) -> Counts:
    """The shift between OSM and each scene, from outlines of buildings and roads against the image, with confidence."""
    objects, scenes = run.input("osm_objects") / "objects.parquet", run.input("scene_index")
    reader = partial(open_scene, source=run.config.source, cache=run.store.cache("tiles"))
    return write_offsets(scenes, objects, run.config.offsets, run.out, run.progress, open_scene=reader)
