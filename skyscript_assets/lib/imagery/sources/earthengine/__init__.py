"""Earth Engine: images of a collection over a region, and their pixels, through Google's own client (extra)."""
