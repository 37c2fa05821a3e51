"""The words of captions over all real extracts: what a person labelled as visible, as the packaged rules say it."""

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

import skyscript_assets
from skyscript_assets.lib.captions.phrases import phrases
from skyscript_assets.lib.captions.rules import CaptionRules
from skyscript_assets.lib.osm.extract import stage_extract
from skyscript_assets.lib.osm.objects import write_objects
from skyscript_assets.lib.settings.base import read_yaml
from skyscript_assets.lib.settings.load import load_settings
from skyscript_assets.lib.settings.regions import Region
from skyscript_assets.lib.tables import read_table
from skyscript_assets.lib.tags.labels import read_labels
from skyscript_assets.lib.tags.normalise import normal_values

pytestmark = pytest.mark.integration

SETTINGS_FOLDER = Path(skyscript_assets.__file__).parent / "settings"
EXTRACTS = (
    *("osm/monaco.osm.pbf", "osm/helsinki.osm.pbf", "osm/liechtenstein.osm.pbf", "osm/andorra.osm.pbf"),
    *("osm/malta.osm.pbf", "pairs/sf_landsat7/sf_mission_bay.osm"),
)
FAULTS = {
    "a list that was not taken apart": r"[;,]",
    "a raw key or value": r"[_:=]|yes\b|\bno\b",
    "a register or how it was surveyed": r"(?i)\b(geobase|tiger|gnis|survey(ed)?|acquisition|orthophoto|gps)\b|^source",
    "an address or a link": r"(?i)\baddr\b|https?|www\.|@",
    "an identifier or a measurement": r"\d{4,}|\bref\b",
    "what no reader understands": r"\b(crossing ref|manhole|segregated|seamark)\b",
    "no plain text": r"[^ -~]",
    "nothing but an attribute's denial": r"^$",
}


def faults(text: str) -> list[str]:
    return [fault for fault, pattern in FAULTS.items() if re.search(pattern, text)]


@pytest.mark.parametrize(
    "tags",
    [{"a": "b;c"}, {"a": "x_y"}, {"geobase": "x"}, {"addr": "x"}, {"ref": "x"}, {"manhole": "x"}, {"x": "12345"}],
)
def test_the_lint_finds_what_it_looks_for(tags: Mapping[str, str]) -> None:
    ((key, value),) = tags.items()
    assert faults(f"{key} of {value}")


@pytest.mark.parametrize("extract", EXTRACTS)
def test_no_phrase_of_a_real_extract_has_a_fault(extract: str, shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / extract
    if not path.exists():
        pytest.skip(f"{extract} is absent")
    stage_extract(
        "here", Region(title="Here", path=str(path)), load_settings(SETTINGS_FOLDER / "demo").shared, tmp_path
    )
    write_objects(tmp_path, tmp_path)
    rules = read_yaml(SETTINGS_FOLDER / "caption_rules.yaml", CaptionRules)
    seen = {tag for tag, label in read_labels(SETTINGS_FOLDER / "tag_labels.csv").items() if label.visible}
    said = set()
    for own in set(map(tuple, read_table(tmp_path / "objects.parquet")["tags"].to_pylist())):
        listed = {key: [each for each in normal_values(value) if (key, each) in seen] for key, value in own}
        said |= {one.text for one in phrases({k: ";".join(v) for k, v in listed.items() if v}, rules)}
    assert len(said) > 50
    assert {text: found for text in said if (found := faults(text))} == {}
