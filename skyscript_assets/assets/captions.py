"""What is said of each chip: `caption_rules`, `captions`."""

from __future__ import annotations

import shutil
from typing import Any

import dagster as dg

from skyscript_assets import metadata
from skyscript_assets.lib.captions.rules import read_rules
from skyscript_assets.lib.captions.write import CAPTION_SCHEMA, write_captions
from skyscript_assets.lib.chips.sheet import sheet_preview
from skyscript_assets.lib.files import file_sha256
from skyscript_assets.lib.settings.load import Settings, packaged_or_path
from skyscript_assets.lib.tables import read_table
from skyscript_assets.stages import Counts, Parts, Scheme, StageRun, stage


def _reads_rules(settings: Settings, parts: Parts) -> Any:  # noqa: ARG001
    return file_sha256(packaged_or_path(settings, settings.plant.captions.rules))


@stage(Scheme.SINGLE, group="captions", kinds=["yaml"], reads=_reads_rules)
def caption_rules(run: StageRun) -> Counts:
    """The rules that turn tags into phrases, as given by the settings."""
    path = packaged_or_path(run.settings, run.settings.plant.captions.rules)
    read_rules(path)
    shutil.copyfile(path, run.out / "caption_rules.yaml")
    return {"bytes": path.stat().st_size}


def _reads_captions(settings: Settings, parts: Parts) -> Any:  # noqa: ARG001
    return settings.plant.captions.model_dump(exclude={"rules"})


def _captions_preview(run: StageRun) -> dict[str, dg.MetadataValue]:
    table = read_table(run.out / "captions.parquet", columns=["chip_id", "title", "title_multi_objects"])
    shown = {"preview": metadata.rows(table)}
    chips, plan = run.input("image_chips"), run.input("chip_plan")
    told = dict(zip(table["chip_id"].to_pylist(), table["title_multi_objects"].to_pylist(), strict=True))
    sheet = sheet_preview(chips, plan, captions=told, limit_bytes=metadata.MAX_PREVIEW_BYTES)
    return shown | ({"contact sheet": metadata.image_bytes(sheet, "Chips and captions", "jpeg")} if sheet else {})


@stage(
    Scheme.REGION_SOURCE,
    group="captions",
    kinds=["parquet"],
    upstream=("chip_plan", "image_chips", "osm_objects", "sampling_snapshot", "caption_rules"),
    code_version="2",
    tables={"captions.parquet": CAPTION_SCHEMA},
    reads=_reads_captions,
    unique="chip_id",
    may_be_empty=True,
    preview=_captions_preview,
)
def captions(run: StageRun) -> Counts:
    """A single-object and a multi-object caption for each chip, of tags that can be seen in it, with their trace."""
    return vars(
        write_captions(
            run.input("chip_plan"),
            run.input("image_chips"),
            run.input("osm_objects") / "objects.parquet",
            run.input("sampling_snapshot"),
            run.input("caption_rules") / "caption_rules.yaml",
            run.settings.plant.captions,
            run.out,
            run.progress,
        )
    )
