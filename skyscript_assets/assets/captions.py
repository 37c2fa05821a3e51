"""What is said of each chip: `caption_rules`, `captions`."""

import shutil

import dagster as dg

from skyscript_assets import checks, metadata
from skyscript_assets.asset import Counts, asset
from skyscript_assets.lib.captions.audit import AUDIT_SCHEMA, write_verdicts
from skyscript_assets.lib.captions.rules import CaptionRules
from skyscript_assets.lib.captions.write import CAPTION_SCHEMA, CaptionInputs, write_captions
from skyscript_assets.lib.chips.sheet import sheet_preview
from skyscript_assets.lib.settings.base import STYLES, read_yaml
from skyscript_assets.lib.settings.load import GivenFile
from skyscript_assets.lib.settings.plant import CaptionSettings
from skyscript_assets.lib.tables import read_table
from skyscript_assets.partitions import Scheme
from skyscript_assets.provenance import Run


@asset(
    Scheme.SINGLE,
    group="captions",
    kinds=["yaml"],
    config=lambda settings, _: GivenFile.of(settings, "captions.rules", settings.plant.captions.rules),
)
def caption_rules(run: Run[GivenFile]) -> Counts:
    """The rules that turn tags into phrases, as given by the settings."""
    path = run.config.path
    read_yaml(path, CaptionRules)
    shutil.copyfile(path, run.out / "caption_rules.yaml")
    return {"bytes": path.stat().st_size}


SHOWN_OF = 4096
"""Captions of which the contact sheet shows some: all of a large partition need not be in memory."""


def _captions_preview(run: Run[CaptionSettings]) -> dict[str, dg.MetadataValue]:
    style = STYLES[-1]
    table = read_table(run.out / "captions.parquet", columns=["chip_id", style, "regions"])
    chips, plan = run.input("image_chips"), run.input("chip_plan")
    told = {
        row["chip_id"]: (row[style], [one["box"] for one in row["regions"] if not one["focus"]])
        for row in table.slice(0, SHOWN_OF).to_pylist()
    }
    sheet = sheet_preview(chips, plan, metadata.MAX_PREVIEW_BYTES, told)
    shown = {"contact sheet": metadata.image_bytes(sheet, "Chips and captions", "jpeg")} if sheet else {}
    return shown | {"preview": metadata.rows(table.drop(["regions"]))}


@asset(
    Scheme.REGION_SOURCE,
    group="captions",
    upstream=("chip_plan", "image_chips", "osm_objects", "sampling_snapshot", "caption_rules"),
    code_version="7",
    tables={"captions.parquet": CAPTION_SCHEMA},
    columns_from={"image_chips": ["chip_id"]},
    config=lambda settings, _: settings.plant.captions,
    unique="chip_id",
    empty="warns",
    more_checks=(checks.PROVEN,),
    preview=_captions_preview,
)
def captions(run: Run[CaptionSettings]) -> Counts:
    """Captions of each chip in every style, of tags that can be seen in it, with their trace and regions."""
    inputs = CaptionInputs(
        plan=run.input("chip_plan"),
        chips=run.input("image_chips"),
        objects=run.input("osm_objects") / "objects.parquet",
        snapshot=run.input("sampling_snapshot"),
        rules=run.input("caption_rules") / "caption_rules.yaml",
    )
    return write_captions(inputs, run.config, run.out, run.progress)


@asset(
    Scheme.SINGLE,
    group="captions",
    upstream=("captions",),
    after=("chip_plan", "image_chips", "clip_scores", "benchmark_data"),
    tables={"audit.parquet": AUDIT_SCHEMA},
    empty="passes",
    config=lambda settings, _: [
        GivenFile.of(settings, "captions.verdicts", name) for name in settings.plant.captions.verdicts
    ],
    preview=lambda run: {"verdicts": metadata.parquet_rows(run.out / "audit.parquet")},
)
def caption_audit(run: Run[list[GivenFile]]) -> Counts:
    """What readers say of captions: the share that is right, its interval, kinds of faults (`skyscript audit`)."""
    return write_verdicts([file.path for file in run.config], run.folders("captions").values(), run.out)
