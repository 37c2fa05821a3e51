"""The captions that SkyScript's paper prints, and those of its dataset that are known, through the stages."""

import datetime as dt
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.sax.saxutils import quoteattr

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from pyproj import Transformer

from skyscript_assets.lib.captions.compose import compose, trace
from skyscript_assets.lib.captions.phrases import as_neighbour, phrases
from skyscript_assets.lib.captions.rules import CaptionRules
from skyscript_assets.lib.captions.write import CAPTION_SCHEMA, CaptionInputs, write_captions
from skyscript_assets.lib.chips.plan import PLAN_SCHEMA, Ground, PlanInputs, PlanRules
from skyscript_assets.lib.chips.planning import write_plan
from skyscript_assets.lib.imagery.scenes import Scene, write_scenes
from skyscript_assets.lib.osm.extract import stage_extract
from skyscript_assets.lib.osm.meaning import is_hidden
from skyscript_assets.lib.osm.objects import write_objects
from skyscript_assets.lib.osm.region_overlap import write_region_overlap
from skyscript_assets.lib.settings.base import SENTENCES, BBox, CaptionPolicy, read_yaml
from skyscript_assets.lib.settings.load import PACKAGED_PROFILES, load_settings
from skyscript_assets.lib.settings.plant import CaptionSettings, PlanSettings
from skyscript_assets.lib.settings.regions import Region
from skyscript_assets.lib.tables import TAGS_TYPE, read_table, rows_to_table, write_table
from skyscript_assets.lib.tags.embedding import load_encoder
from skyscript_assets.lib.tags.groundability import LabelFiles, decide_groundability
from skyscript_assets.lib.tags.normalise import normal_values
from skyscript_assets.lib.tags.snapshot import freeze_snapshot
from skyscript_assets.lib.tags.vocabulary import count_vocabulary

pytestmark = pytest.mark.integration

RULES = PACKAGED_PROFILES / "caption_rules.yaml"
GSD, SIDE = 0.1, 20_000
LEFT, TOP = 500_000.0, 5_250_000.0
NODES = 10
"""Most nodes of an object: their ids follow its own times this."""

TO_DEGREES = Transformer.from_crs("EPSG:32632", 4326, always_xy=True)


class Example(NamedTuple):
    """An object and what lies around it, metres to the east and south of a place of their own, with its captions."""

    tags: dict[str, str]
    shape: shapely.Geometry
    around: Sequence[tuple[dict[str, str], shapely.Geometry]]
    title: str
    multi: str
    ours: str


EXAMPLES = (
    Example(
        {"landuse": "quarry", "resource": "bauxite"},
        shapely.box(0, 0, 50, 50),
        (),
        "landuse of quarry, resource of bauxite",
        "landuse of quarry with resource of bauxite",
        "landuse of quarry",
    ),
    Example(
        {"amenity": "fountain"},
        shapely.box(0, 0, 6, 6),
        [
            *(({"natural": "tree"}, shapely.Point(1 + i, -1)) for i in range(5)),
            ({"highway": "footway"}, shapely.LineString([(0, -0.5), (6, -0.5)])),
        ],
        "amenity of fountain",
        "amenity of fountain, surrounded by natural tree; road of footway",
        "amenity of fountain, surrounded by natural tree; road of footway",
    ),
    Example(
        {"power": "plant", "plant:source": "solar", "plant:method": "thermal", "plant:output:electricity": "19.9 MW"},
        shapely.box(0, 0, 60, 40),
        (),
        "power plant, plant source of solar, plant method of thermal, plant output electricity of 19.9 MW",
        "power plant with plant source of solar and plant method of thermal and plant output electricity of 19.9 MW",
        "power plant",
    ),
    Example(
        {"power": "pole"},
        shapely.Point(0, 0),
        [({"power": "minor_line", "cables": "3", "voltage": "16000"}, shapely.LineString([(-40, 0), (40, 0)]))],
        "power pole",
        "power pole, surrounded by power minor line with cables of 3 and voltage of 16000",
        "power pole, surrounded by power minor line",
    ),
    Example(
        {"man_made": "pier"},
        shapely.box(0, 0, 30, 4),
        [({"waterway": "river"}, shapely.LineString([(15, -60), (15, 60)]))],
        "man made pier",
        "man made pier, surrounded by waterway of river",
        "man made pier, surrounded by waterway of river",
    ),
    Example(
        {"landuse": "farmland", "crop": "cotton"},
        shapely.box(0, 0, 60, 60),
        (),
        "landuse of farmland, crop of cotton",
        "landuse of farmland with crop of cotton",
        "landuse of farmland",
    ),
    Example(
        {"building": "yes", "office": "energy_supplier"},
        shapely.box(0, 0, 30, 20),
        (),
        "building, office of energy supplier",
        "building with office of energy supplier",
        "building",
    ),
)


def osm_file(path: Path) -> Path:
    """An extract with the examples 200 m apart; the first object of each has the number 1, 101, 201 ..."""
    nodes, ways = "", ""
    for number, example in enumerate(EXAMPLES):
        for i, (tags, shape) in enumerate([(example.tags, example.shape), *example.around]):
            object_id = 100 * number + i + 1
            area = {"area": "yes"} if shape.geom_type == "Polygon" else {}
            inner = "".join(f"<tag k={quoteattr(k)} v={quoteattr(v)}/>" for k, v in (tags | area).items())
            east, south = shapely.get_coordinates(shape).T
            lon, lat = TO_DEGREES.transform(LEFT + 200 * (number + 1) + east, TOP - 1000 - south)
            ids = [NODES * object_id + n for n in range(len(lon) - len(area))]
            for one, x, y in zip(ids, lon, lat, strict=False):
                nodes += f'<node id="{one}" version="1" lat="{y}" lon="{x}">{inner if len(lon) == 1 else ""}</node>'
            if len(lon) > 1:
                refs = "".join(f'<nd ref="{one}"/>' for one in ids + ids[: len(area)])
                ways += f'<way id="{object_id}" version="1">{refs}{inner}</way>'
    path.write_text(f'<osm version="0.6">{nodes}{ways}</osm>', encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, demo_packages: None) -> Path:
    """The stages up to the plan, of the examples in one imagined scene of 0.1 m."""
    folder = tmp_path_factory.mktemp("paper")
    demo = load_settings(PACKAGED_PROFILES / "demo")
    west, south = TO_DEGREES.transform(LEFT, TOP - SIDE * GSD)
    east, north = TO_DEGREES.transform(LEFT + SIDE * GSD, TOP)
    bbox = BBox(west=west, south=south, east=east, north=north)
    stage_extract("here", Region(title="Here", path=str(osm_file(folder / "p.osm")), bbox=bbox), demo.shared, folder)
    write_objects(folder, folder)
    objects = folder / "objects.parquet"
    plan = PlanSettings(snapshot="s", quota=1000, max_overlap=1)
    count_vocabulary({"here": objects}, [GSD], plan.sizes, folder)
    encode = load_encoder(demo.plant.tags.encoder, demo.weights, demo.bases)
    decide_groundability(folder, LabelFiles(PACKAGED_PROFILES / "tag_labels.csv"), encode, demo.plant.tags, folder)
    freeze_snapshot(folder, folder, folder)
    facts = {"scene_id": "one", "region": "here", "source": "S", "fingerprint": "f", "licence": "none"}
    ground = {"gsd_m": GSD, "crs": "EPSG:32632", "transform": (GSD, 0.0, LEFT, 0.0, -GSD, TOP)}
    write_scenes(
        folder,
        [
            Scene(
                **facts,
                **ground,
                datetime=dt.datetime(2020, 1, 1, tzinfo=dt.UTC),
                footprint=shapely.box(*bbox.bounds),
                width=SIDE,
                height=SIDE,
                hrefs=("none.tif",),
                attribution="none",
            )
        ],
    )
    write_region_overlap("here", bbox.bounds, objects, {}, folder)
    inputs = PlanInputs(objects, folder / "overlap.parquet", folder, folder)
    write_plan(Ground("here", "S", bbox.bounds, GSD), inputs, PlanRules(plan, 8), folder)
    accept(folder)
    return folder


def accept(folder: Path) -> None:
    """Every chip of the plan as if it had been cut."""
    ids = read_table(folder / "plan.parquet", PLAN_SCHEMA)["chip_id"]
    pq.write_table(pa.table({"chip_id": ids, "status": ["ok"] * len(ids)}), folder / "chips.parquet")


def captions(folder: Path, out: Path, **settings: Any) -> dict[int, dict[str, Any]]:
    """Captions by the number of the focus object."""
    inputs = CaptionInputs(folder, folder, folder / "objects.parquet", folder, RULES)
    write_captions(inputs, CaptionSettings(**settings), out)
    plan = read_table(folder / "plan.parquet", PLAN_SCHEMA).to_pylist()
    ids = {chip["chip_id"]: (chip["object_id"][0], int(chip["object_id"][1:])) for chip in plan}
    number = {chip_id: osm_id // NODES if letter == "n" else osm_id for chip_id, (letter, osm_id) in ids.items()}
    return {number[row["chip_id"]]: row for row in read_table(out / "captions.parquet", CAPTION_SCHEMA).to_pylist()}


@pytest.mark.parametrize("policy", ["paper", "ours"])
def test_the_captions_that_the_paper_prints_come_out_of_the_stages(
    made: Path, tmp_path: Path, policy: CaptionPolicy
) -> None:
    told = captions(made, tmp_path, policy=policy)
    for number, example in enumerate(EXAMPLES):
        row = told[100 * number + 1]
        if policy == "paper":
            assert (row["title"], row["title_multi_objects"]) == (example.title, example.multi)
        else:
            assert row["title_multi_objects"] == example.ours


def known(shared_data: Path) -> list[dict[str, Any]]:
    """Captions of the published dataset, taken apart into tags."""
    lines = (shared_data / "skyscript" / "captions.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def theirs(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each known caption's objects side by side in a chip of its own, and a snapshot to which all their tags show."""
    folder = tmp_path_factory.mktemp("theirs")
    objects, chips, seen = [], [], set[tuple[str, str]]()
    for number, one in enumerate(known(shared_data)):
        west = LEFT + 100 * number
        for i, tags in enumerate([one["focus"], *one["surrounding"]]):
            x, y = west + 3 + 15 * (i % 6), TOP - 3 - 15 * (i // 6)
            corners = np.array([(x, y), (x + 12, y), (x + 12, y - 12), (x, y - 12)])
            geometry = shapely.Polygon(np.column_stack(TO_DEGREES.transform(*corners.T)))
            box = dict(zip(("xmin", "ymin", "xmax", "ymax"), geometry.bounds, strict=True))
            row = {"object_id": f"a{100 * number + i}", "tags": dict(tags), "bbox": box}
            objects.append(row | {"geometry": shapely.to_wkb(geometry)})
            seen |= {(key, each) for key, value in tags for each in normal_values(value)}
        chip = dict.fromkeys(PLAN_SCHEMA.names) | {"chip_id": str(number), "object_id": f"a{100 * number}"}
        chip |= {"crs": "EPSG:32632", "transform": [GSD, 0.0, west, 0.0, -GSD, TOP], "gsd_m": GSD}
        chips.append(chip | {"width": 960, "height": 960})
    box_type = pa.struct([(side, pa.float64()) for side in ("xmin", "ymin", "xmax", "ymax")])
    schema = [("object_id", pa.string()), ("tags", TAGS_TYPE), ("bbox", box_type), ("geometry", pa.binary())]
    write_table(folder / "objects.parquet", rows_to_table(objects, pa.schema(schema)))
    write_table(folder / "plan.parquet", rows_to_table(chips, PLAN_SCHEMA))
    accept(folder)
    tags = [{"key": key, "value": value, "coarsest_gsd_m": 30.0} for key, value in sorted(seen)]
    pq.write_table(pa.Table.from_pylist(tags), folder / "tags.parquet")
    counts = [{"key": "a", "value": "b", "region": "r", "gsd_m": GSD, "n_plannable": 1}]
    pq.write_table(pa.Table.from_pylist(counts), folder / "snapshot.parquet")
    return folder


def said(rows: Sequence[Mapping[str, str]]) -> Counter[tuple[str, bool]]:
    """The phrases of the paper's styles in a trace, of the focus object and of those around it, in no order."""
    return Counter((row["phrase"], row["role"] == "surrounding") for row in rows if row["style"] not in SENTENCES)


def of_tags(one: Mapping[str, Any]) -> Counter[tuple[str, bool]]:
    """What a known caption says: from its tags it comes out to the letter (`tests/unit/lib/captions`)."""
    rules = read_yaml(RULES, CaptionRules)
    focus, *around = (phrases(dict(tags), rules, None, "paper") for tags in (one["focus"], *one["surrounding"]))
    composed = compose(focus, [as_neighbour(other) for other in around], 99, 9999)
    assert composed is not None
    return said(trace(composed, [str(number) for number in range(1 + len(composed.named))]))


def test_known_captions_come_out_of_the_stage_but_for_their_order(
    shared_data: Path, theirs: Path, tmp_path: Path
) -> None:
    found: dict[str, list[int]] = {}
    for policy in ("paper", "ours"):
        told = captions(theirs, tmp_path, policy=policy, max_surrounding=99, max_length=9999)
        found[policy] = [
            number
            for number, one in enumerate(known(shared_data))
            if 100 * number in told and said(told[100 * number]["trace"]) == of_tags(one)
        ]
    assert (len(found["paper"]), len(found["ours"])) == (242, 163)
    left = [one for number, one in enumerate(known(shared_data)) if number not in found["paper"]]
    hidden = [one for one in left if any(is_hidden(dict(tags)) for tags in (one["focus"], *one["surrounding"]))]
    assert len(hidden) == 20
    # The last has a name in its normal spelling: "object suburb of tempelhof".
    (last,) = [one for one in left if one not in hidden]
    assert "object suburb of Tempelhof" in last["title_multi_objects"]
