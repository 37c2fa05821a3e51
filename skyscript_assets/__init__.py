"""The SkyScript plant: from OpenStreetMap extracts to captioned chips, trained models and scores, as Dagster assets."""

import os

# Threads of a matrix library wait by spinning, and take the processor from every other run on the machine: two runs
# side by side were several times slower than one after the other. libgomp reads this when torch is first imported.
os.environ.setdefault("GOMP_SPINCOUNT", "3000")
