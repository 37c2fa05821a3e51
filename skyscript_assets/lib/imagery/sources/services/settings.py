"""What sources of the kinds `xyz`, `wmts` and `wms` state."""

import datetime as dt
import re
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from skyscript_assets.lib.geometry import crs_label
from skyscript_assets.lib.secrets import holds_secret
from skyscript_assets.lib.settings.base import UNSEEN, Colour, EnvironmentVariable, HostNames, Sha256, WebAddress
from skyscript_assets.lib.settings.sources import DateIs, SourceBase


class ServiceSource(SourceBase):
    """What every tile and map service states: its address, the key that it may need, how fast it may be asked."""

    url: WebAddress = Field(
        description="Address of the service or template of its tiles; a key belongs in the environment, not here."
    )
    datetime: dt.datetime | dt.date | None = Field(
        None, description="Date that stands for the images; needed where the service has no dimension TIME."
    )
    date_is: DateIs = Field("guess", description="What `datetime` is worth; the time of a dimension TIME is stated.")
    api_key_variable: Annotated[EnvironmentVariable | None, UNSEEN] = Field(
        None, description="Environment variable with the service's key; `{api_key}` in `url` says where it goes."
    )
    api_key_parameter: Annotated[str, UNSEEN] = Field(
        "api-key", description="Or: the query parameter that carries the key."
    )
    api_key_header: Annotated[str | None, UNSEEN] = Field(None, description="Or: the HTTP header that carries the key.")
    requests_per_second: Annotated[float, UNSEEN] = Field(
        2.0, gt=0, le=100, description="Most requests a second to this host, all runs on this machine together."
    )
    connections: Annotated[int, UNSEEN] = Field(
        2, ge=1, le=8, description="Most requests under way at a time for one reader."
    )
    contact: Annotated[str | None, UNSEEN] = Field(
        None, pattern=r"^[\x20-\x7e]*$", max_length=100, description="Address for the service's operator to write to."
    )
    cache_mb: Annotated[int, UNSEEN] = Field(
        2000, ge=0, description="Megabytes of tiles kept here, so that none is asked for twice."
    )
    absent_statuses: tuple[int, ...] = Field(
        (204, 404, 410), description="HTTP statuses by which the service says that it has no image there."
    )
    nodata: Colour | None = Field(None, description="Colour (red, green, blue) of pixels without data.")
    blank_sha256: tuple[Sha256, ...] = Field(
        (), description="SHA-256 of tiles that show no ground, such as a picture that says `no imagery`."
    )
    allow_private_hosts: Annotated[HostNames, UNSEEN] = ()

    @model_validator(mode="after")
    def _no_secrets(self) -> Self:
        if holds_secret(self.url):
            raise ValueError("url holds a key or token: put it in an environment variable, named in api_key_variable")
        if "{api_key}" in self.url and self.api_key_variable is None:
            raise ValueError("url has a place {api_key}: name the environment variable with it in api_key_variable")
        return self


def places_of(template: str) -> set[str]:
    """The places in braces of a template."""
    return set(re.findall(r"\{[^}]*\}?", template))


class XyzSource(ServiceSource):
    """Tiles of the usual web map (Web Mercator), by a template."""

    kind: Literal["xyz"] = "xyz"
    tile_px: Literal[256, 512, 1024] = Field(256, description="Side of a tile, pixels.")
    max_zoom: int = Field(19, ge=0, le=24, description="Finest zoom that the service has images of.")

    @model_validator(mode="after")
    def _is_template(self) -> Self:
        places = places_of(self.template)
        if not (places >= {"{z}", "{x}"} and places & {"{y}", "{-y}"}) and "{q}" not in places:
            raise ValueError("url needs places {z}, {x} and {y} ({-y} where rows count from the south), or {q}")
        if unknown := places - {"{z}", "{x}", "{y}", "{-y}", "{q}", "{api_key}"}:
            raise ValueError(f"url has a place {min(unknown)}, which is not known: write out what it stands for")
        return self

    @property
    def template(self) -> str:
        """The address with its own places alone.

        Those by which other programs spread requests over servers (`{s}`, `{switch:a,b}`, `{a-c}`) name one, since
        requests are held back anyway; that of finer tiles (`{r}`) is empty; `${z}` is `{z}`.
        """
        url = re.sub(r"\{switch:([^,}]*)[^}]*\}|\{(\w)-\w\}", r"\1\2", self.url.replace("${", "{"))
        return url.replace("{s}", "a").replace("{r}", "")


class OgcSource(ServiceSource):
    """What WMTS, WMS and WCS have in common: a layer that they describe."""

    layer: str = Field(description="Name of the layer or coverage.")
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
    crs: Annotated[str, BeforeValidator(crs_label), Field(pattern=r"^(EPSG|ESRI):[0-9]+$")] | None = Field(
        None, description="CRS; default: the region's UTM zone, else Web Mercator."
    )
    tile_px: int = Field(512, ge=64, le=2048, description="Side of the maps asked for, pixels.")
    transparent: bool = Field(default=True, description="Ask for transparency where there is no image (PNG and WebP).")


class WcsSource(OgcSource):
    """A Web Coverage Service 2.0 (OGC 09-110r4), asked for GeoTIFFs of a coverage's own pixels."""

    kind: Literal["wcs"] = "wcs"
    tile_px: int = Field(512, ge=64, le=2048, description="Side of the subsets asked for, pixels.")


Service = XyzSource | WmtsSource | WmsSource | WcsSource
"""Sources of tiles or maps."""
