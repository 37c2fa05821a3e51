from pathlib import Path

import pytest

from skyscript_assets.lib.captions.rules import CaptionRules
from skyscript_assets.lib.errors import SettingsError
from skyscript_assets.lib.settings.base import read_yaml


def test_an_empty_file_gives_plain_rules(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text("")
    rules = read_yaml(path, CaptionRules)
    assert (rules.key_names, rules.tag_names, rules.order) == ({}, {}, ())


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("besides: [power]", ["rules.yaml: besides", "unknown key", "beside"]),
        ("beside: power", ["rules.yaml: beside", "'power'"]),
        ("order: [highway, building, highway]", ["rules.yaml: order", "keys repeat: highway"]),
        ("tag_names: {highway: road}", ["rules.yaml: tag_names.highway"]),
        ("key_names: {highway: ''}", ["rules.yaml: key_names.highway"]),
        ("order: ['two words']", ["rules.yaml: order.0"]),
        ("order: [", ["rules.yaml: is not YAML"]),
    ],
)
def test_a_mistake_is_reported_with_file_and_key(tmp_path: Path, text: str, parts: list[str]) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError) as caught:
        read_yaml(path, CaptionRules)
    for part in parts:
        assert part in str(caught.value)


def test_missing_rules_are_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.yaml: the file is missing"):
        read_yaml(tmp_path / "none.yaml", CaptionRules)
