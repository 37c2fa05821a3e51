"""What there is in a release: counts, ground, times, tags, licences, changes. All is read from its Parquet files."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import yaml

from skyscript_assets.lib.errors import CorruptInputError, TooLittleDataError
from skyscript_assets.lib.files import picture_file
from skyscript_assets.lib.geometry import Bounds
from skyscript_assets.lib.release.data import SPLIT_NAMES, data_files
from skyscript_assets.lib.release.text import plain
from skyscript_assets.lib.settings.base import STYLES

Rows = list[dict[str, Any]]

PLACES, TAGS_SHOWN, PANELS = 4_000, 20, 9
"""Pairs of a region on the map, tags in a picture, regions with a map of their own."""

_QUERIES = yaml.safe_load(Path(__file__).with_name("templates").joinpath("figures.yaml").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Figures:
    """What the card and its like state, each computed.

    `whole` has pairs, by split, different texts, cells of ground, sides of the box, times, GSD, scenes; pairs whose OSM
    object was edited after the image was taken (`edited`), and of painted images (`painted`); `sources` and `regions`
    the same by each. `owners` have source, attribution, licence and images, `tags` their pairs, falling.
    """

    whole: dict[str, Any]
    sources: Rows
    regions: Rows
    owners: Rows
    tags: Rows

    @property
    def boxes(self) -> list[Bounds]:
        """(west, south, east, north) in degrees of all chips, then of each region's; across 180 degrees west > east."""
        sides = [[row[side] for side in ("west", "south", "east", "north")] for row in (self.whole, *self.regions)]
        return [(west, south, east - 360.0 * (east > 180.0), north) for west, south, east, north in sides]


@contextmanager
def _pairs(**releases: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database with the pairs of releases as views; what does not fit into memory goes beside the first one."""
    beside = str(next(iter(releases.values())) / ".spilled")
    with duckdb.connect(config={"temp_directory": beside}) as db:
        for name, release in releases.items():
            if not (files := [str(path) for path in data_files(release)]):
                raise TooLittleDataError(
                    f"{release} holds no pair: none is eligible, all were removed, or it is no release"
                )
            try:
                db.read_parquet(files).create_view(name)
            except duckdb.Error as error:
                raise CorruptInputError(f"{release}: its Parquet files are broken ({error})") from error
        try:
            yield db
        except duckdb.BinderException as error:
            where = " or ".join(map(str, releases.values()))
            raise CorruptInputError(f"{where}: the files are not those of a release ({error})") from error


def figures_of(release: Path) -> Figures:
    """Count what is in a release.

    Raises:
        TooLittleDataError: there is no pair.
        CorruptInputError: its files are not those of a release.
    """
    with _pairs(pairs=release) as db:
        found = {name: db.sql(query).to_arrow_table().to_pylist() for name, query in _QUERIES["counts"].items()}
    counted = found.pop("counted")
    return Figures(
        whole=next(row for row in counted if row["region"] is row["source"] is None),
        sources=[row for row in counted if row["source"] is not None],
        regions=[row for row in counted if row["region"] is not None],
        **found,
    )


def write_changes(release: Path, previous: Path, path: Path) -> dict[str, int]:
    """Write the chip ids of pairs added, removed or changed (image, texts or split) since an earlier release; counts.

    Raises:
        TooLittleDataError, CorruptInputError: the earlier one is no release.
    """
    with _pairs(pairs=release, earlier=previous) as db:
        changed = db.sql(_QUERIES["changed"].format(said=", ".join(("text", *STYLES))))
        changed.to_csv(str(path), header=True)
        counts = dict(changed.aggregate("change, count(*)", "change").fetchall())
    return {change: counts.get(change, 0) for change in ("added", "removed", "changed")}


def plot(release: Path, figures: Figures) -> None:
    """Draw `map.png`, where the pairs lie, and `distributions.png`: tags, GSD and dates."""
    from matplotlib.figure import Figure

    shown = [row["region"] for row in sorted(figures.regions, key=lambda row: -row["pairs"])][:PANELS]
    with _pairs(pairs=release) as db:
        places = db.execute(_QUERIES["mapped"], [shown, PLACES]).fetchall()
        counted = {name: db.sql(query).fetchall() for name, query in _QUERIES["distributions"].items()}
    columns, rows = min(3, len(shown)), -(-len(shown) // 3)
    chart = Figure(figsize=(4.2 * columns, 3.8 * rows), layout="constrained")
    for number, region in enumerate(shown, start=1):
        panel = chart.add_subplot(rows, columns, number, title=region)
        for split, name in SPLIT_NAMES.items():
            if mine := [place for other, of, *place in places if (other, of) == (region, split)]:
                lon, lat = zip(*mine, strict=True)
                panel.scatter(lon, lat, s=4, label=name)
        panel.ticklabel_format(useOffset=False)
        panel.tick_params(labelsize=6)
        panel.legend(fontsize=6, markerscale=3)
    bars = Figure(figsize=(11.0, 4.2), layout="constrained")
    tags, *panels = bars.subplots(1, 3)
    few = figures.tags[:TAGS_SHOWN]
    # A dollar sign would begin a formula; signs that the font lacks would be boxes.
    labels = [plain(row["tag"], 40).encode("ascii", "replace").decode("ascii") for row in few]
    tags.barh(range(len(few)), [row["pairs"] for row in few])
    tags.set_yticks(range(len(few)), labels, fontsize=6, parse_math=False)
    tags.invert_yaxis()
    tags.set_title("pairs by tag")
    for panel, (name, found) in zip(panels, counted.items(), strict=True):
        values, weights = zip(*found, strict=True)
        panel.hist(values, bins=20, weights=weights)
        panel.set_title(f"pairs by {name}")
        panel.ticklabel_format(useOffset=False)
    for name, figure in (("map.png", chart), ("distributions.png", bars)):
        with picture_file(release / name) as buffer:
            figure.savefig(buffer, dpi=90, format="png", metadata={"Software": None})
