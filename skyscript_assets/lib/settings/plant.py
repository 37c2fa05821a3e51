"""`plant.yaml`: everything that is neither a region, a source, a model nor a benchmark."""

import datetime as dt
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from skyscript_assets.lib.settings.base import (
    SENTENCES,
    UNSEEN,
    CaptionPolicy,
    CaptionStyle,
    CaptionText,
    Crop,
    Model,
    Name,
    Positive,
    Share,
)


class TagSettings(Model):
    """Vocabulary and groundability; unseen by the latter is what other stages read and hand on."""

    labels: Annotated[str, UNSEEN] = Field(
        "tag_labels.csv", description="Labels of tags: a packaged file's name, or a path."
    )
    overrides: Annotated[str | None, UNSEEN] = Field(
        None, description="A CSV of the same layout whose rows win over labels and model."
    )
    first_pass: Annotated[str | None, UNSEEN] = Field(
        "tag_labels_first.csv", description="Labels of a first pass; its agreement with the second is reported."
    )
    second_pass: Annotated[str | None, UNSEEN] = Field(
        "tag_labels_second.csv", description="Labels of a second pass that did not see the first."
    )
    encoder: str = Field(
        "minilm-l6-v2",
        description="What embeds tags: a sentence encoder under `weights`, or an open_clip model under `bases`.",
    )
    min_count: int = Field(2, ge=1, description="Tags seen less often get no decision of the model and stay out.")
    rare_below: Annotated[int, UNSEEN] = Field(
        5, ge=1, description="Tags on fewer objects are marked rare in the vocabulary."
    )
    threshold: Share = Field(0.5, description="Least probability at which the model calls a tag visible.")
    unseen_threshold: Share = Field(
        0.65, description="The same for tags of keys that no label has: it knows them less."
    )

    @model_validator(mode="after")
    def _two_passes(self) -> Self:
        if (self.first_pass is None) != (self.second_pass is None):
            raise ValueError("give both first_pass and second_pass, or neither")
        return self


class SplitSettings(Model):
    """Split by ground: see `lib.geometry.splits_of`."""

    zoom: int = Field(16, ge=4, le=20, description="Zoom of the Web Mercator tiles that are never divided.")


class SizeSettings(Model):
    """How large objects and their chips are: what plans and the tag vocabulary have in common."""

    rule: Literal["focus", "paper"] = Field(
        "focus", description="`focus` is this project's rule; `paper` the plain one."
    )
    min_object_px: int = Field(16, ge=1, description="Least length in pixels of an object's longer side.")
    min_tile_px: int = Field(100, ge=32, description="Least side of a chip, pixels.")
    max_tile_px: int = Field(1000, le=4096, description="Greatest side of a chip, pixels.")
    context: float = Field(1.5, ge=1.0, description="A polygon's tile is its box times this.")


class PlanSettings(SizeSettings):
    """Which objects become chips, and where their chips lie."""

    snapshot: Name = Field(description="Name of the sampling snapshot that plans use.")
    sampling: Literal["quota", "squares"] = Field(
        "quota",
        description="`quota` draws each tag up to its quota; `squares`, the paper's way, draws all objects of random "
        "squares of 0.01 degrees, then all that carry a rare tag.",
    )
    quota: int = Field(ge=1, description="Chips wanted for each tag x region x GSD.")
    square_share: Share = Field(0.1, description="Share of the squares that are drawn by `sampling: squares`.")
    rare_below: int | None = Field(
        None, ge=0, description="Tags with fewer objects in the snapshot draw them all; default: the quota."
    )
    point_tile_px: int = Field(160, ge=32, description="Side of the tile around a point or a line's vertex, pixels.")
    shift: Share = Field(0.25, description="Greatest random shift, as a share of the tile's free margin or side.")
    max_overlap: Share = Field(
        0.5,
        description="Chips of a source and stratum share no more of the smaller one than this; 1: as much as falls.",
    )
    seed: int = Field(0, ge=0, description="Seed of the draws; another seed is another sample.")
    apply_offsets: bool = Field(
        default=False, description="Move OSM objects by the offset estimated for each scene before chips are planned."
    )

    @property
    def sizes(self) -> SizeSettings:
        """The sizes alone."""
        return SizeSettings(**{name: getattr(self, name) for name in SizeSettings.model_fields})


class ChipSettings(Model):
    """How chips are cut and which of them are rejected."""

    jpeg_quality: int = Field(90, ge=50, le=100, description="Quality of the chips' JPEG files.")
    part_size: int = Field(1000, ge=1, description="Chips in a part: what a killed run loses at most.")
    max_nodata_share: Share = Field(0.05, description="A chip with more pixels without data is rejected.")
    max_cloud_share: Share = Field(0.5, description="A chip with more near-white, textureless pixels is rejected.")
    min_contrast: float = Field(4.0, ge=0, description="A chip whose grey values deviate less (of 255) is blank.")
    min_sharpness: float = Field(4.0, ge=0, description="Least variance of the Laplacian; below, a chip is blurred.")
    min_focus_valid_share: Share = Field(
        0.75, description="A chip is rejected where less of its focus object's box holds data."
    )
    min_focus_px: int = Field(
        8, ge=1, description="Least length in pixels of the longer side of a focus box, points excepted."
    )


class FailureSettings(Model):
    """When chips that cannot be read stop a run: whether there is an output, never what is in it."""

    max_failed_share: Share = Field(
        0.5, description="Share of a partition's chips that may fail to be read before the whole partition fails."
    )


class OffsetSettings(Model):
    """How the offset between OSM and a scene is estimated."""

    search_radius_m: float = Field(15.0, ge=1, le=50, description="Greatest shift looked for, metres east and north.")
    windows: int = Field(24, ge=8, le=100, description="Most windows of a scene that are read and matched.")
    min_confidence: Share = Field(0.5, description="A shift of less confidence counts as not estimated.")


class RateSettings(Model):
    """What the machine and the servers manage in a second: only estimates of time count with it.

    Megapixels are by default those of one slow core (docs/benchmarks.md, "Cutting chips").
    """

    read_megapixels_s: Positive = Field(100.0, description="Megapixels of local or fetched images decoded in a second.")
    encode_megapixels_s: Positive = Field(100.0, description="Megapixels of chips measured and encoded in a second.")
    requests_s: Positive = Field(10.0, description="Requests that a server of images answers in a second.")


class CaptionSettings(Model):
    """How captions are written."""

    rules: Annotated[str, UNSEEN] = Field(
        "caption_rules.yaml", description="Caption rules: a packaged file's name, or a path."
    )
    order: Literal["things", "frequency"] = Field(
        "things", description="What an object's main tag is: by the rules' order of things, or its most frequent tag."
    )
    policy: CaptionPolicy = Field(
        "ours", description="`paper` also says what SkyScript's authors let through: addresses, notes, beliefs, volts."
    )
    max_surrounding: int = Field(4, ge=0, description="Distinct surrounding objects named in a multi-object caption.")
    max_length: int = Field(300, ge=40, description="Longest caption, characters.")
    verdicts: Annotated[tuple[str, ...], UNSEEN] = Field(
        (), description="What readers judged by `skyscript audit`: its CSV files."
    )


class ScoredText(CaptionText):
    """The caption that is scored and ranks pairs, and others that are only scored."""

    further_styles: tuple[CaptionStyle, ...] = Field((), description="Further styles of captions that are scored.")

    @property
    def styles(self) -> tuple[str, ...]:
        """All that are scored."""
        return tuple(dict.fromkeys((self.column, *self.further_styles)))

    def prefix_of(self, style: str) -> str:
        """What stands before captions of a style: nothing before sentences, but of the style that ranks."""
        return self.prefix if style == self.column or style not in SENTENCES else ""


class ScoreSettings(ScoredText):
    """Features of chips, and the similarity of images and captions."""

    scorer: str = Field(description="Key under `bases` of the model whose image tower gives features and scores pairs.")
    further_scorers: tuple[Name, ...] = Field(
        (), description="Keys under `bases` or `scorers` of what scores pairs too; their ranks are combined."
    )
    views: int = Field(
        1, ge=1, le=8, description="Views of a chip whose features are stored; the first is not augmented."
    )
    crop: Crop = Field("focus", description="Views keep what the caption is about in sight, or `anywhere` (paper).")

    @property
    def scorers(self) -> tuple[str, ...]:
        """Names of all scorers, the first one first."""
        return tuple(dict.fromkeys((self.scorer, *self.further_scorers)))

    @property
    def text(self) -> ScoredText:
        """What features do not depend on: the captions that are scored."""
        return ScoredText(**{name: getattr(self, name) for name in ScoredText.model_fields})


class ShardSettings(CaptionText):
    """Caption shards, and the caption written as the text file."""

    samples_per_shard: int = Field(1000, ge=1, description="Pairs in one tar file.")


class ManifestSettings(Model):
    """What may be missing when everything is gathered, and how pairs are ranked."""

    allow_missing: Annotated[tuple[str, ...], UNSEEN] = Field(
        (), description="Partitions `region|source` that may be missing or failed."
    )
    rank_within: Literal["source", "all", "gsd", "tag"] = Field(
        "source",
        description="Among which pairs `rank_share` is a rank: those of its source; all; those about as fine (steps of "
        "0.1, 0.2, 0.6, 1, 10 and 30 m); those drawn for the same tag (the plan's stratum).",
    )


class TrainingSettings(Model):
    """What recipe `clip` computes on: how fast a model is trained, up to rounding not what becomes of it."""

    devices: Literal["auto", "cpu"] | tuple[Literal["cpu"] | Annotated[int, Field(ge=0)], ...] = Field(
        "auto", description="`auto`: every GPU, else the processor; `cpu`; or a list: a process for each GPU or `cpu`."
    )
    micro_batch: int | None = Field(
        None, ge=1, description="Pairs on a device at a time; features of the whole batch are kept. Default: its share."
    )
    gradient_checkpointing: bool = Field(
        default=False, description="Compute activations twice instead of keeping them: less memory, a third slower."
    )
    tensorboard: str | None = Field(None, description="Folder for TensorBoard, where that is installed.")

    @model_validator(mode="after")
    def _devices_of_one_kind(self) -> Self:
        if not isinstance(self.devices, str):
            gpus = [device for device in self.devices if device != "cpu"]
            if not self.devices or len(gpus) not in (0, len(self.devices)) or len(set(gpus)) < len(gpus):
                raise ValueError("devices are numbers of GPUs, none twice, or `cpu` for each process; not both")
        return self


class ReleaseSettings(Model):
    """The data set as it is given away."""

    name: Name = Field(description="Name of the data set and of its repository.")
    version: Annotated[str, StringConstraints(pattern=r"^\d+\.\d+\.\d+$")] = Field(description="Version, as 1.0.0.")
    authors: tuple[Annotated[str, StringConstraints(pattern=r"\S")], ...] = Field(
        min_length=1, description="Who is cited."
    )
    contact: str = Field(
        pattern=r"\S", description="Mail or web address for questions, and for who wants a sample removed."
    )
    published: dt.date | None = Field(None, description="Date of publication.")
    licence: str = Field("", description="What is said of the whole before the licences that are computed.")
    style: CaptionStyle = Field("title", description="Style of the column `text`.")
    previous: Annotated[str | None, UNSEEN] = Field(None, description="Folder of the release before, for changes.")
    removed: Annotated[str | None, UNSEEN] = Field(
        None, description="A file of the chip or object ids, one a line, that stay out."
    )


class PlantSettings(Model):
    """`plant.yaml`: everything that is neither a region, a source, a model nor a benchmark."""

    title: str = Field(description="Name of the profile.")
    tags: TagSettings = TagSettings()
    split: SplitSettings = SplitSettings()
    plan: PlanSettings
    chips: ChipSettings = ChipSettings()
    failures: FailureSettings = FailureSettings()
    rates: RateSettings = RateSettings()
    offsets: OffsetSettings = OffsetSettings()
    captions: CaptionSettings = CaptionSettings()
    scores: ScoreSettings
    shards: ShardSettings = ShardSettings()
    manifest: ManifestSettings = ManifestSettings()
    training: TrainingSettings = TrainingSettings()
    release: ReleaseSettings | None = Field(None, description="The data set that is given away; none: no release.")
