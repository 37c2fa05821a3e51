"""What a source of kind `files` states."""

import datetime as dt
from typing import Literal, Self

from pydantic import Field, model_validator

from skyscript_assets.lib.settings.sources import Alpha, Scaling, SourceBase


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
    alpha: Alpha = "mask"

    @model_validator(mode="after")
    def _some_files(self) -> Self:
        if not self.paths and self.index is None:
            raise ValueError("give paths, an index, or both")
        return self
