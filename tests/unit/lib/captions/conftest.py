from pathlib import Path

import pytest
import shapely

from tests.caption_world import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    made.add("a1", shapely.box(80, 40, 120, 60), building="yes")
    return made
