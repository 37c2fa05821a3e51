"""What scores pairs beside the bases of the settings: kinds of scorers that packages register (docs/guide.md)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

from skyscript_assets.lib import plugins
from skyscript_assets.lib.settings.base import Shared
from skyscript_assets.lib.settings.kinds import Kind
from skyscript_assets.lib.settings.models import ScorerBase
from skyscript_assets.lib.towers.model import Float32Array
from skyscript_assets.lib.towers.views import UInt8Array

S = TypeVar("S", bound=ScorerBase)


class Encoder(Protocol):
    """Embeds images and texts: the score of a pair is the cosine of its two. A `ClipModel` is one."""

    def encode_images(self, images: Sequence[UInt8Array]) -> Float32Array:
        """Embeddings (N, E) of RGB images (height, width, 3)."""

    def encode_texts(self, texts: Sequence[str]) -> Float32Array:
        """Embeddings (N, E); the same text may come several times."""


@runtime_checkable
class PairScorer(Protocol):
    """Looks at image and text together: the score of a pair is any number, the higher the better."""

    def score_pairs(self, images: Sequence[UInt8Array], texts: Sequence[str]) -> Float32Array:
        """Scores (N,) of RGB images (height, width, 3), each with its text."""


@dataclass(frozen=True, kw_only=True)
class ScorerKind(Kind[S]):
    """A kind of scorer.

    `load` makes the scorer. It is shown the largest square of each chip with the focus object in sight, at the chip's
    own resolution, some dozens at a time, and captions with their prefix.
    """

    load: Callable[[S, Shared], Encoder | PairScorer]


def scorer_kind(name: str) -> ScorerKind[Any]:
    """The kind that is registered under a name.

    Raises:
        SettingsError: there is none, or it cannot be loaded.
    """
    kind: ScorerKind[Any] = plugins.load(plugins.SCORER_KINDS, name)
    return kind
