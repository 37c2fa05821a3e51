"""Which scene an object is shown in: the best of those that cover it, by the rules of its source.

A scene is refused by month, cloud or years from the map; the rest are ordered by one sum of years (`SceneChoice`).
Whether a whole tile lies on the scene is found out where chips are placed: if not, the next best scene is tried.
"""

import datetime as dt
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import shapely

from skyscript_assets.lib.arrays import BoolArray, FloatArray, IntArray
from skyscript_assets.lib.errors import CorruptInputError, SettingsError
from skyscript_assets.lib.geometry import within_180
from skyscript_assets.lib.imagery.scenes import Scene, acquisition_time
from skyscript_assets.lib.settings.sources import SceneChoice

YEAR_S = 365.25 * 86_400.0
DAY_S = 86_400.0

REFUSALS = ("outside", "season", "cloud", "date")
"""Why an object has no scene: none covers it, or the last rule that the scenes over it reached and broke."""


@dataclass(frozen=True)
class Candidates:
    """The scenes that may show each object, one entry for each (object, scene): by object, the best scene first.

    Attributes:
        objects: Indices of the objects, shape [pairs].
        scenes: Indices of the scenes, shape [pairs].
        refused: Why an object has no entry, shape [objects]: an index in `REFUSALS`; meaningless where it has one.
    """

    objects: IntArray
    scenes: IntArray
    refused: IntArray

    def where(self, kept: BoolArray) -> Self:
        """The entries that a mask keeps."""
        return type(self)(self.objects[kept], self.scenes[kept], self.refused)


def data_time(stated: str | None) -> dt.datetime | None:
    """Time of OSM data as an extract states it (ISO 8601, without a zone meant as UTC); None where that is no time."""
    try:
        return None if stated is None else acquisition_time(dt.datetime.fromisoformat(stated))
    except ValueError:
        return None


def check_ids(scenes: Sequence[Scene]) -> None:
    """Raise CorruptInputError where two scenes have one id: plans could not tell which of them a chip is cut from."""
    repeated = [name for name, count in Counter(scene.scene_id for scene in scenes).items() if count > 1]
    if repeated:
        raise CorruptInputError(
            f"{scenes[0].folder}: scene id {min(repeated)} occurs more than once; materialize scene_index again"
        )


def candidates(
    scenes: Sequence[Scene], points: FloatArray, edited_s: FloatArray, data_s: float, choice: SceneChoice
) -> Candidates:
    """Find and order the scenes that may show each object.

    An object looks as it is mapped from its last edit to the date of the data: a scene taken between the two is no
    years apart, an earlier one so many years before the edit, a later one so many after the data. With
    `near: extract` only the date of the data counts. Unknown times are taken as the other one, or as fitting.

    Args:
        scenes: Scenes of one source.
        points: Longitude and latitude of the objects' places, [n, 2], degrees; NaN lies nowhere.
        edited_s: Time of each object's last edit, seconds since 1970, NaN where unknown; [n].
        data_s: Time of the OSM data, NaN where unknown.
        choice: The source's rules.

    Returns:
        Equal scenes by these rules come in the order: later, then first by id.

    Raises:
        SettingsError: the rules go by dates that the scenes merely guess at.
    """
    _check_dates(scenes, choice)
    taken = np.array([scene.datetime.timestamp() for scene in scenes], dtype=np.float64)
    cloud = np.array([scene.cloud_share or 0.0 for scene in scenes], dtype=np.float64)
    names = np.argsort(np.argsort([scene.scene_id for scene in scenes]))
    allowed, preferred = (_in_months(scenes, months, choice) for months in (choice.months, choice.preferred_months))
    objects, seen = _covered(scenes, points)

    # The stretch of time in which each object looked as it is mapped.
    edited, taken = edited_s[objects], taken[seen]
    first = np.where((choice.near == "extract") | np.isnan(edited), data_s, edited)
    apart_s = np.maximum(np.maximum(first - taken, taken - np.fmax(first, data_s)), 0.0)
    years = np.nan_to_num(apart_s / YEAR_S, nan=0.0)
    broken = np.zeros(len(objects), dtype=np.int64)
    if choice.max_years_apart is not None:
        broken[years > choice.max_years_apart] = REFUSALS.index("date")
    broken[cloud[seen] > choice.max_cloud_share] = REFUSALS.index("cloud")
    broken[~allowed[seen]] = REFUSALS.index("season")
    refused = np.zeros(len(points), dtype=np.int64)
    np.maximum.at(refused, objects, broken)

    cost = years + choice.cloud_years * cloud[seen] + choice.season_years * ~preferred[seen]
    order = np.lexsort((names[seen], -taken, cost, objects))
    order = order[broken[order] == 0]
    return Candidates(objects[order], seen[order], refused)


def _check_dates(scenes: Sequence[Scene], choice: SceneChoice) -> None:
    by_month = bool(choice.months or choice.preferred_months)
    by_date = choice.max_years_apart is not None or choice.dates > 1
    worth = {scene.date_is for scene in scenes}
    if choice.guessed_dates or not (("guess" in worth and (by_month or by_date)) or ("year" in worth and by_month)):
        return
    raise SettingsError(
        f"sources.yaml: the choice of {scenes[0].source} goes by {'months' if by_month else 'dates'}, and some of its "
        "dates are guesses or mere years (`date_is` in scenes.parquet): take months, preferred_months, max_years_apart "
        "and dates out of `choice`, or state `guessed_dates: true` there"
    )


def _in_months(scenes: Sequence[Scene], months: tuple[int, ...], choice: SceneChoice) -> BoolArray:
    """Which scenes were taken in some months; no months are all. Shape [scenes]."""

    def month(scene: Scene) -> int:
        south = choice.northern_months and (scene.bounds[1] + scene.bounds[3]) < 0
        return (scene.datetime.month + (5 if south else -1)) % 12 + 1

    return np.array([month(scene) in (months or range(1, 13)) for scene in scenes], dtype=np.bool_)


def _covered(scenes: Sequence[Scene], points: FloatArray) -> tuple[IntArray, IntArray]:
    """Every (object, scene) whose footprint holds the object's place."""
    longitudes = within_180(points[:, 0])
    order = np.argsort(longitudes, kind="stable")  # NaN last
    x, y = longitudes[order], points[order, 1]
    objects, seen = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    for index, scene in enumerate(scenes):
        west, south, east, north = scene.bounds
        first, last = np.searchsorted(x, west, side="left"), np.searchsorted(x, east, side="right")
        near = first + np.flatnonzero((y[first:last] >= south) & (y[first:last] <= north))
        shapely.prepare(scene.footprint)
        inside = near[shapely.intersects_xy(scene.footprint, x[near], y[near])]
        objects.append(order[inside])
        seen.append(np.full(len(inside), index, dtype=np.int64))
    return np.concatenate(objects), np.concatenate(seen)
