"""`benchmarks.yaml`: what models are measured on, and what is claimed of them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from skyscript_assets.lib.settings.base import BenchmarkKey, Model, Share, SourceKey


class CoverClass(Model):
    """One class of the ground-cover benchmark."""

    text: str = Field(description="Words that stand for the class in a prompt.")
    surfaces: tuple[str, ...] = Field(min_length=1, description="The painter's surfaces that make up the class.")


class GroundCoverBenchmark(Model):
    """Fixed windows of synthetic scenes: which visible classes cover a share of the window?"""

    kind: Literal["ground-cover"] = "ground-cover"
    title: str = Field(description="Name shown to people.")
    sources: tuple[SourceKey, ...] = Field(min_length=1, description="Synthetic sources whose scenes are cut.")
    window_px: int = Field(128, ge=32, description="Side of a window, pixels.")
    min_share: Share = Field(0.05, description="A class is true where it covers this share of the window or more.")
    windows_per_cell: int | None = Field(
        None, ge=1, description="Most windows of a cell and source, drawn by hash; default: all that fit."
    )
    classes: dict[str, CoverClass] = Field(min_length=2, description="Classes by name.")
    prompts: tuple[str, ...] = Field(
        ("a satellite photo of {c}.", "a satellite image of {c}"), description="Prompts, averaged (paper)."
    )


class ImageFolderBenchmark(Model):
    """A folder of images with a CSV (filepath,label): single-label zero-shot classification by the paper's protocol."""

    kind: Literal["image-folder"] = "image-folder"
    title: str = Field(description="Name shown to people.")
    csv: str = Field(description="CSV with the columns filepath and label; paths are relative to it.")
    classnames: str = Field(description="Text file, one class name a line.")
    prompts: tuple[str, ...] = Field(
        ("a satellite photo of {c}.", "a satellite image of {c}"), description="Prompts, averaged (paper)."
    )
    licence: str = Field("see its publisher", description="Licence of the images.")


class Comparison(Model):
    """A claim of the scoreboard: one group of models against another on one benchmark."""

    benchmark: BenchmarkKey = Field(description="On which benchmark.")
    group: str = Field(description="The group that should be better.")
    against: str = Field(description="The group it is compared with.")


class PublishedScore(Model):
    """A figure of the literature that is shown beside one's own."""

    model: str
    benchmark: str
    metric: str
    value: float
    reference: str


Benchmark = Annotated[GroundCoverBenchmark | ImageFolderBenchmark, Field(discriminator="kind")]


class BenchmarksFile(Model):
    """`benchmarks.yaml`."""

    benchmarks: dict[BenchmarkKey, Benchmark] = Field(min_length=1, description="Benchmarks by key.")
    comparisons: tuple[Comparison, ...] = Field((), description="Paired comparisons on the scoreboard.")
    published: tuple[PublishedScore, ...] = Field((), description="Published figures shown for orientation.")
    bootstrap: int = Field(1000, ge=100, description="Bootstrap samples of an interval.")
