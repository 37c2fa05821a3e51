"""Image-caption pairs: features and scores of them, training shards, and the manifest of all."""
