"""What there is in a release: counts, ground, times, tags, licences, changes. All is read from its Parquet files."""

from __future__ import annotations

import csv
import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from skyscript_assets.lib.errors import CorruptInputError, TooLittleDataError
from skyscript_assets.lib.files import picture_file, replacing
from skyscript_assets.lib.geometry import Bounds
from skyscript_assets.lib.release.data import SPLIT_NAMES, data_files
from skyscript_assets.lib.release.text import cell, plain

Rows = list[dict[str, Any]]

PLACES, TAGS_SHOWN, PANELS = 4_000, 20, 9
"""Pairs of a region on the map, tags in a picture, regions with a map of their own."""

_COUNTED = """
SELECT region, source, count(*) AS pairs, count(*) FILTER (split = 'train') AS train,
    count(*) FILTER (split = 'val') AS validation, count(*) FILTER (split = 'test') AS test,
    count(DISTINCT text) AS texts, count(DISTINCT cell) AS cells, count(DISTINCT (region, source, scene_id)) AS scenes,
    count(*) FILTER (osm_timestamp > datetime) AS edited, count(*) FILTER (synthetic) AS painted,
    min(bbox[1]) AS west, min(bbox[2]) AS south, max(bbox[3]) AS east, max(bbox[4]) AS north,
    min(datetime) AS first, max(datetime) AS last, min(gsd_m) AS finest, max(gsd_m) AS coarsest
FROM pairs GROUP BY GROUPING SETS ((), (region), (source)) ORDER BY region, source
"""
_CHANGED = """
WITH new AS (SELECT chip_id, md5(concat_ws(chr(31), sha256, split, text)) AS print FROM pairs),
    old AS (SELECT chip_id, md5(concat_ws(chr(31), sha256, split, text)) AS print FROM earlier)
SELECT chip_id,
    CASE WHEN old.print IS NULL THEN 'added' WHEN new.print IS NULL THEN 'removed' ELSE 'changed' END
FROM new FULL JOIN old USING (chip_id) WHERE new.print IS DISTINCT FROM old.print ORDER BY chip_id
"""


@dataclass(frozen=True)
class Figures:
    """What the card and its like state, each computed.

    Attributes:
        whole: Pairs, by split, different texts, cells of ground, sides of the box, times, GSD, scenes; pairs whose OSM
            object was edited after the image was taken (`edited`), and of painted images (`painted`).
        sources: The same by source.
        regions: The same by region.
        owners: Source, attribution, licence and images of each owner.
        tags: Pairs by tag, falling.
        gsds: Pairs by GSD, metres, rounded to three digits.
        months: Pairs by month of the image.
    """

    whole: dict[str, Any]
    sources: Rows
    regions: Rows
    owners: Rows
    tags: Rows
    gsds: Rows
    months: Rows

    @property
    def boxes(self) -> list[Bounds]:
        """(west, south, east, north) in degrees of all chips, then of each region's; across 180 degrees west > east."""
        sides = [[row[side] for side in ("west", "south", "east", "north")] for row in (self.whole, *self.regions)]
        return [(west, south, east - 360.0 * (east > 180.0), north) for west, south, east, north in sides]


@contextmanager
def _pairs(release: Path, name: str = "pairs", db: duckdb.DuckDBPyConnection | None = None) -> Iterator[Any]:
    """The pairs of a release as a view."""
    files = [str(path) for path in data_files(release)]
    if not files:
        raise TooLittleDataError(
            f"{release} holds no pair: the manifest has none that is eligible, or all were removed"
        )
    with db.cursor() if db is not None else duckdb.connect() as own:
        try:
            own.read_parquet(files).create_view(name, replace=True)
            yield own
        except duckdb.Error as error:
            raise CorruptInputError(f"{release}: its Parquet files are not those of a release ({error})") from error


def figures_of(release: Path) -> Figures:
    """Count what is in a release.

    Raises:
        TooLittleDataError: there is no pair.
        CorruptInputError: its files are not those of a release.
    """
    with _pairs(release) as db:

        def ask(query: str) -> Rows:
            return list(db.sql(query).to_arrow_table().to_pylist())

        counted = ask(_COUNTED)
        return Figures(
            whole=next(row for row in counted if row["region"] is None and row["source"] is None),
            sources=[row for row in counted if row["source"] is not None],
            regions=[row for row in counted if row["region"] is not None],
            owners=ask("SELECT source, attribution, licence, count(*) AS images FROM pairs GROUP BY ALL ORDER BY ALL"),
            tags=ask(
                "SELECT tag, count(*) AS pairs FROM (SELECT unnest(tags) AS tag FROM pairs) "
                "GROUP BY tag ORDER BY pairs DESC, tag"
            ),
            gsds=ask(
                "SELECT round(gsd_m, 2 - floor(log10(gsd_m))::INT) AS gsd_m, count(*) AS pairs "
                "FROM pairs GROUP BY 1 ORDER BY 1"
            ),
            months=ask(
                "SELECT strftime(datetime AT TIME ZONE 'UTC', '%Y-%m') AS month, count(*) AS pairs "
                "FROM pairs GROUP BY 1 ORDER BY 1"
            ),
        )


def write_tags(figures: Figures, path: Path) -> None:
    """Write how many pairs have each tag, CSV."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("tag", "pairs"))
        table.writerows((cell(row["tag"]), row["pairs"]) for row in figures.tags)


def write_changes(release: Path, previous: Path, path: Path) -> dict[str, int]:
    """Write the pairs that were added, removed or changed (image, text or split) since an earlier release, CSV by id.

    Returns:
        Their numbers.

    Raises:
        TooLittleDataError, CorruptInputError: the earlier one is no release.
    """
    counts = dict.fromkeys(("added", "removed", "changed"), 0)
    with _pairs(release) as db, _pairs(previous, "earlier", db) as both:
        found = both.execute(_CHANGED)
        with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(("chip_id", "change"))
            while rows := found.fetchmany(8_192):
                for chip_id, change in rows:
                    table.writerow((cell(chip_id), change))
                    counts[change] += 1
    return counts


def plot(release: Path, figures: Figures, folder: Path) -> None:
    """Draw `map.png`, where the pairs lie, and `distributions.png`: tags, GSD and months."""
    from matplotlib.figure import Figure

    shown = [row["region"] for row in sorted(figures.regions, key=lambda row: -row["pairs"])][:PANELS]
    with _pairs(release) as db:
        places = db.execute(
            "SELECT region, split, lon, lat FROM pairs WHERE list_contains($1, region) QUALIFY row_number() OVER "
            "(PARTITION BY region ORDER BY md5(chip_id)) <= $2 ORDER BY md5(chip_id)",
            [shown, PLACES],
        ).fetchall()
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.8 * rows), layout="constrained")
    for panel, region in zip(figure.subplots(rows, columns, squeeze=False).flat, shown, strict=False):
        for split, name in SPLIT_NAMES.items():
            mine = [(lon, lat) for other, of, lon, lat in places if other == region and of == split]
            panel.scatter(*zip(*mine, strict=True), s=4, label=name) if mine else None
        panel.set_title(region, fontsize=9)
        panel.ticklabel_format(useOffset=False)
        panel.tick_params(labelsize=6)
        panel.legend(fontsize=6, markerscale=3)
    for panel in list(figure.axes)[len(shown) :]:
        panel.set_axis_off()
    _save(figure, folder / "map.png")
    figure = Figure(figsize=(11.0, 4.2), layout="constrained")
    for panel, (title, counted) in zip(figure.subplots(1, 3), _distributions(figures), strict=True):
        panel.barh(range(len(counted)), [n for _, n in counted])
        # A dollar sign would begin a formula; signs that the font lacks would be boxes.
        labels = [label.encode("ascii", "replace").decode("ascii") for label, _ in counted]
        panel.set_yticks(range(len(counted)), labels, fontsize=6, parse_math=False)
        panel.invert_yaxis()
        panel.set_title(title, fontsize=9)
        panel.tick_params(axis="x", labelsize=6)
    _save(figure, folder / "distributions.png")


def _distributions(figures: Figures) -> list[tuple[str, list[tuple[str, int]]]]:
    def few(found: list[tuple[str, int]]) -> list[tuple[str, int]]:
        """At most as many bars as tags: neighbours together where there are more."""
        step = -(-len(found) // TAGS_SHOWN) or 1
        parts = [found[i : i + step] for i in range(0, len(found), step)]
        return [
            (part[0][0] if len(part) == 1 else f"{part[0][0]} - {part[-1][0]}", sum(n for _, n in part))
            for part in parts
        ]

    return [
        ("pairs by tag", [(plain(row["tag"], 40), row["pairs"]) for row in figures.tags[:TAGS_SHOWN]]),
        ("pairs by GSD, m", few([(f"{row['gsd_m']:g}", row["pairs"]) for row in figures.gsds])),
        ("pairs by month of the image", few([(row["month"], row["pairs"]) for row in figures.months])),
    ]


def _save(figure: Any, path: Path) -> None:
    with picture_file(path) as buffer:
        figure.savefig(buffer, dpi=90, format="png", metadata={"Software": None})


def day(moment: dt.datetime) -> str:
    """The day of a moment."""
    return f"{moment:%Y-%m-%d}"
