"""What a source of kind `synthetic` states."""

import datetime as dt
from typing import Literal

from pydantic import Field

from skyscript_assets.lib.settings.base import Share
from skyscript_assets.lib.settings.sources import SourceBase


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

    @property
    def is_control(self) -> bool:
        """Whether its colours are random."""
        return self.colours == "random"
