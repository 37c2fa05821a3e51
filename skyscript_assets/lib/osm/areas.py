"""When a closed way is an area, a line, or both; and which relations are areas.

OpenStreetMap has no area type: a closed way means what its tags say. The rules here are those of the community's
polygon-feature list (wiki page "Overpass turbo/Polygon Features", used by osmtogeojson and OSMnx), with three
differences: walls, hedges and ditches stay lines, as the wiki asks for `area=yes` where their area is meant; some keys
that editors treat as areas (wiki page "Area", iD's area keys) are added; and a way that has tags of both sorts, such as
a fenced pitch, becomes both a line and an area, as `osmium export` does with `linear_tags` and `area_tags`.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from skyscript_assets.lib.osm.meaning import MEANING
from skyscript_assets.lib.osm.pbf.blocks import Tags
from skyscript_assets.lib.osm.ragged import reduced

RELATION_AREA_TYPES = frozenset({"multipolygon", "boundary"})
"""Values of `type` of the relations that are areas."""

AREA_UNLESS, AREA_ONLY = MEANING.area_unless, MEANING.area_only
"""Keys whose closed ways are areas, but for some values, which are lines; and the other way round."""

_AREA, _LINE, _YES, _NO = 1, 2, 4, 8
"""What a tag says of a closed way, as bits that are gathered over its tags."""

# No Arrow arrays: the first of a process imports pandas, which not every command needs.
_KEYS = [*AREA_UNLESS, *AREA_ONLY, "area"]
_VALUES = sorted({"yes", "no"}.union(*AREA_UNLESS.values(), *AREA_ONLY.values()))


def _verdicts() -> NDArray[np.uint8]:
    """What each key says with each value: [keys + 1, values + 1], the last of either for all others."""
    values = [*_VALUES, None]
    said = np.zeros((len(_KEYS) + 1, len(values)), np.uint8)
    for row, key in enumerate(_KEYS):
        for column, value in enumerate(values):
            if key == "area":
                said[row, column] = {"yes": _YES, "no": _NO}.get(value or "", 0)
            elif value != "no":
                is_area = value in AREA_ONLY[key] if key in AREA_ONLY else value not in AREA_UNLESS[key]
                said[row, column] = _AREA if is_area else _LINE
    return said


_VERDICTS = _verdicts()


def closed_way_kinds(tags: Tags) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which of n closed ways are areas, and which are lines; some are both: two arrays, [n].

    `area=yes` makes a way an area and `area=no` a line, whatever else it says. Otherwise each tag with a key of
    `AREA_UNLESS` or `AREA_ONLY` has its say; tags of both sorts make it both. Without such a tag it is a line.
    """
    key, value = (
        pc.fill_null(pc.index_in(tags.strings, value_set=pa.array(known)), len(known)).to_numpy()
        for known in (_KEYS, _VALUES)
    )
    bits = reduced(np.bitwise_or, _VERDICTS[key[tags.keys], value[tags.values]], tags.offsets)
    area = ((bits & _YES) != 0) | ((bits & (_AREA | _NO)) == _AREA)
    line = ~area | ((bits & (_LINE | _YES)) == _LINE)
    return area, line
