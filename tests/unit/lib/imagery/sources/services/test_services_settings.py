from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter, ValidationError

from skyscript_assets.lib.settings.load import PACKAGED_PROFILES, load_settings
from skyscript_assets.lib.settings.sources import Source

FACTS = {"title": "t", "gsd_m": 1.0, "licence": "l", "attribution": "a"}


def source(**facts: Any) -> Source:
    found: Source = TypeAdapter(Source).validate_python(FACTS | facts)
    return found


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


def test_services_are_asked_twice_a_second_unless_they_allow_more() -> None:
    settings = load_settings(PACKAGED_PROFILES / "skyscript")
    assert {getattr(settings.sources[key], "requests_per_second", None) for key in ("ES", "DE", "FI")} == {2.0}


@pytest.mark.parametrize(
    ("url", "template"),
    [
        ("https://{s}.e.org/{z}/{x}/{y}{r}.png", "https://a.e.org/{z}/{x}/{y}.png"),
        ("https://{switch:m1,m2}.e.org/${z}/${x}/${y}", "https://m1.e.org/{z}/{x}/{y}"),
        ("https://{a-c}.e.org/{q}", "https://a.e.org/{q}"),
        ("https://{1-4}.e.org/{z}/{x}/{-y}", "https://1.e.org/{z}/{x}/{-y}"),
    ],
)
def test_places_of_other_programs_are_filled(url: str, template: str) -> None:
    assert source(kind="xyz", url=url).template == template


@pytest.mark.parametrize("place", ["{layer}", "{Z}", "{proj}", "{time:2020}", "{"])
def test_places_that_are_not_known_are_refused(place: str) -> None:
    with pytest.raises(ValidationError, match="which is not known"):
        source(kind="xyz", url=f"https://e.org/{{z}}/{{x}}/{{y}}/{place}")
