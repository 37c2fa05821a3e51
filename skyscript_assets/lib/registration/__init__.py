"""The offset between OSM and imagery: estimated by scene, reported, applied where the settings say so."""
