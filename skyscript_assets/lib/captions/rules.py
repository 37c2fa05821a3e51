"""The caption rules as `read_yaml` reads them from `settings/caption_rules.yaml`, and their limits.

How the rules are applied belongs to `compose`; that names, contacts and other text stay out is no rule but the policy
of `skyscript_assets.lib.tags.text`.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from skyscript_assets.lib.settings.base import Model

OsmKey = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[^\s=]+$")]
Words = Annotated[str, StringConstraints(min_length=1, max_length=60, pattern=r"^[^\x00-\x1f]+$")]


def _with_key(template: str) -> str:
    if template.replace("{key}", "").count("{") or template.count("{key}") != 1:
        raise ValueError("give a text that holds {key} once")
    return template


def _distinct(keys: tuple[str, ...]) -> tuple[str, ...]:
    repeated = sorted({key for key in keys if keys.count(key) > 1})
    if repeated:
        raise ValueError(f"keys repeat: {', '.join(repeated)}")
    return keys


Template = Annotated[Words, AfterValidator(_with_key)]
Keys = Annotated[tuple[OsmKey, ...], AfterValidator(_distinct)]


class CaptionRules(Model):
    """How tags become words."""

    key_names: dict[OsmKey, Words] = Field({}, description="Keys that are said by another word.")
    affirmed: Template = Field("{key}", alias="yes", description="What a tag with the value yes says.")
    denied: Template = Field("no {key}", alias="no", description="What a tag with the value no says.")
    beside: Keys = Field((), description='Keys put beside their value: "power pole".')
    is_keys: Keys = Field((), description='Attributes that take "is" where they stand on their own.')
    units: dict[OsmKey, Words] = Field({}, description="Units of bare numbers by key.")
    order: Keys = Field((), description="Order of an object's tags; the first that it has is its main tag.")
