"""Maps for the eye, in degrees: the ground that a source's scenes show, and where the chips of a plan lie."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import shapely

from skyscript_assets.lib.chips.plan import PLAN_FILE, PLAN_SCHEMA
from skyscript_assets.lib.geometry import Bounds
from skyscript_assets.lib.imagery.scenes import read_scenes
from skyscript_assets.lib.tables import read_table

COLOURS, CHIPS = 9, 2_500
"""Most dates and strata told apart, and chips drawn: of more chips evenly many along the plan."""


def plot_scenes(folder: Path, bbox: Bounds, path: Path) -> None:
    """Draw the footprints of a folder of scenes by date (by year where there are many, by GSD where there is one).

    The box (west, south, east, north) of the region's ground, degrees, is dashed. It is a PNG of under 100 kB. Raises
    what `read_scenes` does.
    """
    import geopandas

    scenes = read_scenes(folder)
    shown: list[Any] = [f"{scene.datetime:%Y-%m-%d}" for scene in scenes]
    if len(set(shown)) < 2:
        shown = [f"{scene.gsd_m:.2g} m" for scene in scenes]
    elif len(set(shown)) > COLOURS:
        shown = [scene.datetime.year for scene in scenes]
    frame = geopandas.GeoDataFrame({"shown": shown}, geometry=[scene.footprint for scene in scenes], crs=4326)
    ground = shapely.box(*bbox)
    with _map(path, 1) as (axes,):
        _draw(axes, frame, "shown", f"{len(scenes)} scenes over the region", alpha=0.5, edgecolor="black")
        axes.plot(*ground.exterior.xy, color="black", linestyle="--")
        west, south, east, north = ground.buffer(0.05 * ground.length).bounds
        axes.set(xlim=(west, east), ylim=(south, north))


def plot_chips(plan: Path, path: Path) -> None:
    """Draw the chips of a plan folder where they lie, once by split and once by stratum: a PNG of under 100 kB.

    Raises what `read_table` does.
    """
    import geopandas

    table = read_table(plan / PLAN_FILE, PLAN_SCHEMA, ["bbox", "stratum", "split"])
    boxes = shapely.box(*(pc.struct_field(table["bbox"], i).to_numpy() for i in range(4)))
    chips = geopandas.GeoDataFrame(table.drop("bbox").to_pandas(), geometry=shapely.centroid(boxes), crs=4326)
    frequent = chips["stratum"].value_counts().index[: COLOURS - 1]
    chips["stratum"] = chips["stratum"].where(chips["stratum"].isin(frequent), "others")
    with _map(path, 2) as panels:
        for axes, column in zip(panels, ("split", "stratum"), strict=True):
            _draw(axes, chips.iloc[:: 1 + len(chips) // CHIPS], column, f"{len(chips)} chips by {column}", markersize=3)


def _draw(axes: Any, frame: Any, column: str, title: str, **options: Any) -> None:
    axes.set_title(title)
    few = frame[column].nunique() <= COLOURS
    legend = {"fontsize": 7, "loc": "upper left", "bbox_to_anchor": (1, 1)} if few else {"label": "year"}
    if len(frame):
        options |= {"cmap": "tab10" if few else "viridis", "legend": True, "legend_kwds": legend}
        frame.plot(column, ax=axes, categorical=few, **options)


@contextlib.contextmanager
def _map(path: Path, panels: int) -> Iterator[Any]:
    """Axes to draw on; what was drawn is saved when the block ends."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5 * panels, 4.5), layout="constrained")
    yield figure.subplots(1, panels, squeeze=False)[0]
    figure.savefig(path, dpi=80, format="png", metadata={"Software": None})
