"""What became of one object: its tags, each source's plan, chip, captions, score, and place in the manifest.

Tables are asked for single rows by DuckDB. A plan does not say of each object why it has no chip: that is found by
planning the object alone.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import duckdb

from skyscript_assets.lib.captions.write import CAPTIONS_FILE
from skyscript_assets.lib.chips.cut import CHIPS_FILE
from skyscript_assets.lib.chips.failures import FAILURES_FILE
from skyscript_assets.lib.chips.plan import PLAN_FILE, Ground, PlanInputs, PlanRules
from skyscript_assets.lib.chips.plan_report import REPORT_FILE
from skyscript_assets.lib.chips.planning import write_plan
from skyscript_assets.lib.chips.sampling import longer_sides_m, match_tags, read_snapshot
from skyscript_assets.lib.errors import CorruptInputError, SkyScriptError
from skyscript_assets.lib.osm.objects import OBJECT_SCHEMA
from skyscript_assets.lib.osm.region_overlap import OVERLAP_FILE
from skyscript_assets.lib.tables import read_table, write_table
from skyscript_assets.lib.tags.groundability import GROUNDABILITY_FILE
from skyscript_assets.lib.tags.normalise import normal_values
from skyscript_assets.lib.tags.snapshot import SNAPSHOT_FILE, TAGS_FILE
from skyscript_assets.lib.tags.text import text_reason
from skyscript_assets.lib.tags.vocabulary import limits_px

_ID = re.compile(r"([nwar])(\d{1,18})(_.+)?")
_KINDS = {"n": "node", "w": "line", "a": "area", "r": "area"}
_LATER = {
    "image": ("image_chips", CHIPS_FILE),
    "failure": ("image_chips", FAILURES_FILE),
    "captions": ("captions", CAPTIONS_FILE),
    "score": ("clip_scores", "scores.parquet"),
}

DROPPED = {
    "outside": "no scene holds the whole tile",
    "season": "the source's choice refuses the months of the scenes over it",
    "cloud": "the source's choice refuses the cloud of the scenes over it",
    "date": "the scenes over it are too many years from the map for the source's choice",
    "size": "it does not fit a tile of the wanted size",
    "split": "every tile tried touches two splits",
}
"""What the reasons of `plan.PlanSummary.dropped` mean."""


@dataclass(frozen=True)
class Made:
    """Where to look.

    Attributes:
        sources: Region -> the sources that may cover it.
        folder: Asset and partition keys -> the output's folder, None where it is not made.
        planned_from: Region and source -> what a plan would be made from now, None where some of that is not made.
    """

    sources: Mapping[str, Sequence[str]]
    folder: Callable[..., Path | None]
    planned_from: Callable[[str, str], tuple[Ground, PlanInputs, PlanRules] | None]


def trace(asked: str, made: Made) -> dict[str, Any]:
    """All that is known of an object, or of a chip and its object.

    Args:
        asked: An object's id, or a chip's; w and r find areas too.
        made: Where to look.

    Returns:
        `id`; `objects`, one for each region that holds it; `tags`, with who decided on each and what; `sources`, what
        became of it in each: `outcome`, `why`, `draws` of its tags, `chips` with the rows of all later tables.

    Raises:
        SkyScriptError: this is no id, or nothing has it; the message tells where it was looked for.
        CorruptInputError: a table cannot be read.
    """
    found = _ID.fullmatch(asked)
    if found is None:
        raise SkyScriptError(
            f"{asked!r} is no object's id (n, w, a or r and a number, such as w123456) and no chip's (chip_id in the "
            "tables of image_chips and later ones)"
        )
    letter, number, is_chip = found.groups()
    ids = [f"{each}{number}" for each in ("wa" if letter == "w" and not is_chip else letter)]
    try:
        rows = [
            (region, row)
            for region in made.sources
            for row in _rows(made, "objects.parquet", ids, "osm_objects", region)
        ]
        if not rows:
            raise SkyScriptError(_nowhere(ids, made))
        sources = [_in_source(region, source, row, made) for region, row in rows for source in made.sources[region]]
        return {
            "id": asked,
            "objects": [_object(region, row, made) for region, row in rows],
            "tags": _tags(rows[0][1], made),
            "sources": [one for one in sources if not is_chip or _only(one, asked)] or sources,
        }
    except duckdb.Error as error:
        raise CorruptInputError(f"a table cannot be read ({error}); materialize its asset again") from error


def _only(told: dict[str, Any], chip_id: str) -> bool:
    """Whether a source has a chip, whose others are left out then."""
    mine = [chip for chip in told["chips"] if chip["chip_id"] == chip_id]
    told["chips"] = mine or told["chips"]
    return bool(mine)


def _rows(
    made: Made, name: str, values: Sequence[str], *output: str, column: str = "object_id"
) -> list[dict[str, Any]]:
    """The rows of an output's table that have one of some values, without geometry; none where it is not made."""
    folder = made.folder(*output)
    if folder is None:
        return []
    # Equality reaches the reader, which then leaves the other columns of other rows unread.
    query = f"SELECT COLUMNS(lambda c: c <> 'geometry') FROM read_parquet(?) WHERE {column} = ?"  # noqa: S608
    with duckdb.connect() as db:
        tables = [db.sql(query, params=[str(folder / name), value]).to_arrow_table() for value in values]
    return [row for table in tables for row in table.to_pylist(maps_as_pydicts="lossy")]


def _nowhere(ids: Sequence[str], made: Made) -> str:
    told = [
        f"{row['object_id']} of region {region} has no valid geometry ({row['reason']})"
        for region in made.sources
        for row in _rows(made, "invalid.parquet", ids, "osm_objects", region)
    ]
    missing = [region for region in made.sources if made.folder("osm_objects", region) is None]
    searched = ", ".join(region for region in made.sources if region not in missing)
    told = told or [f"there is no object {' or '.join(ids)} in {searched or 'any region'}"]
    return "; ".join([*told, *(f"osm_objects/{region} is not made: skyscript run" for region in missing)])


def _object(region: str, row: Mapping[str, Any], made: Made) -> dict[str, Any]:
    box, object_id = row["bbox"], row["object_id"]
    owner = [one["owner"] for one in _rows(made, OVERLAP_FILE, [object_id], "region_overlap", region)]
    return {
        "region": region,
        "belongs_to": owner[0] if owner else region,
        "kind": _KINDS[object_id[0]],
        "lat": (box["ymin"] + box["ymax"]) / 2,
        "lon": (box["xmin"] + box["xmax"]) / 2,
        "osm": f"https://www.openstreetmap.org/{row['osm_type']}/{row['osm_id']}",
        **{name: row[name] for name in ("object_id", "version", "timestamp", "tags", "area_m2", "length_m")},
    }


def _tags(row: Mapping[str, Any], made: Made) -> list[dict[str, Any]]:
    """Each tag in its normal spelling, with the decision on it; plans go by `frozen_gsd_m`, that of the snapshot."""
    pairs = [(key, value) for key, raw in sorted(row["tags"].items()) for value in normal_values(raw)]
    decided, frozen = (
        {(one["key"], one["value"]): one for one in _rows(made, name, sorted(row["tags"]), asset, column="key")}
        for asset, name in (("tag_groundability", GROUNDABILITY_FILE), ("sampling_snapshot", TAGS_FILE))
    )
    return [
        {
            "key": key,
            "value": value,
            "not_used_as": text_reason(key, value),
            **{name: decided.get((key, value), {}).get(name) for name in ("decided_by", "p_visible", "coarsest_gsd_m")},
            "frozen_gsd_m": frozen.get((key, value), {}).get("coarsest_gsd_m"),
        }
        for key, value in pairs
    ]


def _in_source(region: str, source: str, row: Mapping[str, Any], made: Made) -> dict[str, Any]:
    planned = _rows(made, PLAN_FILE, [row["object_id"]], "chip_plan", region, source)
    told = {"region": region, "source": source, "chips": [_chip(one, made) for one in planned], "draws": []}
    plan, materials = made.folder("chip_plan", region, source), made.planned_from(region, source)
    if planned:
        return told | {"outcome": "planned", "why": None}
    if plan is None or materials is None:
        return told | {"outcome": "waiting", "why": "no plan is made yet"}
    try:
        with tempfile.TemporaryDirectory() as folder:
            return told | _planned_alone(row, materials, plan, Path(folder))
    except SkyScriptError as error:
        return told | {"outcome": "unknown", "why": str(error)}


def _planned_alone(
    row: Mapping[str, Any], materials: tuple[Ground, PlanInputs, PlanRules], plan: Path, folder: Path
) -> dict[str, Any]:
    """Why an object has no chip: what `write_plan` makes of it alone. All else that decides is as in its region."""
    ground, inputs, rules = materials
    with duckdb.connect() as db:
        db.execute("SET enable_geoparquet_conversion = false")
        found = db.sql("FROM read_parquet(?) WHERE object_id = ?", params=[str(inputs.objects), row["object_id"]])
        one = found.to_arrow_table().cast(OBJECT_SCHEMA)
        last_edit = db.sql("SELECT max(timestamp) FROM read_parquet(?)", params=[str(inputs.objects)]).fetchall()[0][0]
    write_table(folder / "objects.parquet", one)
    ground = replace(ground, data_time=ground.data_time or last_edit)
    report, snapshot = read_table(plan / REPORT_FILE), read_snapshot(inputs.snapshot, ground.region)
    if report.num_rows and not snapshot.counts:
        # The plan of a region that the snapshot does not know counted all its objects, which its report tells.
        write_table(folder / SNAPSHOT_FILE, report)
        write_table(folder / TAGS_FILE, read_table(inputs.snapshot / TAGS_FILE))
        inputs, ground = replace(inputs, snapshot=folder), replace(ground, gsd_m=report["gsd_m"][0].as_py())
    summary = write_plan(ground, replace(inputs, objects=folder / "objects.parquet"), rules, folder)
    tags = {(key, value) for key, raw in row["tags"].items() for value in normal_values(raw)}
    draws = [tag for tag in read_table(folder / REPORT_FILE).to_pylist() if (tag["key"], tag["value"]) in tags]
    side_px = float(longer_sides_m(one["bbox"])[0]) / ground.gsd_m
    least, most = limits_px(_KINDS[row["object_id"][0]], rules.plan)
    if summary.elsewhere:
        outcome, why = "elsewhere", "another region plans it, or it is centred outside the region's box"
    elif not summary.scenes:
        outcome, why = "no scene", "the source has no scene over the region"
    elif summary.planned:
        outcome, why = "not in the plan", "it would be planned now: the plan was made from something else"
    elif summary.drawn:
        (outcome,) = summary.dropped
        why = DROPPED[outcome]
    elif not snapshot.visible(ground.gsd_m)[match_tags(one["tags"], snapshot).tags].any():
        outcome, why = "not visible", f"none of its tags can be seen at {ground.gsd_m:g} m"
    elif not least <= side_px <= most:
        outcome, why = (
            "size",
            f"its longer side has {side_px:.0f} px at {ground.gsd_m:g} m, wanted: {least:g} to {most:g}",
        )
    else:
        outcome, why = "not drawn", "the quota of none of its tags drew it"
    return {"outcome": outcome, "why": why, "draws": draws}


def _chip(planned: Mapping[str, Any], made: Made) -> dict[str, Any]:
    """A row of the plan with those of the later tables, None where there is none."""
    ids, pair = [planned["chip_id"]], (planned["region"], planned["source"])
    later = {what: _rows(made, name, ids, asset, *pair, column="chip_id") for what, (asset, name) in _LATER.items()}
    later["manifest"] = _rows(made, "manifest.parquet", ids, "training_manifest", column="chip_id")
    return {**planned, **{what: found[0] if found else None for what, found in later.items()}}
