"""Source kind `stac`: STAC APIs and static catalogs, whose GeoTIFFs are read where they are."""
