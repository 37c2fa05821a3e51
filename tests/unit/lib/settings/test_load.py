import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from skyscript_assets.demo.settings import SyntheticSource
from skyscript_assets.lib.errors import SettingsError
from skyscript_assets.lib.plugins import SCORER_KINDS
from skyscript_assets.lib.settings.base import BBox
from skyscript_assets.lib.settings.load import PACKAGED_PROFILES, GivenFile, load_settings
from skyscript_assets.lib.settings.models import ClipRecipe
from skyscript_assets.lib.settings.plant import PlanSettings, SizeSettings
from skyscript_assets.lib.settings.regions import Region
from skyscript_assets.lib.settings.sources import SOURCE_KINDS


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    return Path(shutil.copytree(PACKAGED_PROFILES / "demo", tmp_path / "profile"))


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


@pytest.mark.parametrize("name", ["demo", "skyscript", "template"])
def test_the_packaged_profiles_are_valid(name: str) -> None:
    settings = load_settings(PACKAGED_PROFILES / name)
    assert settings.plant.title == name


def test_the_paper_profile_describes_its_ten_collections() -> None:
    settings = load_settings(PACKAGED_PROFILES / "skyscript")
    assert sorted(settings.sources) == ["CH", "DE", "ES", "FI", "L8", "L9", "P3", "P5", "S2", "US"]


@pytest.mark.parametrize(
    ("key", "facts"),
    [
        (
            "US",
            {
                "catalog": "https://planetarycomputer.microsoft.com/api/stac/v1",
                "collection": "naip",
                "assets": ("image",),
                "bands": (1, 2, 3),
                "attribution": "NAIP imagery provided by USDA Farm Service Agency",
            },
        ),
        *(
            (
                f"L{number}",
                {
                    "catalog": "https://planetarycomputer.microsoft.com/api/stac/v1",
                    "collection": "landsat-c2-l2",
                    "assets": (
                        "red",
                        "green",
                        "blue",
                    ),
                    "properties": {"platform": f"landsat-{number}", "landsat:collection_category": "T1"},
                },
            )
            for number in (8, 9)
        ),
        (
            "S2",
            {
                "catalog": "https://earth-search.aws.element84.com/v1",
                "collection": "sentinel-2-l2a",
                "assets": ("visual",),
                "scaling": None,
                "attribution": "Contains modified Copernicus Sentinel data {year}",
            },
        ),
        (
            "CH",
            {
                "catalog": "https://data.geo.admin.ch/api/stac/v1",
                "collection": "ch.swisstopo.swissimage-dop10",
                "assets": ("*_0.1_2056.tif",),
                "attribution": "© swisstopo, {year}",
            },
        ),
        (
            "ES",
            {
                "url": "https://www.ign.es/wms/pnoa-historico",
                "layer": "pnoa10_2018",
                "gsd_m": 0.1,
                "attribution": "PNOA cedido por © Instituto Geográfico Nacional de España",
            },
        ),
        (
            "DE",
            {
                "url": "https://isk.geobasis-bb.de/mapproxy/dop20c/service/wms",
                "layer": "bebb_dop20c",
                "date_is": "guess",
                "attribution": "© GeoBasis-DE/LGB ({year}), dl-de/by-2-0, Daten geändert",
            },
        ),
        (
            "FI",
            {
                "kind": "wcs",
                "url": "https://avoin-karttakuva.maanmittauslaitos.fi/ortokuvat-ja-korkeusmallit/wcs/v2",
                "layer": "ortokuva_vari",
                "gsd_m": 0.5,
                "date_is": "guess",
                "attribution": "contains NLS Finland Orthophoto data {month}/{year}",
            },
        ),
        (
            "P3",
            {
                "collection": "SKYSAT/GEN-A/PUBLIC/ORTHO/RGB",
                "bands": ("R", "G", "B"),
                "gsd_m": 0.8,
                "scaling": None,
                "licence": "CC-BY-4.0",
                "attribution": "© {year} Planet Labs Inc.",
            },
        ),
        (
            "P5",
            {
                "collection": "SKYSAT/GEN-A/PUBLIC/ORTHO/MULTISPECTRAL",
                "bands": ("R", "G", "B"),
                "gsd_m": 2.0,
                "licence": "CC-BY-4.0",
                "attribution": "© {year} Planet Labs Inc.",
            },
        ),
    ],
)
def test_the_collections_are_asked_for_as_their_publishers_have_them(key: str, facts: dict[str, Any]) -> None:
    source = load_settings(PACKAGED_PROFILES / "skyscript").sources[key]
    assert {name: getattr(source, name) for name in facts} == facts


def test_the_paper_profile_trains_as_its_authors_did_and_as_we_would_apart() -> None:
    settings = load_settings(PACKAGED_PROFILES / "skyscript")
    taught = {key: model.recipe for key, model in settings.models.items() if isinstance(model.recipe, ClipRecipe)}
    for key, recipe in taught.items():
        told = {"order": "shuffled", "crop": "anywhere", "loss": "softmax", "positives": "own", "lock_text": False}
        told |= {"interpolation": 1, "styles": ("title",), "batch_size": 512, "epochs": 20, "weight_decay": 1}
        of_authors = {name: getattr(recipe, name) for name in told} == told
        assert of_authors is key.startswith("skyclip-")
    assert {taught[key].lr for key in taught if key.startswith("skyclip-")} == {1e-9, 3e-9}
    assert settings.plant.scores.crop == "anywhere"


def test_what_publishers_forbid_or_show_is_in_the_paper_profile() -> None:
    sources = load_settings(PACKAGED_PROFILES / "skyscript").sources
    assert {key for key, source in sources.items() if source.terms is not None} == {"DE", "FI"}
    assert not any(source.terms.accepted for source in sources.values() if source.terms is not None)
    assert "surface reflectance" in sources["L8"].title
    scaling: Any = sources["L9"].scaling
    # Reflectance is 2.75e-05 x value - 0.2; stored values are stated, whatever the files say of themselves.
    assert (scaling.values, sources["L9"].nodata) == ("stored", 0)
    shown = [2.75e-05 * value - 0.2 for value in (scaling.low, scaling.high)]
    assert shown == pytest.approx([0.0, 0.3], abs=1e-4)
    assert sources["P5"].scaling.percentiles is not None


def test_the_demo_paints_its_images_and_says_so() -> None:
    settings = load_settings(PACKAGED_PROFILES / "demo")
    for source in settings.sources.values():
        assert isinstance(source, SyntheticSource)
        assert "synthetic" in source.title.lower()
        assert "synthetic" in source.attribution.lower()


def test_a_typo_is_reported_with_file_key_and_the_likely_name(profile: Path) -> None:
    edit(profile / "plant.yaml", "quota:", "qouta:")
    with pytest.raises(SettingsError, match=r"plant.yaml: plan.qouta: unknown key .*did you mean 'quota'"):
        load_settings(profile)


def test_a_key_of_another_kind_is_not_said_to_be_meant_for_itself(profile: Path) -> None:
    add(profile, ", kind: files, paths: [a.tif], max_zoom: 19")
    with pytest.raises(SettingsError, match=r"MINE\.max_zoom: unknown key \(found 19\)$"):
        load_settings(profile)


@pytest.mark.parametrize(
    ("stated", "nothing"),
    [("contact: whoever ran this demo", 'contact: " "'), ("[The authors of skyscript-assets]", '[""]')],
)
def test_a_release_names_somebody(profile: Path, stated: str, nothing: str) -> None:
    edit(profile / "plant.yaml", stated, nothing)
    with pytest.raises(SettingsError, match=r"plant\.yaml: release\..*String should match pattern"):
        load_settings(profile)


def test_a_key_in_the_wrong_section_is_told_the_right_one(profile: Path) -> None:
    edit(profile / "plant.yaml", "plan:\n  snapshot: demo-1\n", "chips:\n  snapshot: demo-1\n  max_failed_share: 0.2\n")
    with pytest.raises(SettingsError) as caught:
        load_settings(profile)
    lines = str(caught.value).splitlines()[1:]
    assert lines == [
        "  - plant.yaml: plan: this key is required and was not given",
        "  - plant.yaml: chips.snapshot: unknown key (found 'demo-1'); it belongs under plan",
        "  - plant.yaml: chips.max_failed_share: unknown key (found 0.2); it belongs under failures",
        "  - plant.yaml: chips.quota: unknown key (found 40); it belongs under plan",
    ]


ODD_NAMES = [
    "../up",
    "..",
    "a/b",
    "a|b",
    ".hidden",
    "-dash",
    "a..b",
    "end.",
    "a b",
    "tab\t",
    "line\n",
    "x" * 65,
    "",
    "é",
]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_name_that_becomes_a_folder_cannot_lead_elsewhere(profile: Path, name: str) -> None:
    sections = {"regions": ["regions"], "sources": ["sources"], "models": ["models", "weights", "bases"]}
    for file, names in (sections | {"benchmarks": ["benchmarks"], "plant": []}).items():
        content = yaml.safe_load((profile / f"{file}.yaml").read_text(encoding="utf-8"))
        for section in names:
            *_, content[section][name] = content[section].values()
        if file == "plant":
            content["plan"]["snapshot"] = name
        (profile / f"{file}.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        load_settings(profile)
    for key in ("plan.snapshot", "regions.", "sources.", "models.", "weights.", "bases.", "benchmarks."):
        assert f".yaml: {key}" in str(caught.value)


def test_keys_that_some_file_systems_take_for_one_are_named(profile: Path) -> None:
    edit(profile / "sources.yaml", "SYN03:", "syn1:")
    edit(profile / "models.yaml", "linear-probe:", "Untrained-0:")
    with pytest.raises(SettingsError) as caught:
        load_settings(profile)
    for told in ("sources: several keys differ from 'syn1' in", "models: several keys differ from 'untrained-0' in"):
        assert told in str(caught.value)


def test_the_vocabulary_counts_with_the_sizes_of_the_plan() -> None:
    plan = PlanSettings(snapshot="s", quota=1, rule="paper", min_tile_px=64)
    assert plan.sizes == SizeSettings(rule="paper", min_tile_px=64)
    assert "quota" not in plan.sizes.model_dump()


def test_every_mistake_of_a_profile_is_reported_at_once(profile: Path) -> None:
    edit(profile / "plant.yaml", "quota: 40", "quota: none")
    edit(profile / "sources.yaml", "gsd_m: 0.3", "gsd_m: -1")
    edit(profile / "regions.yaml", "  helsinki:", "  Helsinki City:")
    with pytest.raises(SettingsError) as caught:
        load_settings(profile)
    message = str(caught.value)
    assert "plan.quota" in message
    assert "found 'none'" in message
    assert "sources.SYN03" in message
    assert "greater than 0" in message
    assert "Helsinki City" in message


ADDED = "  MINE: {title: t, gsd_m: 1, licence: l, attribution: a"


def add(profile: Path, rest: str) -> None:
    with (profile / "sources.yaml").open("a", encoding="utf-8") as file:
        file.write(f"{ADDED}{rest}}}\n")


def test_an_unknown_kind_is_reported_with_those_that_are_known(profile: Path) -> None:
    edit(profile / "benchmarks.yaml", "kind: ground-cover", "kind: ground-truth")
    add(profile, ", kind: fils")
    with pytest.raises(SettingsError) as caught:
        load_settings(profile)
    assert "sources.yaml: sources.MINE.kind: no installed package registers 'fils'; known are earth" in str(
        caught.value
    )
    assert "wmts, xyz (found 'fils')" in str(caught.value)
    assert ".kind: no installed package registers 'ground-truth'; known are caption-retr" in str(caught.value)


def test_a_source_without_a_kind_is_reported(profile: Path) -> None:
    add(profile, "")
    with pytest.raises(SettingsError, match=r"sources.MINE.kind: this key is required and was not given"):
        load_settings(profile)


def test_mistakes_in_a_source_are_reported_at_their_place(profile: Path) -> None:
    add(profile, ", kind: xyz, url: 'https://e.org/{z}/{x}/{y}', tile_px: 300, maxzoom: 19, choice: {dates: 0}")
    with pytest.raises(SettingsError) as caught:
        load_settings(profile)
    for text in (
        "sources.yaml: sources.MINE.tile_px: Input should be 256, 512 or 1024 (found 300)",
        "sources.yaml: sources.MINE.maxzoom: unknown key (found 19); did you mean 'max_zoom'?",
        "sources.yaml: sources.MINE.choice.dates: Input should be greater than or equal to 1 (found 0)",
    ):
        assert text in str(caught.value)


def test_a_kind_that_cannot_be_loaded_matters_where_it_is_used(
    profile: Path, install_package: Callable[..., None]
) -> None:
    install_package("broken", {SOURCE_KINDS: {"broken": "no_module:KIND", "odd": "json:dumps"}})
    load_settings(profile)
    add(profile, ", kind: broken")
    with pytest.raises(SettingsError, match=r"sources.MINE.kind: package broken registers 'broken' as no_module:KIND"):
        load_settings(profile)
    edit(profile / "sources.yaml", "kind: broken", "kind: odd")
    with pytest.raises(SettingsError, match=r"sources.MINE.kind: what is registered as it is no kind"):
        load_settings(profile)


def test_a_name_that_is_not_defined_is_reported_with_those_that_are(profile: Path) -> None:
    edit(profile / "plant.yaml", "scorer: lite0-minilm", "scorer: vit")
    with pytest.raises(SettingsError, match=r"scores.scorer: 'vit' is not defined; defined are lite0-minilm"):
        load_settings(profile)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "scorer: lite0-minilm",
            "scorer: lite0-minilm\n  further_scorers: [vit]",
            "further_scorers: 'vit' is not defined",
        ),
        (
            "scores:",
            "manifest: {rank_within: region}\nscores:",
            "rank_within: Input should be 'source', 'all'",
        ),
        ("views: 2", "views: 2\n  further_styles: [poem]", "further_styles.0: .*styles of captions are title, "),
    ],
)
def test_a_mistake_about_scores_and_ranks_is_explained(profile: Path, old: str, new: str, message: str) -> None:
    edit(profile / "plant.yaml", old, new)
    with pytest.raises(SettingsError, match=message):
        load_settings(profile)


def test_a_scorer_is_of_a_kind_that_is_installed_and_no_base(
    profile: Path, install_package: Callable[..., None]
) -> None:
    edit(profile / "models.yaml", "models:\n", "scorers:\n  lite0-minilm: {kind: pairs}\nmodels:\n")
    with pytest.raises(SettingsError, match=r"no installed package registers 'pairs'; known are none"):
        load_settings(profile)
    module = (
        "from typing import Literal\n"
        "from skyscript_assets.lib.settings.models import ScorerBase\n"
        "from skyscript_assets.lib.towers.scorers import ScorerKind\n"
        "class Pairs(ScorerBase):\n    kind: Literal['pairs']\n"
        "KIND = ScorerKind(settings=Pairs, load=None)\n"
    )
    install_package("pairs", {SCORER_KINDS: {"pairs": "of_pairs:KIND"}}, {"of_pairs": module})
    with pytest.raises(SettingsError, match=r"'lite0-minilm' stands under bases and under scorers; rename one"):
        load_settings(profile)
    edit(profile / "models.yaml", "  lite0-minilm: {kind: pairs}", "  mine: {kind: pairs}")
    assert load_settings(profile).scorers["mine"].kind == "pairs"


def test_tags_may_be_embedded_by_a_base_and_by_nothing_else(profile: Path) -> None:
    edit(profile / "plant.yaml", "encoder: minilm-l6-v2", "encoder: lite0-minilm")
    assert load_settings(profile).plant.tags.encoder == "lite0-minilm"
    edit(profile / "plant.yaml", "encoder: lite0-minilm", "encoder: bert")
    with pytest.raises(SettingsError, match=r"tags.encoder: 'bert' is not defined; defined are .*minilm-l6-v2"):
        load_settings(profile)


def test_one_pass_of_labellers_alone_is_refused(profile: Path) -> None:
    edit(profile / "plant.yaml", "tags:\n", "tags:\n  first_pass: null\n")
    with pytest.raises(SettingsError, match="give both first_pass and second_pass, or neither"):
        load_settings(profile)


def test_a_missing_folder_names_the_variable_to_set(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="SKYSCRIPT_SETTINGS"):
        load_settings(tmp_path / "nowhere")


def test_a_missing_file_is_named(profile: Path) -> None:
    (profile / "models.yaml").unlink()
    with pytest.raises(SettingsError, match="models.yaml: the file is missing"):
        load_settings(profile)


def test_yaml_that_does_not_parse_is_named(profile: Path) -> None:
    (profile / "models.yaml").write_text("models: [", encoding="utf-8")
    with pytest.raises(SettingsError, match="models.yaml: is not YAML"):
        load_settings(profile)


def test_yaml_that_would_build_an_object_is_refused(profile: Path) -> None:
    (profile / "models.yaml").write_text("models: !!python/object/apply:os.getcwd []", encoding="utf-8")
    with pytest.raises(SettingsError, match="models.yaml: is not YAML"):
        load_settings(profile)


def test_a_file_that_is_not_text_is_named(profile: Path) -> None:
    (profile / "plant.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="plant.yaml: cannot be read"):
        load_settings(profile)


def test_an_empty_file_misses_its_keys(profile: Path) -> None:
    (profile / "regions.yaml").write_text("", encoding="utf-8")
    with pytest.raises(SettingsError, match="regions.yaml: regions: this key is required"):
        load_settings(profile)


def test_a_region_has_one_origin(profile: Path) -> None:
    edit(profile / "regions.yaml", "    title: Helsinki", "    path: a.osm.pbf\n    title: Helsinki")
    with pytest.raises(SettingsError, match="exactly one of path, url, geofabrik, package"):
        load_settings(profile)


@pytest.mark.parametrize(
    "scaling", ["{low: 5, high: 5}", "{percentiles: [98, 2]}", "{low: 0, high: 1, percentiles: [2, 98]}"]
)
def test_scaling_is_a_range_or_percentiles(profile: Path, scaling: str) -> None:
    add(profile, f", kind: files, paths: [a.tif], scaling: {scaling}")
    with pytest.raises(SettingsError, match="percentiles"):
        load_settings(profile)


def test_a_box_has_its_sides_in_order() -> None:
    with pytest.raises(ValueError, match="west < east"):
        BBox(west=2, south=0, east=1, north=1)


def test_a_box_with_west_beyond_east_lies_across_the_antimeridian() -> None:
    fiji = BBox(west=177, south=-20, east=-178, north=-12)
    assert fiji.bounds == (177, -20, 182, -12)
    west, east = BBox(west=-180, south=-20, east=-179, north=-12), BBox(west=179, south=-20, east=180, north=-12)
    assert fiji.intersects(west)
    assert west.intersects(fiji)
    assert fiji.intersects(east)
    assert not east.intersects(west)
    assert not fiji.intersects(BBox(west=170, south=-20, east=176, north=-12))


def test_boxes_that_only_touch_share_no_ground() -> None:
    box = BBox(west=0, south=0, east=1, north=1)
    assert not box.intersects(BBox(west=1, south=0, east=2, north=1))
    assert box.intersects(BBox(west=0.5, south=0.5, east=2, north=2))


def test_a_profile_s_own_file_wins_over_the_packaged_one(profile: Path) -> None:
    settings = load_settings(profile)
    (profile / "mine.csv").write_text("x", encoding="utf-8")
    assert GivenFile.of(settings, "tags.labels", "mine.csv").path == (profile / "mine.csv").resolve()
    with pytest.raises(SettingsError, match=r"plant\.yaml: tags\.labels: nothing\.csv: .*name a file that is there"):
        GivenFile.of(settings, "tags.labels", "nothing.csv")


@pytest.mark.parametrize("name", ["europe/liechtenstein", "russia", "north-america/us/rhode-island"])
def test_a_name_at_geofabrik_is_an_origin(name: str) -> None:
    assert Region(title="Here", geofabrik=name).geofabrik == name


@pytest.mark.parametrize(
    "name",
    ["", "Europe", "/europe", "europe/", "europe//andorra", "../secret", "europe/andorra.osm.pbf", "andorra-latest"],
)
def test_what_is_no_name_at_geofabrik_is_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        Region(title="Here", geofabrik=name)


@pytest.mark.parametrize("url", ["ftp://example.org/a.osm.pbf", "example.org/a.osm.pbf", "http:///a", "file:///a"])
def test_an_address_that_is_not_of_the_web_is_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="should match pattern"):
        Region(title="Here", url=url)


def test_the_ground_is_a_box_or_a_polygon(profile: Path) -> None:
    ground = "    bbox: {west: 1, south: 1, east: 2, north: 2}\n    polygon: a.poly\n    title: Helsinki"
    edit(profile / "regions.yaml", "    title: Helsinki", ground)
    with pytest.raises(SettingsError, match="give bbox or polygon, not both"):
        load_settings(profile)


def test_a_mirror_of_geofabrik_can_be_named(profile: Path) -> None:
    assert load_settings(profile).geofabrik_mirror == "https://download.geofabrik.de"
    edit(profile / "regions.yaml", "regions:", "geofabrik_mirror: http://mirror.example.org/osm\nregions:")
    assert load_settings(profile).geofabrik_mirror == "http://mirror.example.org/osm"


def test_a_model_of_a_region_that_there_is_not_is_refused(profile: Path) -> None:
    edit(profile / "models.yaml", "    group: aligned\n", "    group: aligned\n    regions: [atlantis]\n")
    with pytest.raises(SettingsError, match=r"models\.aligned-0\.regions.*atlantis"):
        load_settings(profile)
