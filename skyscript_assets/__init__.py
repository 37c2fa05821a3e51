"""The SkyScript plant: from OpenStreetMap extracts to captioned chips, trained models and scores, as Dagster assets."""
