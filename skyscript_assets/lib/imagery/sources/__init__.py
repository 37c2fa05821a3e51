"""The kinds of image sources: one folder or module a kind."""
