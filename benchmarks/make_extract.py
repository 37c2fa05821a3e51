"""Make a large OSM extract by repeating real ones: every copy gets ids and a place of its own.

    python benchmarks/make_extract.py ../shared/data/osm large.osm.pbf --copies 3

The extracts of the folder are written `copies` times, each copy moved east by two degrees and its ids by 2^34, so that
no two objects share an id or ground. The result is sorted (nodes, ways, relations by id) as every extract is.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import osmium

ID_STEP = 1 << 34
"""Larger than any id of a node today."""

EAST_STEP_DEG = 2.0


class _Mover(osmium.SimpleHandler):
    """Writes every object with its ids and its place moved."""

    def __init__(self, writer: osmium.SimpleWriter, copy: int) -> None:
        super().__init__()
        self._writer, self._ids, self._east = writer, copy * ID_STEP, copy * EAST_STEP_DEG

    def node(self, node: osmium.osm.Node) -> None:
        """Move id and longitude."""
        place = (node.location.lon + self._east, node.location.lat)
        self._writer.add_node(node.replace(id=node.id + self._ids, location=place))

    def way(self, way: osmium.osm.Way) -> None:
        """Move id and node refs."""
        nodes = [node.ref + self._ids for node in way.nodes]
        self._writer.add_way(way.replace(id=way.id + self._ids, nodes=nodes))

    def relation(self, relation: osmium.osm.Relation) -> None:
        """Move id and members."""
        members = [(m.type, m.ref + self._ids, m.role) for m in relation.members]
        self._writer.add_relation(relation.replace(id=relation.id + self._ids, members=members))


def make_extract(sources: list[Path], target: Path, copies: int) -> None:
    """Write `copies` copies of all sources into one sorted PBF."""
    header = osmium.io.Header()
    header.set("generator", "skyscript-assets benchmark")
    header.set("sorting", "Type_then_ID")
    with osmium.SimpleWriter(target, header=header, overwrite=True) as writer:
        for entity in (osmium.osm.NODE, osmium.osm.WAY, osmium.osm.RELATION):
            for place, source in enumerate(sources * copies):
                with osmium.io.Reader(source, entity) as reader:
                    osmium.apply(reader, _Mover(writer, place))


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder with .osm.pbf extracts")
    parser.add_argument("target", type=Path, help="the PBF to write")
    parser.add_argument("--copies", type=int, default=3)
    options = parser.parse_args()
    sources = sorted(options.folder.glob("*.osm.pbf"))
    if not sources:
        raise SystemExit(f"{options.folder} holds no .osm.pbf")
    make_extract(sources, options.target, options.copies)
    print(f"{options.target}: {options.target.stat().st_size / 1e6:.1f} MB, {len(sources)} extracts x {options.copies}")


if __name__ == "__main__":
    main()
