"""One job for each level of the pipeline: a run cannot cross partition schemes, so a level is as far as one goes.

Across levels, use an asset backfill in the UI, or `skyscript run`, which walks the levels in this order.
"""

from __future__ import annotations

import dagster as dg

from skyscript_assets.assets import LEVELS

JOBS = {
    level.name: dg.define_asset_job(
        name=level.name,
        selection=dg.AssetSelection.assets(*(stage.name for stage in level.stages)),
        description=level.description,
    )
    for level in LEVELS
}
"""A job a level, named after it, over the level's assets and their checks; partitions are those of the assets."""
