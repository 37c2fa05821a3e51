"""Captions from tags."""
