"""What an OSM extract says about itself: the facts of its header."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import osmium

from skyscript_assets.lib.errors import CorruptInputError, MissingInputError
from skyscript_assets.lib.geometry import Bounds
from skyscript_assets.lib.osm.pbf.file import SORTED, PbfFile

_MEANINGLESS_BOXES = frozenset({(0.0, 0.0, 180.0, 90.0), (-180.0, -90.0, 180.0, 90.0)})
"""Boxes that some programs write into the header where they know none."""


@dataclass(frozen=True)
class ExtractHeader:
    """What an extract says about itself.

    Attributes:
        bbox: (west, south, east, north) in degrees, None where the header states no box of use.
        timestamp: Time of the data (replication timestamp), ISO 8601.
        replication_url: Where the changes since then are published.
        replication_sequence: Number of the last change that the data holds.
        generator: Program that wrote it.
        required_features: Features of a PBF that its readers must know.
        optional_features: Features of a PBF that its readers may pass over.
    """

    bbox: Bounds | None = None
    timestamp: str | None = None
    replication_url: str | None = None
    replication_sequence: int | None = None
    generator: str | None = None
    required_features: tuple[str, ...] = ()
    optional_features: tuple[str, ...] = ()

    @property
    def sorted(self) -> bool:
        """Whether the header promises nodes first, then ways, then relations, each by id."""
        return SORTED in self.optional_features


def read_header(path: Path) -> ExtractHeader:
    """The header of an extract (PBF, or XML: plain, bzip2 or gzip), without reading its objects.

    Raises:
        MissingInputError: the file does not exist.
        CorruptInputError: it is not an OSM file of the kind its name says, or holds the history of objects.
    """
    if not path.is_file():
        raise MissingInputError(f"{path} does not exist or is not a file")
    try:
        with osmium.io.Reader(path, osmium.osm.NOTHING) as reader:
            header = reader.header()
    except RuntimeError as error:
        raise CorruptInputError(f"{path} is no OSM extract ({error}); get the extract again") from error
    if header.has_multiple_object_versions:
        raise CorruptInputError(f"{path} holds several versions of objects; give an extract without history")
    # osmium tells nothing of a PBF's features, and takes up to three odd bytes for its end.
    pbf = PbfFile(path) if path.suffix == ".pbf" else None
    sequence = header.get("osmosis_replication_sequence_number")
    return ExtractHeader(
        bbox=_usable_box(header.box()),
        timestamp=header.get("osmosis_replication_timestamp") or header.get("timestamp") or None,
        replication_url=header.get("osmosis_replication_base_url") or None,
        replication_sequence=int(sequence) if sequence.isdecimal() else None,
        generator=header.get("generator") or None,
        required_features=pbf.required if pbf else (),
        optional_features=pbf.optional if pbf else (),
    )


def _usable_box(box: osmium.osm.Box) -> Bounds | None:
    if not box.valid():
        return None
    bounds = (box.bottom_left.lon, box.bottom_left.lat, box.top_right.lon, box.top_right.lat)
    if bounds in _MEANINGLESS_BOXES or bounds[0] >= bounds[2] or bounds[1] >= bounds[3]:
        return None
    return bounds
