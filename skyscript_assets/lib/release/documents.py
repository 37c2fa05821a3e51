"""What people and programs read of a release: `templates/`, filled with its figures.

Sources: huggingface.co/docs/hub (dataset cards); docs.mlcommons.org/croissant (Croissant 1.1, RAI 1.0, geo 1.0);
stacspec.org (STAC 1.1); citation-file-format.github.io.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

import pyarrow.parquet as pq
import yaml

from skyscript_assets.lib.files import file_sha256, write_text
from skyscript_assets.lib.release.data import SPLIT_NAMES, ReleaseInputs
from skyscript_assets.lib.release.figures import Figures, Rows
from skyscript_assets.lib.release.text import markdown, plain, table
from skyscript_assets.lib.settings.base import STYLES
from skyscript_assets.lib.settings.plant import ReleaseSettings
from skyscript_assets.lib.settings.regions import OSM_ATTRIBUTION, OSM_LICENCE

PARQUET = "application/x-parquet"
SHOWN, EXAMPLES, LONG = 20, 3, 10_000
"""Rows of a table, examples of a source, characters of a long text."""

_TEMPLATES = Path(__file__).with_name("templates")
_SIZES = ("1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B")


def write_documents(inputs: ReleaseInputs, figures: Figures, more: Mapping[str, Any], release: Path) -> None:
    """Write README.md (the hub's card), DATASHEET.md, LICENSE.md, CITATION.cff, collection.json and croissant.json.

    Args:
        inputs: What the release is made from.
        figures: What is counted of it.
        more: `audit`: rows of `audit.parquet`; `leaks`: chips dropped by kind of leak; `gone`: pairs that stay out;
            `changes`: pairs added, removed and changed since the release before, None where there was none.
        release: Its folder, with all other files.
    """
    facts = _facts(inputs, figures) | {"gone": more["gone"]}
    facts |= _words(inputs, figures, more, facts)
    shown = {name: markdown(value, LONG) if isinstance(value, str) else value for name, value in facts.items()}
    shown |= _tables(figures, more, facts) | {"examples": _examples(figures, release)}
    for name in ("README.md", "DATASHEET.md", "LICENSE.md"):
        lines = _filled(name, shown).splitlines()
        write_text(release / name, "\n".join(line.rstrip() for line in lines) + "\n")
    stated = facts | _catalogued(inputs.settings, figures, release)
    write_text(release / "CITATION.cff", _filled("CITATION.cff", _quoted(stated)))
    for name in ("collection.json", "croissant.json"):
        document = {key: value for key, value in json.loads(_filled(name, _quoted(stated))).items() if value != ""}
        # What is said may stand inside a page's `script` element.
        text = json.dumps(document, indent=1, ensure_ascii=False).replace("<", "\\u003c")
        write_text(release / name, text + "\n")


def _filled(name: str, values: Mapping[str, object]) -> str:
    return Template((_TEMPLATES / name).read_text(encoding="utf-8")).substitute(values)


def _quoted(values: Mapping[str, Any]) -> dict[str, str]:
    """Values as JSON, texts without the quotation marks around them."""
    dumped = {name: json.dumps(value, ensure_ascii=False) for name, value in values.items()}
    return {name: text[1:-1] if isinstance(values[name], str) else text for name, text in dumped.items()}


def _facts(inputs: ReleaseInputs, figures: Figures) -> dict[str, Any]:
    """What is counted and set, as plain text or JSON values."""
    settings, plan, whole, regions = inputs.settings, inputs.plan, figures.whole, figures.regions
    return {
        **{name: f"{value:,}" for name, value in whole.items() if isinstance(value, int)},
        **{name: f"{whole[name]:%Y-%m-%d}" for name in ("first", "last")},
        **{name: float(f"{whole[name]:.3g}") for name in ("finest", "coarsest")},
        **{name: getattr(settings, name) for name in ("name", "version", "style", "contact", "licence")},
        **{name: getattr(plan, name) for name in ("quota", "seed", "min_tile_px", "max_tile_px")},
        "authors": ", ".join(settings.authors),
        "kind": "painted images" if whole["painted"] == whole["pairs"] else "aerial and satellite images",
        "regions": f"{len(regions):,}",
        "shares": ", ".join(f"{row['region']} {row['pairs'] / whole['pairs']:.1%}" for row in regions[:SHOWN]),
        "square_share": f"{plan.square_share:.0%}",
        "zoom": inputs.zoom,
        "osm": OSM_ATTRIBUTION,
        "odbl": OSM_LICENCE,
    }


def _words(
    inputs: ReleaseInputs, figures: Figures, more: Mapping[str, Any], facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Sentences that several documents share."""
    words: dict[str, str] = yaml.safe_load((_TEMPLATES / "words.yaml").read_text(encoding="utf-8"))

    def say(name: str, **others: Any) -> str:
        return Template(words[name]).substitute(facts, **others)

    wrong = ["incomplete", "edited", "alike", "shifted", *(["painted"] if figures.whole["painted"] else [])]
    return {
        "about": say("about"),
        "sampling": say("sampling", drawn=say(inputs.plan.sampling)),
        "bias": say("bias"),
        "persons": say(inputs.policy),
        "errors": [say(name) for name in wrong],
        "changes": say("first") if more["changes"] is None else say("since", **more["changes"]),
        "audit": say("audited" if more["audit"] else "unaudited"),
        "gone": say("gone") if more["gone"] else "",
    }


def _tables(figures: Figures, more: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, str]:
    """What the Markdown documents show as tables and lists; texts escaped."""
    alone = {row["licence"] for row in figures.owners} == {OSM_LICENCE}
    index = max(0, len(str(figures.whole["pairs"])) - 3)
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
    judged = [
        (row["style"], row["captions"], f"{row['share']:.1%}", f"{row['low']:.1%} - {row['high']:.1%}")
        for row in more["audit"]
    ]
    leaks = ", ".join(f"{kind} {n:,}" for kind, n in more["leaks"].items())
    return {
        "hub_licence": "odbl" if alone else "other\nlicense_name: odbl-and-those-of-images\nlicense_link: LICENSE.md",
        "size": f"{_SIZES[index - 1]}<n<{_SIZES[index]}" if index else f"n<{_SIZES[0]}",
        "configs": json.dumps(configs),
        "config": figures.sources[0]["source"],
        "splits": ", ".join(f"{facts[name]} {name}" for name in SPLIT_NAMES.values()),
        "styles": ", ".join(f"`{style}`" for style in STYLES),
        "source_table": _breakdown("source", figures.sources),
        "region_table": _breakdown("region", figures.regions),
        "tags": table(("tag", "pairs"), [tuple(row.values()) for row in figures.tags[:SHOWN]]),
        "errors": "\n".join(f"- {markdown(each, LONG)}" for each in facts["errors"]),
        "owners": table(
            ("source", "attribution", "licence", "images"), [tuple(row.values()) for row in figures.owners]
        ),
        "leaks": f"Left out because they repeat, or let through between splits: {markdown(leaks, LONG)}."
        if leaks
        else "",
        "changes": facts["changes"],
        "audit_table": table(("style", "judged", "right", "95 % interval"), judged) if judged else "",
    }


def _breakdown(name: str, rows: Rows) -> str:
    counts = ("pairs", *SPLIT_NAMES.values(), "texts", "scenes")
    shown = [
        (
            *(row[each] for each in (name, *counts)),
            *(f"{row[each]:.3g}" for each in ("finest", "coarsest")),
            *(f"{row[each]:%Y-%m-%d}" for each in ("first", "last")),
        )
        for row in rows
    ]
    return table((name, *counts, "m a pixel from", "to", "images from", "to"), shown)


def _examples(figures: Figures, release: Path) -> str:
    """A table of pairs of each source from the beginning, the middle and the end of its first row group."""
    (release / "examples").mkdir(exist_ok=True)
    shown = ("text", STYLES[-1], "tags", "source")
    lines = [f"| image | {' | '.join(shown)} |", "| --- " * (1 + len(shown)) + "|"]
    for source in (row["source"] for row in figures.sources):
        first = min((release / "data" / source).glob("*.parquet"))
        rows = pq.ParquetFile(first).read_row_group(0, columns=["image", "chip_id", *shown])
        for row in rows.take(sorted({i * (len(rows) - 1) // (EXAMPLES - 1) for i in range(EXAMPLES)})).to_pylist():
            path = f"examples/{row['chip_id']}.jpg"
            (release / path).write_bytes(row["image"]["bytes"])
            said = row | {"tags": ", ".join(row["tags"])}
            lines.append(f"| ![]({path}) | {' | '.join(markdown(said[name], 300) for name in shown)} |")
    return "\n".join(lines)


def _catalogued(settings: ReleaseSettings, figures: Figures, release: Path) -> dict[str, Any]:
    """What only the catalogs and the citation state, as JSON values."""
    whole = figures.whole
    owners = dict.fromkeys((plain(row["attribution"], 500), plain(row["licence"], 500)) for row in figures.owners)
    licences = sorted({licence for _, licence in owners} - {OSM_LICENCE})
    authors = [{"name": plain(author)} for author in settings.authors]
    osm = {"name": OSM_ATTRIBUTION, "roles": ["producer"], "url": "https://www.openstreetmap.org/copyright"}
    files, same = sorted(release.rglob("*.parquet")), {"encodingFormat": PARQUET}
    return {
        **dict(zip(("west", "south", "east", "north"), figures.boxes[0], strict=True)),
        **{name: f"{whole[of]:%Y-%m-%dT%H:%M:%SZ}" for name, of in (("begin", "first"), ("end", "last"))},
        "contact": plain(settings.contact, 500),
        "boxes": figures.boxes,
        "authors": authors,
        "creators": [{"@type": "Organization", **author} for author in authors],
        "cited": f"{', '.join(author['name'] for author in authors)}: {settings.name} {settings.version}.",
        "published": str(settings.published or ""),
        "licences": ["https://opendatacommons.org/licenses/odbl/1-0/", *licences],
        "stac_licence": "other" if licences else OSM_LICENCE,
        "credit": "; ".join(dict.fromkeys((OSM_ATTRIBUTION, *(attribution for attribution, _ in owners)))),
        "providers": [osm, *({"name": name, "description": of, "roles": ["licensor"]} for name, of in owners)],
        "keywords": ["remote sensing", "OpenStreetMap", *(plain(row["tag"]) for row in figures.tags[:10])],
        "parquet": PARQUET,
        "distribution": [
            *(
                {"@type": "cr:FileObject", **_named(path.relative_to(release).as_posix(), path), **same}
                for path in files
            ),
            *(
                {
                    "@type": "cr:FileSet",
                    "@id": f"files-{source}",
                    "name": source,
                    "includes": f"data/{source}/*.parquet",
                }
                | same
                for source in (row["source"] for row in figures.sources)
            ),
        ],
        "record_sets": [json.loads(_filled("record_set.json", row)) for row in figures.sources],
    }


def _named(name: str, path: Path) -> dict[str, str]:
    size = f"{path.stat().st_size} B"
    return {"@id": name, "name": name, "contentUrl": name, "contentSize": size, "sha256": file_sha256(path)}
