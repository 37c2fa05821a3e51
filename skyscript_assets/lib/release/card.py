"""What people read of a release: the hub's card, the datasheet, licence and citation, filled from its figures."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any

import pyarrow.parquet as pq
import yaml

from skyscript_assets.lib.files import write_text
from skyscript_assets.lib.pairs.export import write_credits
from skyscript_assets.lib.release.data import SPLIT_NAMES
from skyscript_assets.lib.release.figures import Figures, day
from skyscript_assets.lib.release.text import markdown, table
from skyscript_assets.lib.settings.base import STYLES, CaptionPolicy
from skyscript_assets.lib.settings.plant import ReleaseSettings
from skyscript_assets.lib.settings.regions import OSM_ATTRIBUTION, OSM_LICENCE

SHOWN = 20
"""Rows of a table in the card."""

EXAMPLES = 3
PERSON_GSD_M = 0.3
"""Below this a person may be a few pixels, above it none."""

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_MORE_SIZES = ((10_000_000, "1M<n<10M"), (100_000_000, "10M<n<100M"), (1_000_000_000, "100M<n<1B"))


@dataclass(frozen=True)
class Told:
    """What is said of a release.

    Attributes:
        settings: Name, version and people.
        figures: What is counted.
        sampling: How objects were drawn and split, in sentences.
        policy: That of the captions.
        audit: Rows of `audit.parquet`.
        leaks: Figures of the leak report by name; none where there is no report.
        removed: Pairs that were eligible and stay out.
        changes: Pairs added, removed and changed since the release before; None where there was none.
    """

    settings: ReleaseSettings
    figures: Figures
    sampling: str
    policy: CaptionPolicy
    audit: Sequence[Mapping[str, Any]] = ()
    leaks: Mapping[str, Any] = field(default_factory=dict)
    removed: int = 0
    changes: Mapping[str, int] | None = None

    @property
    def about(self) -> str:
        """What the data set is, in a sentence; plain text."""
        whole = self.figures.whole
        kind = "painted images" if whole["painted"] == whole["pairs"] else "aerial and satellite images"
        return (
            f"{whole['pairs']:,} chips of {kind} with captions that follow by rules from OpenStreetMap, in "
            f"{len(self.figures.regions)} regions."
        )

    @property
    def errors(self) -> list[str]:
        """What is known to be wrong, each a sentence; plain text."""
        whole = self.figures.whole
        painted = [
            f"{whole['painted']:,} images are painted from the map itself: they prove nothing about photographs."
        ]
        return [
            "OpenStreetMap is not complete, and not equally so everywhere: what a caption does not say may be there.",
            f"The map object of {whole['edited']:,} pairs was edited after its image was taken: it may not be in it.",
            f"There are {whole['texts']:,} different texts for {whole['pairs']:,} pairs: equal ones are no negatives.",
            "Images and map may be metres apart; chips were planned where the map has the object.",
            *(painted if whole["painted"] else []),
        ]

    @property
    def persons(self) -> str:
        """What there may be about people; plain text."""
        said = "are in no caption" if self.policy == "ours" else "may be in captions, whose policy is the paper's"
        finest = self.figures.whole["finest"]
        seen = "may be a few pixels" if finest < PERSON_GSD_M else "cannot be seen"
        return f"Tags that are names, contacts and addresses {said}; a person {seen} at {finest:.3g} m."

    @property
    def bias(self) -> str:
        """Where the pairs are and where not; plain text."""
        whole = self.figures.whole
        shares = sorted(((row["pairs"] / whole["pairs"], row["region"]) for row in self.figures.regions), reverse=True)
        listed = ", ".join(f"{region} {share:.1%}" for share, region in shares[:SHOWN])
        return (
            f"All pairs lie in {len(shares)} regions ({listed}) on {whole['cells']:,} cells of ground; ground where "
            "OpenStreetMap has few tagged objects is rare, and the rest of the world is not there."
        )


def write_card(told: Told, release: Path) -> None:
    """Write `README.md`, `DATASHEET.md`, `LICENSE.md`, `credits.json`, `CITATION.cff` and examples of each source."""
    values = _values(told) | {"examples": _examples(told, release)}
    for template, name in (("card.md", "README.md"), ("datasheet.md", "DATASHEET.md")):
        text = Path(__file__).with_name(template).read_text(encoding="utf-8")
        filled = Template(text).substitute(values)
        write_text(release / name, "\n".join(line.rstrip() for line in filled.splitlines()) + "\n")
    stated = markdown(told.settings.licence, 10_000)
    write_text(
        release / "LICENSE.md",
        f"# Licences of {told.settings.name}\n\n{stated}\n\nText, tags and geometry: {OSM_ATTRIBUTION}, {OSM_LICENCE}. "
        f"Images:\n\n{values['owners']}\n",
    )
    write_credits(release, (tuple(row.values()) for row in told.figures.owners))
    write_text(release / "CITATION.cff", _citation(told.settings))


def _values(told: Told) -> dict[str, str]:
    settings, figures, whole = told.settings, told.figures, told.figures.whole
    changes = (
        "This is the first release."
        if told.changes is None
        else (
            "Since the release before "
            + ", ".join(f"{n:,} pairs {what}" for what, n in told.changes.items())
            + "; `changes.csv` names each."
        )
    )
    gone = f"{told.removed:,} pairs that were asked for stay out of this one." if told.removed else ""
    leaks = ", ".join(f"{name.replace('_', ' ')}: {value}" for name, value in told.leaks.items())
    return {
        "front": _front(told).strip(),
        "name": settings.name,
        "config": figures.sources[0]["source"],
        "version": settings.version,
        "authors": markdown(", ".join(settings.authors), 500),
        "about": told.about,
        "pairs": f"{whole['pairs']:,}",
        "splits": ", ".join(f"{whole[name]:,} {name}" for name in SPLIT_NAMES.values()),
        "painted": f"{whole['painted']:,} of the images are painted: no photographs." if whole["painted"] else "",
        "regions": f"{len(figures.regions):,}",
        **{name: f"{whole[name]:,}" for name in ("cells", "scenes")},
        **{name: day(whole[name]) for name in ("first", "last")},
        **{name: f"{whole[name]:.3g}" for name in ("finest", "coarsest")},
        "sources": _breakdown("source", figures.sources),
        "region_table": _breakdown("region", figures.regions),
        "tags": table(("tag", "pairs"), [(row["tag"], row["pairs"]) for row in figures.tags[:SHOWN]]),
        "style": settings.style,
        "styles": ", ".join(f"`{style}`" for style in STYLES),
        "sampling": markdown(told.sampling, 2_000),
        "errors": "\n".join(f"- {markdown(each, 500)}" for each in told.errors),
        "audit": _audit(told.audit),
        "leaks": f"What the splits have in common: {markdown(leaks, 2_000)}." if leaks else "",
        "changes": changes,
        "licence": markdown(settings.licence, 10_000),
        "osm": OSM_ATTRIBUTION,
        "odbl": OSM_LICENCE,
        "owners": table(
            ("source", "attribution", "licence", "images"), [tuple(row.values()) for row in figures.owners]
        ),
        "contact": markdown(settings.contact, 200),
        "removed": gone,
        "persons": told.persons,
    }


def _front(told: Told) -> str:
    """The card's YAML: what the hub and `datasets` read."""
    figures, whole = told.figures, told.figures.whole
    alone = {row["licence"] for row in figures.owners} == {OSM_LICENCE}
    named = {"license_name": "odbl-and-those-of-the-images", "license_link": "LICENSE.md"}
    sizes = (*_SIZES, *_MORE_SIZES)
    configs = [
        {
            "config_name": row["source"],
            "data_files": [
                {"split": name, "path": f"data/{row['source']}/{name}-*.parquet"}
                for name in SPLIT_NAMES.values()
                if row[name]
            ],
        }
        for row in figures.sources
    ]
    told_of = {
        "pretty_name": f"{told.settings.name} {told.settings.version}",
        "license": "odbl" if alone else "other",
        **({} if alone else named),
        "language": ["en"],
        "task_categories": ["zero-shot-image-classification", "image-to-text", "text-to-image"],
        "size_categories": [next((name for most, name in sizes if whole["pairs"] < most), "n>1B")],
        "tags": ["remote-sensing", "openstreetmap", "geospatial", "croissant"],
        "configs": configs,
    }
    return str(yaml.safe_dump(told_of, sort_keys=False, allow_unicode=True))


def _breakdown(name: str, rows: Sequence[Mapping[str, Any]]) -> str:
    header = (name, "pairs", *SPLIT_NAMES.values(), "different texts", "scenes", "m a pixel", "images from", "to")
    return table(
        header,
        [
            (
                row[name],
                *(row[each] for each in ("pairs", *SPLIT_NAMES.values(), "texts", "scenes")),
                f"{row['finest']:.3g} - {row['coarsest']:.3g}",
                day(row["first"]),
                day(row["last"]),
            )
            for row in rows
        ],
    )


def _audit(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return "No reader has judged its captions yet."
    header = ("style", "captions judged", "right", "95 % interval")
    between = [
        (row["style"], row["captions"], f"{row['share']:.1%}", f"{row['low']:.1%} - {row['high']:.1%}") for row in rows
    ]
    return f"Readers who did not know the rules' reasons judged captions:\n\n{table(header, between)}"


def _examples(told: Told, release: Path) -> str:
    """A table of pairs of each source from the beginning, the middle and the end of its first row group."""
    (release / "examples").mkdir(exist_ok=True)
    lines = [f"| image | text | {STYLES[-1]} | tags | source |", "| --- | --- | --- | --- | --- |"]
    for source in (row["source"] for row in told.figures.sources):
        first = min((release / "data" / source).glob("*.parquet"))
        columns = ["image", "chip_id", "text", STYLES[-1], "tags"]
        rows = pq.ParquetFile(first).read_row_group(0, columns=columns)
        picked = sorted({i * (rows.num_rows - 1) // (EXAMPLES - 1) for i in range(EXAMPLES)})
        for row in rows.take(picked).to_pylist():
            path = f"examples/{row['chip_id']}.jpg"
            (release / path).write_bytes(row["image"]["bytes"])
            said = [markdown(text, 300) for text in (row["text"], row[STYLES[-1]], ", ".join(row["tags"]))]
            lines.append(f"| ![]({path}) | {' | '.join(said)} | {source} |")
    return "\n".join(lines)


def _citation(settings: ReleaseSettings) -> str:
    published: dict[str, dt.date] = {"date-released": settings.published} if settings.published else {}
    return str(
        yaml.safe_dump(
            {
                "cff-version": "1.2.0",
                "message": "If you use this data set, cite it, and credit the owners of the images (credits.json).",
                "type": "dataset",
                "title": settings.name,
                "version": settings.version,
                **published,
                "authors": [{"name": author} for author in settings.authors],
            },
            sort_keys=False,
            allow_unicode=True,
        )
    )
