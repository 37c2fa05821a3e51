"""Tile and map services (XYZ, WMTS, WMS): their pixel grid over a region, and tiles fetched from them with care."""
