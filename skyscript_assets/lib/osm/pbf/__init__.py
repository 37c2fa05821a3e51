"""The OSM PBF format, decoded many blocks at a time with numpy: no loop over objects."""
