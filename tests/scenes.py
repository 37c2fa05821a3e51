"""A scene that tests change as they need it."""

import datetime as dt

import shapely

from skyscript_assets.lib.imagery.scenes import Scene

SCENE = Scene(
    scene_id="b",
    region="monaco",
    source="S-1",
    datetime=dt.datetime(2020, 5, 1, 10, tzinfo=dt.UTC),
    footprint=shapely.box(7.0, 43.0, 7.5, 43.5),
    gsd_m=0.3,
    crs="EPSG:32632",
    transform=(0.3, 0.0, 371_000.0, 0.0, -0.3, 4_845_000.0),
    width=100,
    height=80,
    hrefs=("scene.tif",),
    fingerprint="f",
    licence="CC0-1.0",
    attribution="nobody",
    synthetic=True,
)
