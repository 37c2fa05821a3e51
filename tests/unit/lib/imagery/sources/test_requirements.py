from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter, ValidationError

from skyscript_assets.lib.imagery.sources import requirements
from skyscript_assets.lib.imagery.sources.requirements import requirements_of
from skyscript_assets.lib.settings.load import PACKAGED_PROFILES, Settings, load_settings
from skyscript_assets.lib.settings.sources import Source

FACTS = {"title": "t", "gsd_m": 1.0, "licence": "l", "attribution": "a"}


@pytest.fixture
def settings() -> Settings:
    return load_settings(PACKAGED_PROFILES / "skyscript")


def source(**facts: Any) -> Source:
    found: Source = TypeAdapter(Source).validate_python(FACTS | facts)
    return found


def missing(source: Source, settings: Settings) -> list[str]:
    return [requirement.remedy for requirement in requirements_of(source, settings) if not requirement.met]


def test_a_painted_source_needs_nothing() -> None:
    demo = load_settings(PACKAGED_PROFILES / "demo")
    assert [requirements_of(source, demo) for source in demo.sources.values()] == [[]] * len(demo.sources)


def test_files_must_be_there(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    assert missing(source(kind="files", paths=[str(path)]), settings) == [f"{path} does not exist"]
    assert missing(source(kind="files", paths=[str(tmp_path / "*.tif")]), settings) == ["no file matches its paths"]
    path.write_bytes(b"")
    assert missing(source(kind="files", paths=[str(path)]), settings) == []


def test_a_service_may_need_a_key(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NLS_API_KEY", raising=False)
    assert missing(settings.sources["FI"], settings) == ["NLS_API_KEY is not set"]
    monkeypatch.setenv("NLS_API_KEY", "x")
    assert missing(settings.sources["FI"], settings) == []
    assert missing(settings.sources["ES"], settings) == []


def test_earth_engine_needs_package_credentials_and_project(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "CLOUDSDK_CONFIG", "EE_KEY_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(requirements, "installed", lambda: False)
    install, login, project = missing(settings.sources["P3"], settings)
    assert "skyscript-assets[earthengine]" in install
    assert "earthengine authenticate" in login
    assert "project" in project
    with_key = source(kind="earthengine", collection="A/B", credentials_variable="EE_KEY_FILE")
    assert missing(with_key, settings)[1:] == ["EE_KEY_FILE is not set"]
    monkeypatch.setenv("EE_KEY_FILE", str(tmp_path / "key.json"))
    assert missing(with_key, settings)[1:] == [f"{tmp_path / 'key.json'} does not exist"]


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"kind": "xyz", "url": "https://example.org/tiles"}, "places {z}, {x} and {y}"),
        ({"kind": "xyz", "url": "https://example.org/{z}/{x}/{y}.png?token=abc"}, "holds a key or token"),
        ({"kind": "wms", "url": "https://me:pw@example.org/wms", "layer": "a"}, "holds a key or token"),
        ({"kind": "wmts", "url": "https://example.org/wmts?API-Key=abc", "layer": "a"}, "holds a key or token"),
        ({"kind": "xyz", "url": "https://example.org/{api_key}/{z}/{x}/{y}"}, "name the environment variable"),
        ({"kind": "wms", "url": "https://example.org/wms", "layer": "a", "crs": "CRS:84"}, "should match pattern"),
        ({"kind": "wmts", "url": "ftp://example.org/wmts", "layer": "a"}, "should match pattern"),
        ({"kind": "xyz", "url": "https://example.org/{z}/{x}/{y}", "requests_per_second": 0}, "greater than 0"),
    ],
)
def test_settings_of_services_that_cannot_be_meant_are_refused(facts: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        source(**facts)


def test_dimensions_may_be_written_as_years_and_dates() -> None:
    described = yaml.safe_load(
        "{kind: wms, url: 'https://e.org/w', layer: a, dimensions: {time: 2020-06-01, year: 2020}}"
    )
    assert source(**described).model_dump()["dimensions"] == {"time": "2020-06-01", "year": "2020"}


def test_a_service_must_state_licence_and_attribution() -> None:
    with pytest.raises(ValidationError, match="attribution"):
        TypeAdapter(Source).validate_python(
            {"kind": "xyz", "url": "https://e.org/{z}/{x}/{y}", "title": "t", "gsd_m": 1, "licence": "l"}
        )


def test_services_are_asked_twice_a_second_unless_they_allow_more(settings: Settings) -> None:
    assert {getattr(settings.sources[key], "requests_per_second", None) for key in ("ES", "DE", "FI")} == {2.0}
