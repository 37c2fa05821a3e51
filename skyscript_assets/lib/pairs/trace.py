"""What became of one object: its tags, each source's plan, chip, captions, score, and place in the manifest.

Tables are asked for single rows by DuckDB. A plan does not say of each object why it has no chip: that is found by
planning the object alone.
"""

import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.compute as pc

from skyscript_assets.lib.chips.plan import PLAN_FILE, Ground, PlanInputs, PlanRules
from skyscript_assets.lib.chips.plan_report import REPORT_FILE
from skyscript_assets.lib.chips.planning import write_plan
from skyscript_assets.lib.chips.sampling import longer_sides_m, match_tags, read_snapshot, told
from skyscript_assets.lib.errors import CorruptInputError, SkyScriptError
from skyscript_assets.lib.osm.objects import OBJECT_SCHEMA
from skyscript_assets.lib.osm.sight import out_of_sight
from skyscript_assets.lib.tables import read_table, write_table
from skyscript_assets.lib.tags.normalise import normal_values
from skyscript_assets.lib.tags.snapshot import SNAPSHOT_FILE, TAGS_FILE
from skyscript_assets.lib.tags.text import text_reason
from skyscript_assets.lib.tags.vocabulary import limits_px

Materials = tuple[Ground, PlanInputs, PlanRules]
"""What a plan is made from."""

DROPPED = {
    "outside": "no scene holds the whole tile",
    "season": "the source's choice refuses the months of the scenes over it",
    "cloud": "the source's choice refuses the cloud of the scenes over it",
    "date": "the scenes over it are too many years from the map for the source's choice",
    "size": "it does not fit a tile of the wanted size",
    "split": "every tile tried touches two splits",
}
"""What the reasons of `plan.PlanSummary.dropped` mean."""

_ID = re.compile(r"([nwar])(\d{1,18})(_.+)?")
_KINDS = {"n": "node", "w": "line", "a": "area", "r": "area"}
_LATER = {
    "image": ("chips.parquet", "image_chips"),
    "failure": ("failures.parquet", "image_chips"),
    "captions": ("captions.parquet", "captions"),
    "score": ("scores.parquet", "clip_scores"),
}


@dataclass(frozen=True)
class Made:
    """Where to look: which sources may cover each region, and functions that give None where something is not made.

    `folder` gives an output's folder by asset and partition keys, `planned_from` what a plan of a region and source
    would be made from now.
    """

    sources: Mapping[str, Sequence[str]]
    folder: Callable[..., Path | None]
    planned_from: Callable[[str, str], Materials | None]

    def rows(self, name: str, column: str, values: Sequence[str], *output: str) -> list[dict[str, Any]]:
        """The rows of an output's table with one of some values, without geometry; none where it is not made."""
        folder = self.folder(*output)
        if folder is None:
            return []
        # Equality reaches the reader, which then leaves the other columns of other rows unread.
        query = f"SELECT COLUMNS(lambda c: c <> 'geometry') FROM read_parquet(?) WHERE {column} = ?"  # noqa: S608
        with duckdb.connect() as db:
            tables = [db.sql(query, params=[str(folder / name), value]).to_arrow_table() for value in values]
        return [row for table in tables for row in table.to_pylist(maps_as_pydicts="lossy")]


def trace(asked: str, made: Made) -> dict[str, Any]:
    """All that is known of an object, or of a chip and its object; the id of a way finds lines and areas.

    Returns `id`; `objects`, one for each region that holds it; `tags`, with who decided on each and what; `sources`,
    what became of it in each: `outcome`, `why`, `draws` of its tags, `chips` with the rows of all later tables.

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
            for row in made.rows("objects.parquet", "object_id", ids, "osm_objects", region)
        ]
        if not rows:
            raise SkyScriptError(_nowhere(ids, made))
        sources = [_in_source(region, source, row, made) for region, row in rows for source in made.sources[region]]
        mine = [
            one | {"chips": [chip]} for one in sources for chip in one["chips"] if is_chip and chip["chip_id"] == asked
        ]
        objects = [_object(region, row, made) for region, row in rows]
        return {"id": asked, "objects": objects, "tags": _tags(rows[0][1], made), "sources": mine or sources}
    except duckdb.Error as error:
        raise CorruptInputError(f"a table cannot be read ({error}); materialize its asset again") from error


def _nowhere(ids: Sequence[str], made: Made) -> str:
    told = [
        f"{row['object_id']} of region {region} has no valid geometry ({row['reason']})"
        for region in made.sources
        for row in made.rows("invalid.parquet", "object_id", ids, "osm_objects", region)
    ]
    missing = [region for region in made.sources if made.folder("osm_objects", region) is None]
    searched = ", ".join(region for region in made.sources if region not in missing)
    told = told or [f"there is no object {' or '.join(ids)} in {searched or 'any region'}"]
    return "; ".join([*told, *(f"osm_objects/{region} is not made: skyscript run" for region in missing)])


def _object(region: str, row: Mapping[str, Any], made: Made) -> dict[str, Any]:
    box, object_id = row["bbox"], row["object_id"]
    owners = made.rows("overlap.parquet", "object_id", [object_id], "region_overlap", region)
    return {
        **row,
        "region": region,
        "belongs_to": owners[0]["owner"] if owners else region,
        "kind": _KINDS[object_id[0]],
        "lat": (box["ymin"] + box["ymax"]) / 2,
        "lon": (box["xmin"] + box["xmax"]) / 2,
        "osm": f"https://www.openstreetmap.org/{row['osm_type']}/{row['osm_id']}",
    }


def _tags(row: Mapping[str, Any], made: Made) -> list[dict[str, Any]]:
    """Each tag in its normal spelling, with the decision on it; plans go by `frozen_gsd_m`, that of the snapshot."""
    keys = sorted(row["tags"])
    decided, frozen = (
        {(one["key"], one["value"]): one for one in made.rows(name, "key", keys, asset)}
        for asset, name in (("tag_groundability", "groundability.parquet"), ("sampling_snapshot", TAGS_FILE))
    )
    return [
        {
            "key": tag[0],
            "value": tag[1],
            "not_used_as": text_reason(*tag),
            **{name: decided.get(tag, {}).get(name) for name in ("decided_by", "p_visible", "coarsest_gsd_m")},
            "frozen_gsd_m": frozen.get(tag, {}).get("coarsest_gsd_m"),
        }
        for tag in _normal(row)
    ]


def _normal(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(key, value) for key, raw in sorted(row["tags"].items()) for value in normal_values(raw)]


def _in_source(region: str, source: str, row: Mapping[str, Any], made: Made) -> dict[str, Any]:
    pair = (region, source)
    planned = made.rows(PLAN_FILE, "object_id", [row["object_id"]], "chip_plan", *pair)
    told = {"region": region, "source": source, "draws": [], "chips": [_chip(one, made) for one in planned]}
    plan, materials = made.folder("chip_plan", *pair), made.planned_from(*pair)
    if planned:
        return told | {"outcome": "planned", "why": None}
    if plan is None or materials is None:
        return told | {"outcome": "waiting", "why": "no plan is made yet"}
    try:
        with tempfile.TemporaryDirectory() as folder:
            return told | _planned_alone(row, materials, plan, Path(folder))
    except SkyScriptError as error:
        return told | {"outcome": "unknown", "why": str(error)}


def _chip(planned: Mapping[str, Any], made: Made) -> dict[str, Any]:
    """A row of the plan with those of the later tables, None where there is none."""
    ids, pair = [planned["chip_id"]], (planned["region"], planned["source"])
    later = {what: made.rows(name, "chip_id", ids, asset, *pair) for what, (name, asset) in _LATER.items()}
    later["manifest"] = made.rows("manifest.parquet", "chip_id", ids, "training_manifest")
    return {**planned, **{what: found[0] if found else None for what, found in later.items()}}


def _planned_alone(row: Mapping[str, Any], materials: Materials, plan: Path, folder: Path) -> dict[str, Any]:
    """Why an object has no chip: what `write_plan` makes of it alone. All else that decides is as in its region."""
    ground, inputs, rules = materials
    with duckdb.connect() as db:
        db.execute("SET enable_geoparquet_conversion = false")
        found = db.sql("FROM read_parquet(?) WHERE object_id = ?", params=[str(inputs.objects), row["object_id"]])
        one = found.to_arrow_table().cast(OBJECT_SCHEMA)
        last_edit = db.sql("SELECT max(timestamp) FROM read_parquet(?)", params=[str(inputs.objects)]).fetchall()[0][0]
    ids = read_table(inputs.objects, columns=["object_id"])["object_id"]
    hidden = out_of_sight(inputs.objects)[pc.equal(ids, row["object_id"]).to_numpy()].any()
    write_table(folder / "objects.parquet", one)
    ground = replace(ground, data_time=ground.data_time or last_edit)
    report, snapshot = read_table(plan / REPORT_FILE), read_snapshot(inputs.snapshot, ground.region)
    if report.num_rows and not snapshot.counts:
        # The plan of a region that the snapshot does not know counted all its objects, which its report tells.
        write_table(folder / SNAPSHOT_FILE, report)
        write_table(folder / TAGS_FILE, read_table(inputs.snapshot / TAGS_FILE))
        inputs, ground = replace(inputs, snapshot=folder), replace(ground, gsd_m=report["gsd_m"][0].as_py())
    summary = write_plan(ground, replace(inputs, objects=folder / "objects.parquet"), rules, folder)
    draws = [tag for tag in read_table(folder / REPORT_FILE).to_pylist() if (tag["key"], tag["value"]) in _normal(row)]
    side_px = float(longer_sides_m(one["bbox"])[0]) / ground.gsd_m
    least, most = limits_px(_KINDS[row["object_id"][0]], rules.plan)
    if summary.elsewhere:
        outcome, why = "elsewhere", "another region plans it, or it is centred outside the region's box"
    elif not summary.scenes:
        outcome, why = "no scene", "the source has no scene over the region"
    elif hidden:
        outcome, why = "hidden", "it lies below ground, a roof or trees or in a building, or is planned or gone"
    elif summary.planned:
        outcome = "not in the plan"
        why = "alone it would be planned: a chip near it shows much the same, or the plan was made from something else"
    elif summary.drawn:
        (outcome,) = summary.dropped
        why = DROPPED[outcome]
    elif not snapshot.visible(ground.gsd_m)[told(match_tags(one["tags"], snapshot), one, snapshot).tags].any():
        outcome, why = "not visible", f"none of its tags can be told of it at {ground.gsd_m:g} m"
    elif not least <= side_px <= most:
        outcome = "size"
        why = f"its longer side has {side_px:.0f} px at {ground.gsd_m:g} m, wanted: {least:g} to {most:g}"
    else:
        outcome, why = "not drawn", "the sampling drew it for none of its tags"
    return {"outcome": outcome, "why": why, "draws": draws}
