"""Chips and captions as training shards, and the manifest of all pairs."""
