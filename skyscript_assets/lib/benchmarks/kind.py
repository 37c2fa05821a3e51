"""What a kind of benchmark is: its settings, what it is made from, how its items are made and scored.

A kind is registered by the package that has it (docs/guide.md, "Your own kind of benchmark").
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from skyscript_assets.lib import plugins
from skyscript_assets.lib.progress import Progress
from skyscript_assets.lib.settings.base import Shared
from skyscript_assets.lib.settings.benchmarks import BENCHMARK_KINDS, BenchmarkBase
from skyscript_assets.lib.settings.kinds import Kind

B = TypeVar("B", bound=BenchmarkBase)

Inputs = Mapping[str, Mapping[tuple[str, str], Path]]
"""Folders by asset and (region, source): of the sources that a benchmark is cut from, of `chip_plan` those of all."""


@dataclass(frozen=True, kw_only=True)
class BenchmarkKind(Kind[B]):
    """A kind of benchmark.

    `build` writes `items.parquet` and `benchmark.json` (`lib.benchmarks.items`) into the folder and returns counts; it
    gets the folders of `made_of`, assets of region and source. `labels` is `one`: each item is of one class, models are
    compared by top-1 accuracy; `many`: an item shows any number of classes, models are compared by the mean area under
    the ROC curve, and retrieval is measured; `captions`: no classes but `captions.parquet`, compared by the mean of six
    recalls.
    """

    build: Callable[[B, Shared, Inputs, Path, Progress], dict[str, Any]]
    made_of: tuple[str, ...] = ()
    labels: Literal["one", "many", "captions"]

    @property
    def primary(self) -> str:
        """The figure that models are compared by."""
        return {"one": "top1", "many": "mean_auc", "captions": "mean_recall"}[self.labels]


def benchmark_kind(name: str) -> BenchmarkKind[Any]:
    """The kind that is registered under a name.

    Raises:
        SettingsError: there is none, or it cannot be loaded.
    """
    kind: BenchmarkKind[Any] = plugins.load(BENCHMARK_KINDS, name)
    return kind
