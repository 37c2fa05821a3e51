"""Our rules of areas in the words of `osmium export`, for the measurement and the tests that compare with it."""

from typing import Any

from skyscript_assets.lib.osm.areas import AREA_ONLY, AREA_UNLESS


def osmium_export_config() -> dict[str, Any]:
    """Our rules of areas as the configuration of `osmium export` (its manual, "CONFIG FILE" and "AREA HANDLING").

    One thing cannot be said there: that a closed way of which no tag says anything is a line. With `linear_tags` set to
    null, osmium makes lines of just those and of what is a line alone; the lists add what is both.
    """
    linear = [f"{key}={','.join(sorted(lines))}" for key, lines in AREA_UNLESS.items() if lines]
    linear += [f"{key}!={','.join(sorted({*areas, 'no'}))}" for key, areas in AREA_ONLY.items()]
    area = [f"{key}!={','.join(sorted({*lines, 'no'}))}" for key, lines in AREA_UNLESS.items()]
    area += [f"{key}={','.join(sorted(areas))}" for key, areas in AREA_ONLY.items() if areas]
    return {"attributes": {"type": True, "id": True}, "linear_tags": linear, "area_tags": area}
