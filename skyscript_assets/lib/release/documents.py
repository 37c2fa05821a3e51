"""What people and programs read of a release: `templates/` (Jinja), filled with its figures.

Sources: huggingface.co/docs/hub (dataset cards); docs.mlcommons.org/croissant (Croissant 1.1, RAI 1.0, geo 1.0);
stacspec.org (STAC 1.1); citation-file-format.github.io.
"""

import datetime as dt
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from skyscript_assets.lib.files import file_sha256, write_text
from skyscript_assets.lib.release.data import SPLIT_NAMES, ReleaseConfig
from skyscript_assets.lib.release.figures import Figures, Rows
from skyscript_assets.lib.release.text import markdown, plain
from skyscript_assets.lib.settings.base import STYLES
from skyscript_assets.lib.settings.regions import OSM_ATTRIBUTION, OSM_LICENCE

EXAMPLES, LONG = 3, 10_000
"""Examples of a source, characters of a long text."""

_TEMPLATES = Path(__file__).with_name("templates")
_SIZES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B", "1B<n<10B")


def write_documents(config: ReleaseConfig, figures: Figures, more: Mapping[str, Any], release: Path) -> None:
    """Write README.md (the hub's card), DATASHEET.md, LICENSE.md, CITATION.cff, collection.json and croissant.json.

    `more` has `audit`: rows of `audit.parquet`; `leaks`: chips dropped by kind of leak; `gone`: pairs that stay out;
    `changes`: pairs added, removed and changed since the release before, None where there was none. The folder has all
    other files.
    """
    facts = {
        **dict(config),
        **vars(figures),
        **more,
        "boxes": figures.boxes,
        "size": _SIZES[max(0, len(str(figures.whole["pairs"])) - 3)],
        "splits": list(SPLIT_NAMES.values()),
        "styles": STYLES,
        "osm": OSM_ATTRIBUTION,
        "odbl": OSM_LICENCE,
        "examples": _examples(figures, release),
    }
    words = yaml.safe_load((_TEMPLATES / "words.yaml").read_text(encoding="utf-8"))
    sentences = {name: _environment(_shown).from_string(text).render(facts) for name, text in words.items()}
    facts["files"] = [
        {"name": path.relative_to(release).as_posix(), "bytes": path.stat().st_size, "sha256": file_sha256(path)}
        for path in sorted(release.rglob("*.parquet"))
    ]
    for name in ("README.md", "DATASHEET.md", "LICENSE.md", "CITATION.cff", "collection.json", "croissant.json"):
        write_text(release / name, rendered(name, facts | {"said": sentences}))


def rendered(name: str, facts: Mapping[str, Any]) -> str:
    """A template filled with facts; texts in them are escaped for the kind of file that it is of."""
    text = _environment(_markdown if name.endswith(".md") else _quoted).get_template(name).render(facts)
    if name.endswith(".json"):
        # What is said may stand inside a page's `script` element.
        text = json.dumps(json.loads(text), indent=1, ensure_ascii=False).replace("<", "\\u003c") + "\n"
    return text


def _environment(finalize: Callable[[Any], str]) -> Environment:
    """Templates in which every value passes through a function; what stands in them as it is does not."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        finalize=finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 (`finalize` escapes)
    )
    environment.filters["plain"] = plain
    return environment


def _shown(value: Any) -> str:
    """A value for people: numbers with commas or three digits, days."""
    if isinstance(value, dt.datetime):
        return f"{value:%Y-%m-%d}"
    if isinstance(value, float):
        return f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _markdown(value: Any) -> str:
    """A value in Markdown; `safe` ones, which are no text of others, stay as they are."""
    return markdown(value, LONG) if isinstance(value, str) and not hasattr(value, "__html__") else _shown(value)


def _quoted(value: Any) -> str:
    """A value as JSON, texts without the quotation marks around them, times as RFC 3339."""
    if isinstance(value, dt.datetime):
        return f"{value:%Y-%m-%dT%H:%M:%SZ}"
    return json.dumps(plain(value, LONG), ensure_ascii=False)[1:-1] if isinstance(value, str) else json.dumps(value)


def _examples(figures: Figures, release: Path) -> Rows:
    """Pairs of each source from the beginning, the middle and the end of its first row group; writes their images."""
    (release / "examples").mkdir(exist_ok=True)
    found: Rows = []
    for source in (row["source"] for row in figures.sources):
        first = min((release / "data" / source).glob("*.parquet"))
        rows = pq.ParquetFile(first).read_row_group(
            0, columns=["image", "chip_id", "text", STYLES[-1], "tags", "source"]
        )
        found += rows.take(sorted({i * (len(rows) - 1) // (EXAMPLES - 1) for i in range(EXAMPLES)})).to_pylist()
    for row in found:
        (release / "examples" / f"{row['chip_id']}.jpg").write_bytes(row["image"]["bytes"])
    return found
