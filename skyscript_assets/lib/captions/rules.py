"""The caption rules as `read_yaml` reads them from `settings/caption_rules.yaml`, and their limits.

How the rules are applied belongs to `compose`; that names, contacts and other text stay out is no rule but the policy
of `skyscript_assets.lib.tags.text`.
"""

from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from skyscript_assets.lib.settings.base import Model

OsmKey = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[^\s=]+$")]
OsmTag = Annotated[str, StringConstraints(min_length=3, max_length=200, pattern=r"^[^\s=]+=[^\s=]+$")]
Words = Annotated[str, StringConstraints(min_length=1, max_length=60, pattern=r"^[^\x00-\x1f]+$")]


def _distinct(keys: tuple[str, ...]) -> tuple[str, ...]:
    repeated = sorted({key for key in keys if keys.count(key) > 1})
    if repeated:
        raise ValueError(f"keys repeat: {', '.join(repeated)}")
    return keys


Keys = Annotated[tuple[OsmKey, ...], AfterValidator(_distinct)]


class CaptionRules(Model):
    """How tags become words."""

    key_names: dict[OsmKey, Words] = Field({}, description="Keys, or parts of keys between colons, said otherwise.")
    tag_names: dict[OsmTag, Words] = Field({}, description="Tags, by the last part of their key, said otherwise.")
    beside: Keys = Field((), description='Last parts of keys that stand beside their value: "power pole".')
    is_keys: Keys = Field((), description='Last parts of keys that take "is"; `*` stands for any text.')
    paper_keys: Keys = Field(
        (), description="Keys that are silent unless the policy is the paper's; `*` stands for any text."
    )
    let_through: Keys = Field((), description="Keys that the paper's policy says whatever groundability decides.")
    order: Keys = Field((), description="Order of an object's tags by things; the first that it has is its main tag.")
