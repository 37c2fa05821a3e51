"""GeoTIFFs: what they say of themselves, their blocks on disk and over HTTP, and how those are decoded."""
