"""`benchmarks.yaml`: what models are measured on, and what is claimed of them."""

from typing import Annotated, Literal, get_args

from pydantic import Field, SerializeAsAny, StringConstraints

from skyscript_assets.lib.settings.base import UNSEEN, BenchmarkKey, Model, SourceKey
from skyscript_assets.lib.settings.kinds import of_kind

BENCHMARK_KINDS = "skyscript_assets.benchmark_kinds"
"""Group of the entry points of kinds of benchmarks; each is a `BenchmarkKind` (`lib.benchmarks.kind`)."""

Prompt = Annotated[str, StringConstraints(pattern=r"\{c\}")]
"""Text with `{c}` where the class goes."""

PROMPTS: tuple[Prompt, ...] = ("a satellite photo of {c}.", "a satellite image of {c}")
"""Those of the paper."""

ENSEMBLE: tuple[Prompt, ...] = tuple(
    f"{view} {what} of {article}{{c}}."
    for article in ("", "a ", "the ")
    for what in ("imagery", "photo", "view")
    for view in ("satellite", "aerial")
)
"""The eighteen that CLIP's authors scored RESISC45 with (Radford et al. 2021, data/prompts.md of their repository)."""

Track = Literal["plain", "prompt-ensemble", "transductive"]
TRACKS: tuple[Track, ...] = get_args(Track)
"""Ways of scoring that are told apart and never compared with each other (`lib.benchmarks.scoring`)."""


class BenchmarkBase(Model):
    """What every benchmark states, whatever its kind."""

    kind: str = Field(description="Name under which the benchmark's kind is registered.")
    title: Annotated[str, UNSEEN] = Field(description="Name shown to people.")
    prompts: tuple[Prompt, ...] = Field(
        PROMPTS,
        min_length=1,
        description="Prompts, whose embeddings are averaged (paper); `{c}` is where the class goes.",
    )
    ensemble: Annotated[tuple[Prompt, ...], UNSEEN] = Field(
        ENSEMBLE, min_length=1, description="Prompts of the track prompt-ensemble (default: CLIP's for RESISC45)."
    )

    @property
    def cut_from(self) -> tuple[SourceKey, ...]:
        """Keys of the sources whose scenes it is made from; none for what others publish."""
        return ()


class Comparison(Model):
    """A claim of the scoreboard: one group of models against another on one benchmark."""

    benchmark: BenchmarkKey = Field(description="On which benchmark.")
    group: str = Field(description="The group that should be better.")
    against: str = Field(description="The group it is compared with.")


class Mean(Model):
    """A mean over several benchmarks that has a name, since the literature mixes means over seven and over eight."""

    title: str
    benchmarks: tuple[BenchmarkKey, ...] = Field(min_length=2, description="Of their first figures the mean is taken.")


class PublishedScore(Model):
    """A figure of the literature that is shown beside one's own."""

    model: str
    benchmark: str
    metric: str
    value: float
    reference: str


Benchmark = Annotated[SerializeAsAny[BenchmarkBase], of_kind(BENCHMARK_KINDS, BenchmarkBase)]
"""A benchmark as the model of its kind."""


class BenchmarksFile(Model):
    """`benchmarks.yaml`."""

    benchmarks: dict[BenchmarkKey, Benchmark] = Field(min_length=1, description="Benchmarks by key.")
    means: dict[BenchmarkKey, Mean] = Field(default_factory=dict, description="Named means over benchmarks.")
    comparisons: tuple[Comparison, ...] = Field((), description="Paired comparisons on the scoreboard.")
    published: tuple[PublishedScore, ...] = Field((), description="Published figures shown for orientation.")
    tracks: tuple[Literal["prompt-ensemble", "transductive"], ...] = Field((), description="Tracks besides plain.")
    bootstrap: int = Field(1000, ge=100, description="Bootstrap samples of an interval.")
