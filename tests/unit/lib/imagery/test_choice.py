import datetime as dt
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from skyscript_assets.lib.errors import CorruptInputError, SettingsError
from skyscript_assets.lib.imagery.choice import REFUSALS, candidates, check_ids, data_time
from skyscript_assets.lib.imagery.scenes import Scene
from skyscript_assets.lib.settings.sources import SceneChoice
from tests.scenes import SCENE

HERE = np.array([[7.2, 43.2]])
UNKNOWN = float("nan")


def seconds(*date: int) -> float:
    return dt.datetime(*date, tzinfo=dt.UTC).timestamp()  # type: ignore[misc,arg-type]


def scene(name: str, *date: int, **facts: Any) -> Scene:
    known: dict[str, Any] = {"scene_id": name, "datetime": dt.datetime(*date, tzinfo=dt.UTC)}  # type: ignore[arg-type]
    return replace(SCENE, **known | facts)


def chosen(
    scenes: list[Scene], edited: float = UNKNOWN, data: float = UNKNOWN, points: Any = HERE, **rules: Any
) -> list[str]:
    """Ids of the scenes offered to an object, best first; or why there is none."""
    found = candidates(scenes, points, np.full(len(points), edited), data, SceneChoice(**rules))
    names = [scenes[i].scene_id for i in found.scenes[found.objects == 0]]
    return names or [REFUSALS[found.refused[0]]]


NAIP = [scene("a2010", 2010, 6, 29), scene("b2020", 2020, 8, 31)]


def test_a_scene_between_the_last_edit_and_the_date_of_the_data_is_no_years_apart_and_the_later_one_wins() -> None:
    assert chosen(NAIP, seconds(2008, 1, 1), seconds(2022, 1, 1)) == ["b2020", "a2010"]
    assert chosen(NAIP, seconds(2008, 1, 1), seconds(2012, 1, 1)) == ["a2010", "b2020"]
    assert chosen(NAIP, seconds(2012, 1, 1), seconds(2022, 1, 1)) == ["b2020", "a2010"]
    assert chosen(NAIP, seconds(2008, 1, 1), seconds(2013, 1, 1), near="extract") == ["a2010", "b2020"]
    assert chosen(NAIP, seconds(2008, 1, 1), seconds(2018, 1, 1), near="extract") == ["b2020", "a2010"]


def test_unknown_dates_are_taken_as_the_other_one_or_as_fitting() -> None:
    assert chosen(NAIP) == ["b2020", "a2010"]
    assert chosen(NAIP, data=seconds(2011, 1, 1)) == ["a2010", "b2020"]
    assert chosen(NAIP, edited=seconds(2011, 1, 1)) == ["a2010", "b2020"]


def test_scenes_too_many_years_from_the_map_are_refused() -> None:
    assert chosen(NAIP, data=seconds(2021, 1, 1), max_years_apart=2) == ["b2020"]
    assert chosen(NAIP, data=seconds(2015, 7, 1), max_years_apart=2) == ["date"]


def test_cloud_is_weighed_against_years_and_too_much_of_it_refused() -> None:
    scenes = [scene("clear", 2010, 6, 1), scene("cloudy", 2014, 6, 1, cloud_share=0.3)]
    data = seconds(2015, 6, 1)
    assert chosen(scenes, data=data) == ["clear", "cloudy"]
    assert chosen(scenes, data=data, cloud_years=10) == ["cloudy", "clear"]
    assert chosen(scenes, data=data, max_cloud_share=0.2) == ["clear"]
    assert chosen(scenes[1:], data=data, max_cloud_share=0.2) == ["cloud"]


def test_months_are_allowed_and_preferred() -> None:
    scenes = [scene("july", 2010, 7, 1), scene("march", 2012, 3, 1)]
    assert chosen(scenes) == ["march", "july"]
    assert chosen(scenes, months=(6, 7, 8)) == ["july"]
    assert chosen(scenes, months=(1,)) == ["season"]
    assert chosen(scenes, data=seconds(2012, 3, 1), preferred_months=(6, 7, 8)) == ["july", "march"]
    assert chosen(scenes, data=seconds(2012, 3, 1), preferred_months=(6, 7), season_years=1) == ["march", "july"]


def test_northern_months_are_half_a_year_later_in_the_south() -> None:
    south = shapely.box(7.0, -43.5, 7.5, -43.0)
    scenes = [scene("july", 2010, 7, 1, footprint=south), scene("january", 2010, 1, 1, footprint=south)]
    points = np.array([[7.2, -43.2]])
    assert chosen(scenes, points=points, months=(7,)) == ["july"]
    assert chosen(scenes, points=points, months=(7,), northern_months=True) == ["january"]
    december = [scene("december", 2010, 12, 1, footprint=south)]
    assert chosen(december, points=points, months=(6,), northern_months=True) == ["december"]


def test_scenes_that_do_not_cover_the_place_are_not_offered() -> None:
    triangle = shapely.Polygon([(7.0, 43.0), (7.5, 43.0), (7.0, 43.1)])
    assert chosen([scene("a", 2010, 1, 1, footprint=triangle), NAIP[1]]) == ["b2020"]
    assert chosen([scene("a", 2010, 1, 1, footprint=triangle)]) == ["outside"]
    assert chosen(NAIP, points=np.array([[np.nan, np.nan]])) == ["outside"]
    assert chosen([]) == ["outside"]


def test_the_reason_is_that_of_the_scene_that_came_furthest() -> None:
    scenes = [scene("winter", 2020, 1, 1), scene("cloudy", 2020, 7, 1, cloud_share=0.9)]
    assert chosen(scenes, months=(7,), max_cloud_share=0.5) == ["cloud"]


@settings(deadline=None)
@given(st.permutations(range(6)), st.integers(0, 5))
def test_the_order_of_the_scenes_does_not_matter(order: list[int], equal: int) -> None:
    scenes = [scene(f"s{i}", 2010 + i, 1 + i, 1, cloud_share=i / 20) for i in range(6)]
    scenes.append(replace(scenes[equal], scene_id="twin"))
    shuffled = [scenes[i] for i in order] + scenes[6:]
    assert chosen(scenes, data=seconds(2013, 6, 1)) == chosen(shuffled, data=seconds(2013, 6, 1))


def test_each_object_has_its_own_order() -> None:
    points = np.repeat(HERE, 2, axis=0)
    edited = np.array([seconds(2005, 1, 1), seconds(2019, 1, 1)])
    found = candidates(NAIP, points, edited, seconds(2010, 1, 1), SceneChoice())
    assert found.objects.tolist() == [0, 0, 1, 1]
    assert found.scenes.tolist() == [0, 1, 1, 0]


def test_two_scenes_of_one_id_are_caught() -> None:
    check_ids(NAIP)
    with pytest.raises(CorruptInputError, match="scene id a2010 occurs more than once"):
        check_ids([*NAIP, NAIP[0]])


def test_the_time_of_the_data_may_be_missing_or_no_time() -> None:
    assert data_time("2022-07-21T20:21:04Z") == dt.datetime(2022, 7, 21, 20, 21, 4, tzinfo=dt.UTC)
    assert data_time("2022-07-21") == dt.datetime(2022, 7, 21, tzinfo=dt.UTC)
    assert data_time(None) is data_time("last week") is None


def test_a_choice_by_dates_refuses_guesses_unless_told() -> None:
    guessed = [replace(NAIP[0], date_is="guess"), NAIP[1]]
    assert chosen(guessed) == ["b2020", "a2010"]
    for rules in ({"months": [6, 8]}, {"preferred_months": [6]}, {"max_years_apart": 20}, {"dates": 2}):
        with pytest.raises(SettingsError, match=r"guessed_dates: true"):
            chosen(guessed, **rules)
        chosen(guessed, guessed_dates=True, **rules)
    years = [replace(scene, date_is="year") for scene in NAIP]
    chosen(years, data=seconds(2021, 1, 1), max_years_apart=2)
    with pytest.raises(SettingsError, match="goes by months"):
        chosen(years, months=[6, 8])
