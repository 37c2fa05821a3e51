"""`models.yaml`: pretrained weights, bases, and the recipes of the models on the scoreboard."""

from pathlib import PurePath
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator

from skyscript_assets.lib.plugins import SCORER_KINDS
from skyscript_assets.lib.settings.base import (
    CAPTION_PREFIX,
    SENTENCES,
    UNSEEN,
    BenchmarkKey,
    CaptionStyle,
    Crop,
    Model,
    ModelKey,
    Name,
    Positive,
    RegionKey,
    Sha256,
    Share,
    SourceKey,
    WebAddress,
)
from skyscript_assets.lib.settings.kinds import of_kind
from skyscript_assets.lib.settings.sweep import expanded

Licence = Annotated[str | None, UNSEEN, Field(description="As the publisher states it; to give models away.")]
Activation = Literal["gelu", "quick_gelu"]
LossName = Literal["sigmoid", "softmax"]
"""Losses, each the module of that name in `lib.training.losses`."""

LOCAL_DIR, HUB = "local-dir:", "hf-hub:"
"""How open_clip marks names of models that carry their own configuration."""

WEIGHTS_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".safetensors")


class PackagedWeights(Model):
    """Weights that an installed Python package carries."""

    package: str = Field(description="Import name of the package.")
    file: str = Field(description="Path of the weights inside the package.")
    sha256: Sha256 = Field(description="Digest that the weights must have.")
    licence: Licence = None


class JointBase(Model):
    """An open_clip model joined from a timm image tower and a Hugging Face text tower, both pretrained apart."""

    kind: Literal["joint"] = "joint"
    image: str = Field(description="Key under `weights` of the image tower.")
    timm_name: str = Field(description="timm architecture of the image tower.")
    text: str = Field(description="Key under `weights` of the text tower.")
    embed_dim: int = Field(256, ge=8, description="Dimension of the shared space.")
    image_size: int = Field(224, ge=32, description="Side of the input image, pixels.")
    mean: tuple[float, float, float] = Field((0.5, 0.5, 0.5), description="Channel means of the image tower.")
    std: tuple[float, float, float] = Field((0.5, 0.5, 0.5), description="Channel deviations of the image tower.")


class OpenClipBase(Model):
    """A model of open_clip: with a tag, with weights from a file or an address, or whole from the Hub or a folder."""

    kind: Literal["open_clip"] = "open_clip"
    name: str = Field(description="Architecture, such as ViT-B-32; or hf-hub:ORG/NAME, local-dir:FOLDER with weights.")
    pretrained: str | None = Field(None, description="Tag such as laion2b_e16, or a file (`~`, or from the profile).")
    url: WebAddress | None = Field(None, description="Address of a file of weights, or of a zip that holds one.")
    activation: Activation | None = Field(None, description="What weights were trained with, which no file tells.")
    sha256: Sha256 | None = Field(None, description="Digest of the file, or of what the address gives.")
    licence: Licence = None

    @model_validator(mode="after")
    def _weights_are_told_once(self) -> Self:
        if sum(map(bool, (self.pretrained, self.url, self.name.startswith((LOCAL_DIR, HUB))))) > 1:
            raise ValueError(f"{self.name}: name, pretrained and url tell of different weights; leave one")
        if (self.url or self.from_file) and self.activation is None:
            raise ValueError("weights from a file need `activation`: quick_gelu (OpenAI's and their heirs') or gelu")
        return self

    @property
    def from_file(self) -> bool:
        """Whether `pretrained` is a file: open_clip's tags hold no slash and have no ending."""
        pretrained = self.pretrained or ""
        return "/" in pretrained or PurePath(pretrained).suffix in WEIGHTS_SUFFIXES


Base = Annotated[JointBase | OpenClipBase, Field(discriminator="kind")]


class ScorerBase(Model):
    """What every scorer of a package states, whatever its kind."""

    kind: str = Field(description="Name under which the scorer's kind is registered.")


Scorer = Annotated[SerializeAsAny[ScorerBase], of_kind(SCORER_KINDS, ScorerBase)]
"""A scorer as the model of its kind."""


class NoRecipe(Model):
    """The base as it is: a baseline that reads no manifest."""

    kind: Literal["none"] = "none"


class MetadataOnlyRecipe(Model):
    """A control: a classifier that sees chip size, GSD and region, and no pixel."""

    kind: Literal["metadata-only"] = "metadata-only"


class LinearProbeRecipe(Model):
    """A control: logistic regression on the frozen image features, taught with the benchmark's own training windows."""

    kind: Literal["linear-probe"] = "linear-probe"


class TaughtRecipe(Model):
    """What alignment and continual pre-training share; each field is a switch of its own."""

    column: Literal["statements"] | CaptionStyle | tuple[CaptionStyle, ...] = Field(
        "title",
        min_length=1,
        description="Style of caption; of several one is drawn each time. `statements`: one thing stated of the chip.",
    )
    prefix: str = Field(CAPTION_PREFIX, description="Put before captions, but not before sentences among other styles.")
    loss: LossName = Field("softmax", description="Module of `lib.training.losses` (paper: softmax).")
    positives: Literal["own", "equal", "stated"] = Field(
        "own",
        description="Texts of a batch that match an image: its own (paper), those equal to it too, or all that say "
        "nothing but what is stated of the chip.",
    )
    order: Literal["dealt", "shuffled"] = Field(
        "dealt", description="Batches: equal texts dealt out so that they seldom meet, or all shuffled (paper)."
    )
    lock_text: bool = Field(default=False, description="The text tower stays as it is (LiT); in the paper it learns.")
    interpolation: Share = Field(
        1.0, description="Share of the trained weights in the mean with those of the start (WiSE-FT); 1: as trained."
    )

    @property
    def styles(self) -> tuple[str, ...]:
        """Columns of the training manifest that texts are drawn from."""
        return (self.column,) if isinstance(self.column, str) else self.column

    def prefix_of(self, style: str) -> str:
        """What stands before texts of a style."""
        return "" if style in SENTENCES and len(self.styles) > 1 else self.prefix

    @property
    def columns(self) -> tuple[str, ...]:
        """Those and what tells which texts match which images."""
        return (*self.styles, "statements") if self.positives == "stated" else self.styles


class AlignRecipe(TaughtRecipe):
    """Projections trained between locked towers on stored features. This is not continual pre-training."""

    kind: Literal["align"] = "align"
    epochs: int = Field(30, ge=1, description="Passes over the pairs.")
    batch_size: int = Field(256, ge=2, description="Pairs in a batch.")
    lr: Positive = Field(1e-3, description="Peak learning rate; alignment needs a larger one than the paper's.")
    weight_decay: float = Field(0.1, ge=0, description="AdamW weight decay.")
    warmup_steps: int = Field(20, ge=0, description="Steps of linear warm-up before the cosine.")
    shuffle_captions: bool = Field(default=False, description="A control: captions are dealt out at random.")


class ClipRecipe(TaughtRecipe):
    """The paper's continual pre-training: open_clip's model and loss, AdamW, cosine, its augmentation."""

    kind: Literal["clip"] = "clip"
    crop: Crop = Field("focus", description="Views keep what the caption is about in sight, or `anywhere` (paper).")
    epochs: int = Field(20, ge=1, description="Passes over the pairs (paper: 20).")
    batch_size: int = Field(512, ge=2, description="Pairs in a batch (paper: 512 over 4 GPUs).")
    lr: Positive = Field(description="Peak learning rate (paper: 3e-9 for ViT-L-14, 1e-9 for ViT-B-32).")
    betas: tuple[float, float] = Field((0.9, 0.98), description="AdamW betas (paper).")
    eps: Positive = Field(1e-6, description="AdamW epsilon (paper).")
    weight_decay: float = Field(1.0, ge=0, description="AdamW weight decay (paper: 1.0).")
    warmup_steps: int = Field(1000, ge=0, description="Steps of linear warm-up (paper: 1,000).")
    max_steps: int | None = Field(None, ge=1, description="Stop after so many steps.")
    checkpoint_steps: int = Field(500, ge=1, description="Steps between states that a killed run continues from.")
    gradient: Literal["whole", "paper"] = Field(
        "whole",
        description="`paper`: a quarter of it but for the logit scale, as open_clip has it by default on the paper's "
        "four GPUs, where the gather of features lets no gradient pass.",
    )
    precision: Literal["fp32", "amp", "amp_bf16"] = Field("amp", description="Arithmetic; the CPU always runs fp32.")


Recipe = Annotated[
    NoRecipe | MetadataOnlyRecipe | LinearProbeRecipe | AlignRecipe | ClipRecipe, Field(discriminator="kind")
]


class TrainedModel(Model):
    """A model of the scoreboard: a base and what is done to it."""

    title: Annotated[str, UNSEEN] = Field(description="Name shown to people.")
    base: str = Field(description="Key under `bases`.")
    recipe: Recipe
    seed: int = Field(0, ge=0, description="Seed of initial projections, order and augmentation.")
    share: Share = Field(1.0, description="Share of pairs kept by similarity (paper: 0.2, 0.3, 0.5, 1.0).")
    sources: tuple[SourceKey, ...] | None = Field(None, min_length=1, description="Only these sources; default: all.")
    regions: tuple[RegionKey, ...] | None = Field(None, min_length=1, description="Only these regions; default: all.")
    pairs: int | None = Field(
        None, ge=2, description="So many training pairs at most, drawn by chip id and seed: fewer are some of more."
    )
    benchmarks: Annotated[tuple[BenchmarkKey, ...] | None, UNSEEN] = Field(
        None, description="Scored on these only; default: all."
    )
    group: Annotated[str | None, UNSEEN] = Field(
        None, description="Models of one group differ in their seed alone; default: own key."
    )


class ModelsFile(Model):
    """`models.yaml`."""

    weights: dict[Name, PackagedWeights] = Field(default_factory=dict, description="Weights that packages carry.")
    bases: dict[Name, Base] = Field(description="Untrained or pretrained starting points.")
    scorers: dict[Name, Scorer] = Field(default_factory=dict, description="What scores pairs and is no base.")
    models: Annotated[dict[ModelKey, TrainedModel], BeforeValidator(lambda models: expanded(models, TrainedModel))] = (
        Field(
            min_length=1,
            description="What is trained and scored; `sweep` in one lists values: a model of each combination.",
        )
    )
