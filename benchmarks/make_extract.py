"""Make a large OSM extract by repeating real ones: every copy gets ids and a place of its own.

    python benchmarks/make_extract.py ../shared/data/osm large.osm.pbf --copies 3

The extracts of the folder are written `copies` times, each copy moved east by two degrees and its ids by 2^34, so that
no two objects share an id or ground. The result is sorted (nodes, ways, relations by id) as every extract is.
"""

from pathlib import Path

import osmium
from measuring import options_of, parser_of

ID_STEP = 1 << 34
"""Larger than any id of a node today."""

EAST_STEP_DEG = 2.0


def write_moved(writer: osmium.SimpleWriter, source: Path, entity: osmium.osm.osm_entity_bits, copy: int) -> None:
    """Write the nodes, ways or relations of an extract with their ids and their places moved."""
    ids = copy * ID_STEP
    for item in osmium.FileProcessor(source, entity):
        if item.is_node():
            place = (item.location.lon + copy * EAST_STEP_DEG, item.location.lat)
            writer.add_node(item.replace(id=item.id + ids, location=place))
        elif item.is_way():
            writer.add_way(item.replace(id=item.id + ids, nodes=[node.ref + ids for node in item.nodes]))
        else:
            members = [(member.type, member.ref + ids, member.role) for member in item.members]
            writer.add_relation(item.replace(id=item.id + ids, members=members))


def main() -> None:
    """Run the command."""
    parser = parser_of(__doc__)
    parser.add_argument("folder", type=Path, help="folder with .osm.pbf extracts")
    parser.add_argument("target", type=Path, help="the PBF to write")
    parser.add_argument("--copies", type=int, default=3)
    options = options_of(parser)
    sources = sorted(options.folder.glob("*.osm.pbf"))
    if not sources:
        raise SystemExit(f"{options.folder} holds no .osm.pbf")
    header = osmium.io.Header()
    header.set("generator", "skyscript-assets benchmark")
    header.set("sorting", "Type_then_ID")
    with osmium.SimpleWriter(options.target, header=header, overwrite=True) as writer:
        for entity in (osmium.osm.NODE, osmium.osm.WAY, osmium.osm.RELATION):
            for copy, source in enumerate(sources * options.copies):
                write_moved(writer, source, entity, copy)
    print(f"{options.target}: {options.target.stat().st_size / 1e6:.1f} MB, {len(sources)} extracts x {options.copies}")


if __name__ == "__main__":
    main()
