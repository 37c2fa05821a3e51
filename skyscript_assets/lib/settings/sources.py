"""`sources.yaml`: what every image source states, and the kinds there are."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, StringConstraints, model_validator

from skyscript_assets.lib.secrets import holds_secret
from skyscript_assets.lib.settings.base import (
    BBox,
    Colour,
    EnvironmentVariable,
    Model,
    Month,
    Positive,
    Sha256,
    Share,
    SourceKey,
    WebAddress,
)


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
        if holds_secret(self.url):
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


class SourcesFile(Model):
    """`sources.yaml`."""

    sources: dict[SourceKey, Source] = Field(min_length=1, description="Image sources by alias.")
