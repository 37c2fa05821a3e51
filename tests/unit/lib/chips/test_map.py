"""Maps of scenes and of chips: what is drawn, its size, and what is missing."""

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import shapely
from PIL import Image

from skyscript_assets.lib.chips import map as map_module
from skyscript_assets.lib.chips.map import plot_chips, plot_scenes
from skyscript_assets.lib.chips.plan import PLAN_SCHEMA
from skyscript_assets.lib.errors import UpstreamMissingError
from skyscript_assets.lib.imagery.scenes import Scene, write_scenes
from skyscript_assets.lib.tables import write_table

GROUND = (9.0, 47.0, 9.2, 47.1)


def scene(number: int, days: float, gsd_m: float = 0.5, west: float = 9.0) -> Scene:
    return Scene(
        scene_id=f"s{number:04d}",
        region="here",
        source="S",
        datetime=dt.datetime(2020, 1, 1, tzinfo=dt.UTC) + dt.timedelta(days=days),
        footprint=shapely.box(west, 47.0, west + 0.05, 47.05),
        gsd_m=gsd_m,
        crs="EPSG:32632",
        transform=(1.0, 0.0, 0.0, 0.0, -1.0, 0.0),
        width=10,
        height=10,
        hrefs=("x.tif",),
        fingerprint="x",
        licence="CC0-1.0",
        attribution="A surveyor",
    )


def colours(path: Path) -> int:
    """Colours that cover some of a picture, grey ones left out."""
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        found = picture.convert("RGB").getcolors(1 << 24)
    return sum(count > 20 and max(rgb) - min(rgb) > 60 for count, rgb in found)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What is given to the drawing of each column: its values and options."""
    seen: list[dict[str, Any]] = []
    draw = map_module._draw

    def watched(axes: Any, frame: Any, column: str, title: str, **options: Any) -> None:
        if len(frame):
            seen.append({"column": column, "values": sorted(set(frame[column])), "box": frame.total_bounds})
        draw(axes, frame, column, title, **options)

    monkeypatch.setattr(map_module, "_draw", watched)
    return seen


@pytest.mark.parametrize(
    ("scenes", "values"),
    [
        ([scene(i, i % 3, west=9.0 + i / 20) for i in range(4)], ["2020-01-01", "2020-01-02", "2020-01-03"]),
        ([scene(0, 0, 0.5), scene(1, 0, 10.0, west=9.1)], ["0.5 m", "10 m"]),
        ([scene(i, 200 * i) for i in range(24)], list(range(2020, 2033))),
    ],
    ids=["dates", "one date", "many dates"],
)
def test_scenes_are_coloured_by_date_else_by_gsd(
    tmp_path: Path, drawn: list[dict[str, Any]], scenes: list[Scene], values: list[Any]
) -> None:
    write_scenes(tmp_path, scenes)
    plot_scenes(tmp_path, GROUND, tmp_path / "map.png")
    assert [call["values"] for call in drawn] == [values]
    assert colours(tmp_path / "map.png") >= 2
    assert (tmp_path / "map.png").stat().st_size < 100_000


def plan(folder: Path, n: int, strata: int = 3) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.uniform(9.0, 9.2, n), rng.uniform(47.0, 47.1, n)
    rows = [dict.fromkeys(PLAN_SCHEMA.names) for _ in range(n)]
    for i, row in enumerate(rows):
        row["bbox"] = {"xmin": x[i], "ymin": y[i], "xmax": x[i] + 0.002, "ymax": y[i] + 0.001}
        row["split"] = ("train", "val", "test")[i % 3]
        row["stratum"] = f"key=v{i % strata}"
    write_table(folder / "plan.parquet", pa.Table.from_pylist(rows, schema=PLAN_SCHEMA))


def test_chips_lie_where_the_plan_has_them_by_split_and_stratum(tmp_path: Path, drawn: list[dict[str, Any]]) -> None:
    plan(tmp_path, 300, strata=20)
    plot_chips(tmp_path, tmp_path / "map.png")
    split, stratum = drawn
    assert split["values"] == ["test", "train", "val"]
    assert len(stratum["values"]) == map_module.COLOURS
    assert "others" in stratum["values"]
    assert split["box"] == pytest.approx((9.001, 47.0005, 9.201, 47.1005), abs=0.005)
    assert colours(tmp_path / "map.png") >= 5


def test_a_map_of_many_chips_is_small(tmp_path: Path) -> None:
    plan(tmp_path, 20_000, strata=9)
    plot_chips(tmp_path, tmp_path / "map.png")
    assert (tmp_path / "map.png").stat().st_size < 100_000


def test_maps_of_nothing_are_drawn_and_missing_tables_named(
    tmp_path: Path, drawn: list[dict[str, Any]], write_chip_plan: Callable[..., Any]
) -> None:
    for draw in (lambda: plot_scenes(tmp_path, GROUND, tmp_path / "a.png"), lambda: plot_chips(tmp_path, tmp_path)):
        with pytest.raises(UpstreamMissingError, match="does not exist"):
            draw()
    write_scenes(tmp_path, [])
    plan(tmp_path, 0)
    plot_scenes(tmp_path, GROUND, tmp_path / "a.png")
    plot_chips(tmp_path, tmp_path / "b.png")
    assert drawn == []
    assert (tmp_path / "a.png").stat().st_size > 1000 < (tmp_path / "b.png").stat().st_size
