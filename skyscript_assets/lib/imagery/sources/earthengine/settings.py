"""What a source of kind `earthengine` states."""

import datetime as dt
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from skyscript_assets.lib.settings.base import UNSEEN, EnvironmentVariable, HostNames, WebAddress
from skyscript_assets.lib.settings.sources import Scaling, SourceBase


class EarthEngineSource(SourceBase):
    """An Earth Engine image collection."""

    kind: Literal["earthengine"] = "earthengine"
    collection: str = Field(description="Earth Engine collection id.")
    project: Annotated[str | None, UNSEEN] = Field(
        None, description="Google Cloud project that requests count for; default: the credentials' own."
    )
    credentials_variable: Annotated[EnvironmentVariable | None, UNSEEN] = Field(
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
    connections: Annotated[int, UNSEEN] = Field(
        4, ge=1, le=20, description="Most requests under way at a time for one reader."
    )
    tries: Annotated[int, UNSEEN] = Field(
        6, ge=1, le=12, description="How often a request is made before it counts as failed."
    )
    timeout_s: Annotated[float, UNSEEN] = Field(
        120.0, gt=0, le=600, description="Seconds without a byte until a request has failed."
    )
    allow_private_hosts: Annotated[HostNames, UNSEEN] = ()

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.start is not None and self.end is not None and not self.start < self.end:
            raise ValueError("start must lie before end")
        return self
