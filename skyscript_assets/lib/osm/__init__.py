"""OpenStreetMap extracts and the objects in them."""
