"""Image sources: the scenes they have over a region, and pixels read from them."""
