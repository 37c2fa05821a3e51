"""What every test may use: the folder of real data, where it is present."""

from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
"""Real extracts, images and benchmarks beside the project; tests that need them skip where they are absent."""


@pytest.fixture(scope="session")
def shared_data() -> Path:
    if not SHARED_DATA.is_dir():
        pytest.skip(f"real data is absent: {SHARED_DATA} does not exist")
    return SHARED_DATA
