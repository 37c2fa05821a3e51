"""One job for each level of the pipeline: a run cannot cross partition schemes, so a level is as far as one goes.

Across levels, use an asset backfill in the UI, or `skyscript run`, which walks the levels in this order.
"""

from __future__ import annotations

from collections.abc import Mapping

import dagster as dg

from skyscript_assets.assets import LEVELS
from skyscript_assets.stages import Scheme


def all_jobs(by_scheme: Mapping[Scheme, dg.PartitionsDefinition | None]) -> list[dg.UnresolvedAssetJobDefinition]:
    """A job a level, named after it, over the level's assets and their checks."""
    return [
        dg.define_asset_job(
            name=level.name,
            selection=dg.AssetSelection.assets(*(stage.name for stage in level.stages)),
            partitions_def=by_scheme[level.scheme],
            description=level.description,
        )
        for level in LEVELS
    ]
