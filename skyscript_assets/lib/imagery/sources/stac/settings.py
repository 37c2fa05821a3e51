"""What a source of kind `stac` states."""

import datetime as dt
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, StringConstraints, model_validator

from skyscript_assets.lib.hosts import private_hosts
from skyscript_assets.lib.settings.base import UNSEEN, EnvironmentVariable, HostNames, Model, Month, Share, WebAddress
from skyscript_assets.lib.settings.sources import Alpha, Scaling, SourceBase


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

    env: EnvironmentVariable = Field(
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
    alpha: Alpha = "mask"
    max_cloud_share: Share | None = Field(
        None, description="Most cloud (eo:cloud_cover, as a share); items that do not state it pass."
    )
    since: dt.date | None = Field(None, description="First day, UTC.")
    until: dt.date | None = Field(None, description="Last day, UTC.")
    months: tuple[Month, ...] = Field((), description="Months of the year; default: all.")
    properties: dict[str, str | int | float | bool] = Field(
        default_factory=dict, description="Values that items must have, such as platform: landsat-8."
    )
    sort: Literal["cloud", "newest", "oldest"] = Field("cloud", description="Which items are preferred.")
    depth: int = Field(3, ge=1, description="Scenes wanted over any one place; further items are left out.")
    limit: int = Field(500, ge=1, description="Most scenes of a region; what is left out is counted.")
    max_items: int = Field(
        10_000, ge=1, description="Most items of a search, of which a large region takes many; more end with an error."
    )
    signing: Annotated[SasSigning | None, UNSEEN] = Field(None, description="Signs addresses for hosts that want it.")
    token: Annotated[TokenHeader | None, UNSEEN] = Field(None, description="Sends a token to hosts that want it.")
    gdal_prefixes: tuple[Annotated[str, StringConstraints(pattern=r"^/vsi(s3|gs|az|adls|oss|swift)/$")], ...] = Field(
        (), description="Object stores that addresses may name and GDAL reads by itself, such as /vsis3/ for s3://."
    )
    requester_pays: Annotated[bool, UNSEEN] = Field(
        default=False, description="Whether you pay for what is read of requester-pays buckets on S3."
    )
    allow_local_hrefs: bool = Field(
        default=False, description="Whether items may point to files on this machine: only for a catalog of your own."
    )
    allow_private_hosts: Annotated[HostNames, UNSEEN] = ()

    @model_validator(mode="after")
    def _one_or_three(self) -> Self:
        if len(self.assets) == 2:
            raise ValueError("name one asset, or three for red, green and blue")
        if self.since is not None and self.until is not None and self.since > self.until:
            raise ValueError("since must not be after until")
        return self

    @property
    def private_hosts(self) -> frozenset[str]:
        """Hosts that may be private."""
        return private_hosts(self.allow_private_hosts, self.catalog, self.signing.endpoint if self.signing else None)

    @property
    def is_local(self) -> bool:
        """Whether the catalog lies on this machine."""
        return urlsplit(self.catalog).scheme not in ("http", "https")

    @property
    def band_numbers(self) -> tuple[int, int, int]:
        """Band numbers of red, green and blue."""
        return self.bands or ((1, 2, 3) if len(self.assets) == 1 else (1, 1, 1))
