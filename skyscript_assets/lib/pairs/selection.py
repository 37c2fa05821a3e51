"""Which pairs of the training manifest are wanted: by `skyscript export` and by readers alike."""

import functools
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from skyscript_assets.lib.errors import SettingsError
from skyscript_assets.lib.geometry import SPLITS
from skyscript_assets.lib.settings.base import STYLES

SELECTED_BY = ("region", "source", "split", "rank_share", "eligible")
"""Columns of the manifest that `Selection.of_manifest` looks at."""


@dataclass(frozen=True)
class Selection:
    """Which eligible pairs are wanted, and what is said of them.

    `share` is the best one by score (`rank_share`); pairs without a score only where it is 1. Empty `regions`,
    `sources` and `tags` are all or any; of `tags`, keys and values, the focus object must have one that can be seen.
    `prefix` is put before the caption of this `style`.

    Raises:
        SettingsError: a share, style or tag that there cannot be, or one name where several are listed.
    """

    share: float = 1.0
    splits: tuple[str, ...] = SPLITS
    regions: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    max_gsd_m: float = float("inf")
    tags: tuple[tuple[str, str], ...] = ()
    style: str = "title"
    prefix: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1 or self.style not in STYLES:
            raise SettingsError(f"pairs are chosen by a share from 0 to 1 and a style of {', '.join(STYLES)}")
        if any(isinstance(some, str) for some in (self.splits, self.regions, self.sources, *self.tags)):
            raise SettingsError('pairs are chosen by lists: regions=["here"], tags=[("building", "yes")]')

    def of_manifest(self, pairs: pa.Table) -> pa.ChunkedArray:
        """Whether each pair is wanted by what the manifest knows of it (`SELECTED_BY`)."""
        mask = pc.and_(pairs["eligible"], pc.is_in(pairs["split"], value_set=pa.array(self.splits, pa.string())))
        if self.share < 1.0:
            mask = pc.and_(mask, pc.fill_null(pc.less_equal(pairs["rank_share"], self.share), fill_value=False))
        for name, some in (("region", self.regions), ("source", self.sources)):
            if some:
                mask = pc.and_(mask, pc.is_in(pairs[name], value_set=pa.array(some)))
        return mask

    @property
    def looks_closer(self) -> bool:
        """Whether it asks for what the manifest does not know."""
        return bool(self.tags) or self.max_gsd_m < float("inf")

    def of_pairs(self, pairs: pa.Table) -> pa.ChunkedArray:
        """Whether each pair is wanted by its `gsd_m` and `center_tags`; of a list (`a;b`) each value counts."""
        mask = pc.less_equal(pairs["gsd_m"], self.max_gsd_m)
        if not self.tags:
            return mask

        def tagged(key: str, value: str) -> pa.ChunkedArray:
            values = pc.map_lookup(pairs["center_tags"], pa.scalar(key), "first")
            listed = pc.binary_join_element_wise("", values, "", ";")
            return pc.fill_null(pc.match_substring(listed, f";{value};"), fill_value=False)

        return pc.and_(mask, functools.reduce(pc.or_, (tagged(*tag) for tag in self.tags)))
