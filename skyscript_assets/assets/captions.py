"""What is said of each chip: `caption_rules`, `captions`."""

from __future__ import annotations

import shutil

import dagster as dg

from skyscript_assets import metadata
from skyscript_assets.asset import Counts, asset
from skyscript_assets.lib.captions.rules import CaptionRules
from skyscript_assets.lib.captions.write import CAPTION_SCHEMA, write_captions
from skyscript_assets.lib.chips.sheet import sheet_preview
from skyscript_assets.lib.settings.base import read_yaml
from skyscript_assets.lib.settings.load import GivenFile
from skyscript_assets.lib.settings.plant import CaptionSettings
from skyscript_assets.lib.tables import read_table
from skyscript_assets.partitions import Scheme
from skyscript_assets.provenance import Run


@asset(
    Scheme.SINGLE,
    group="captions",
    kinds=["yaml"],
    config=lambda settings, _: GivenFile.of(settings, settings.plant.captions.rules),
)
def caption_rules(run: Run[GivenFile]) -> Counts:
    """The rules that turn tags into phrases, as given by the settings."""
    path = run.config.path
    read_yaml(path, CaptionRules)
    shutil.copyfile(path, run.out / "caption_rules.yaml")
    return {"bytes": path.stat().st_size}


def _captions_preview(run: Run[CaptionSettings]) -> dict[str, dg.MetadataValue]:
    table = read_table(run.out / "captions.parquet", columns=["chip_id", "title", "title_multi_objects"])
    chips, plan = run.input("image_chips"), run.input("chip_plan")
    told = dict(zip(table["chip_id"].to_pylist(), table["title_multi_objects"].to_pylist(), strict=True))
    sheet = sheet_preview(chips, plan, metadata.MAX_PREVIEW_BYTES, told)
    shown = {"contact sheet": metadata.image_bytes(sheet, "Chips and captions", "jpeg")} if sheet else {}
    return shown | {"preview": metadata.rows(table)}


@asset(
    Scheme.REGION_SOURCE,
    group="captions",
    kinds=["parquet"],
    upstream=("chip_plan", "image_chips", "osm_objects", "sampling_snapshot", "caption_rules"),
    code_version="6",
    tables={"captions.parquet": CAPTION_SCHEMA},
    columns_from={"image_chips": ["chip_id"]},
    config=lambda settings, _: settings.plant.captions,
    unique="chip_id",
    empty="warns",
    preview=_captions_preview,
)
def captions(run: Run[CaptionSettings]) -> Counts:
    """A single-object and a multi-object caption for each chip, of tags that can be seen in it, with their trace."""
    return vars(
        write_captions(
            run.input("chip_plan"),
            run.input("image_chips"),
            run.input("osm_objects") / "objects.parquet",
            run.input("sampling_snapshot"),
            run.input("caption_rules") / "caption_rules.yaml",
            run.config,
            run.out,
            run.progress,
        )
    )
