"""Each service of the packaged profile `skyscript` is asked once: scenes over a small box, one window of the first.

These need the internet and run by `make test-online` alone. They tell what no other test can: whether addresses,
layers, collections and band names are still those of the services.
"""

from pathlib import Path

import pytest
import shapely
from affine import Affine
from pyproj import Transformer

from skyscript_assets.lib.imagery.scenes import Scene, read_scenes
from skyscript_assets.lib.imagery.sources.kind import Search, source_kind
from skyscript_assets.lib.settings.load import PACKAGED_PROFILES, load_settings

pytestmark = pytest.mark.online

SETTINGS = load_settings(PACKAGED_PROFILES / "skyscript")
SIDE_PX = 64
HALF_DEG = 0.002
PLACES = {
    "CH": (8.5417, 47.3769),  # Zurich
    "ES": (-3.7038, 40.4168),  # Madrid
    "DE": (13.0645, 52.3906),  # Potsdam
    "FI": (24.9414, 60.1719),  # Helsinki
    "US": (-71.4128, 41.8240),  # Providence, Rhode Island
    "P3": (-70.8920, 41.6555),  # the coast of Massachusetts
    "P5": (-70.8920, 41.6555),
    "S2": (9.5209, 47.1410),  # Vaduz, Liechtenstein
    "L8": (9.5209, 47.1410),
    "L9": (9.5209, 47.1410),
}
"""Longitude and latitude of a place with buildings that each source shows."""


@pytest.mark.parametrize("key", SETTINGS.sources)
def test_a_window_of_the_first_scene_shows_something(key: str, tmp_path: Path) -> None:
    source = SETTINGS.sources[key]
    kind = source_kind(source.kind)
    missing = [needed.remedy for needed in kind.requirements(source, SETTINGS.shared) if not needed.met]
    if missing:
        pytest.skip(f"{key} cannot be asked: {'; '.join(missing)}")
    lon, lat = PLACES[key]
    box = (lon - HALF_DEG, lat - HALF_DEG, lon + HALF_DEG, lat + HALF_DEG)
    kind.index(Search("here", key, source, SETTINGS.shared, box, tmp_path))
    scenes = read_scenes(tmp_path)
    assert scenes, f"{key} has no scene at {lon}, {lat}"
    with kind.open_scene(scenes[0], source, None) as reader:
        pixels = reader.read(scenes[0].crs, grid_at(scenes[0], box), SIDE_PX, SIDE_PX)
    assert pixels.rgb.shape == (SIDE_PX, SIDE_PX, 3)
    assert pixels.valid.mean() > 0.5
    assert pixels.rgb[pixels.valid].std() > 1


def grid_at(scene: Scene, box: tuple[float, float, float, float]) -> tuple[float, ...]:
    """Affine of a window on the scene's own pixels, in the middle of what it shows of a box."""
    seen = scene.footprint.intersection(shapely.box(*box)).centroid
    place = Transformer.from_crs(4326, scene.crs, always_xy=True).transform(seen.x, seen.y)
    grid = Affine(*scene.transform)
    column, row = (int(middle) - SIDE_PX // 2 for middle in ~grid @ place)
    return tuple(grid @ Affine.translation(column, row))[:6]
