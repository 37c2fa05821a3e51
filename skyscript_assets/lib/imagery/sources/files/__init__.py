"""Source kind `files`: georeferenced rasters on this machine."""
