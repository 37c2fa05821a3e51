"""Registration of imagery with OSM: the offset of each scene, estimated and reported, for plans to apply."""
