"""`sources.yaml`: what every image source states; what more a kind of source states belongs to that kind."""

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, SerializeAsAny, model_validator

from skyscript_assets.lib.settings.base import UNSEEN, BBox, Model, Month, Positive, Share, SourceKey
from skyscript_assets.lib.settings.kinds import of_kind

SOURCE_KINDS = "skyscript_assets.source_kinds"
"""Group of the entry points of kinds of sources; each is a `SourceKind` (`lib.imagery.sources.kind`)."""


class Scaling(Model):
    """How raw pixel values become 8-bit: a fixed range, or percentiles of the scene."""

    low: float | None = Field(None, description="Raw value that becomes 0.")
    high: float | None = Field(None, description="Raw value that becomes 255.")
    percentiles: tuple[float, float] | None = Field(None, description="Or: percentiles of each band for 0 and 255.")
    values: Literal["without_offset", "physical", "stored"] = Field(
        "without_offset",
        description="What low and high are where images state scale and offset: `without_offset`: stored values of an "
        "image whose offset is 0, so that others are as bright; `physical`: value x scale + offset; `stored`.",
    )

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        fixed = self.low is not None and self.high is not None and self.low < self.high
        if fixed == (self.percentiles is not None):
            raise ValueError("give either low < high, or percentiles")
        if self.percentiles is not None and not 0 <= self.percentiles[0] < self.percentiles[1] <= 100:
            raise ValueError("percentiles must be two rising numbers between 0 and 100")
        return self


DateIs = Literal["stated", "year", "guess"]
"""What a date is worth: its publisher states it; the year alone is known; it merely stands for a mosaic of years."""

Alpha = Annotated[
    Literal["mask", "ignore"],
    Field(description="What a band tagged alpha is: `mask` hides where it is 0; `ignore`, where the tag is wrong."),
]


class Terms(Model):
    """Terms of use that whoever fetches images has to accept."""

    says: str = Field(description="What they forbid or ask for, in short, and where they are.")
    accepted: bool = Field(default=False, description="Whether you have read them, and keep to them.")


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
    guessed_dates: bool = Field(
        default=False,
        description="Whether these rules may go by dates that are guesses, and by months where only the year is known.",
    )
    dates: int = Field(1, ge=1, le=50, description="Chips of one object at most, each of another date.")
    min_days_apart: int = Field(30, ge=1, description="Least days between the dates of one object's chips.")


def _known_places(text: str) -> str:
    if unknown := set(re.findall(r"\{[^}]*\}?", text)) - {"{year}", "{month}", "{dataset}"}:
        raise ValueError(f"{min(unknown)} is no place that is filled in: there are {{year}}, {{month}} and {{dataset}}")
    return text


class SourceBase(Model):
    """What every image source states, whatever its kind."""

    title: Annotated[str, UNSEEN] = Field(description="Name shown to people.")
    gsd_m: Positive = Field(description="Nominal ground sample distance, metres.")
    extent: BBox | None = Field(None, description="Ground the source covers; default: the whole world.")
    licence: str = Field(description="Licence of the images.")
    attribution: Annotated[str, AfterValidator(_known_places)] = Field(
        description="Credit line that goes with every chip; {year}, {month} and {dataset} (the title) are filled in."
    )
    date_is: DateIs = Field("stated", description="What the dates of its images are worth.")
    terms: Annotated[Terms | None, UNSEEN] = Field(None, description="Terms that have to be accepted first.")
    choice: Annotated[SceneChoice, UNSEEN] = Field(
        SceneChoice(), description="Which scene shows an object where several cover it."
    )
    resolution: Literal["pixels", "effective"] = Field(
        "pixels",
        description="What a tag's coarsest GSD is compared with: that of the `pixels`, or the coarser one that the "
        "spectrum of an enlarged image shows. Local files are measured anyhow, others where this is `effective`.",
    )
    kind: str = Field(description="Name under which the source's kind is registered.")

    @property
    def is_control(self) -> bool:
        """Whether its images are wrong on purpose, so that models trained on them are there to be compared with."""
        return False


Source = Annotated[SerializeAsAny[SourceBase], of_kind(SOURCE_KINDS, SourceBase)]
"""A source as the model of its kind."""


class SourcesFile(Model):
    """`sources.yaml`."""

    sources: dict[SourceKey, Source] = Field(min_length=1, description="Image sources by alias.")
