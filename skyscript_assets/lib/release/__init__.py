"""The data set as it is given away: images in Parquet, and all that others' tools and people need to know of it."""
