"""Chips of the output that is being replaced: which of them can be taken over, so that nothing is read twice.

A chip is the same where scene, window and encoding are the same (`window_digest`), whatever its plan says otherwise.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from skyscript_assets.lib.chips.failures import read_failures
from skyscript_assets.lib.chips.quality import Quality
from skyscript_assets.lib.errors import CorruptInputError, OutputSchemaError, UpstreamMissingError
from skyscript_assets.lib.files import inside
from skyscript_assets.lib.imagery.scenes import Scene
from skyscript_assets.lib.settings.plant import ChipSettings
from skyscript_assets.lib.tables import read_table
from skyscript_assets.lib.tar import read_member

_PLACE = ("shard", "offset", "length", "sha256")
_MEASURES = tuple(Quality.__dataclass_fields__)


def scene_identity(scene: Scene, settings: ChipSettings, version: str) -> str:
    """Text of what the pixels and the encoding of all chips of a scene depend on; `version` is that of the code."""
    shown = (scene.bands, scene.scale_low, scene.scale_high, scene.nodata, scene.ignore_alpha)
    grid = (scene.crs, scene.transform, scene.width, scene.height)
    return json.dumps([version, settings.jpeg_quality, scene.fingerprint, scene.access, *shown, *grid])


def window_digest(identity: str, row: Mapping[str, Any]) -> str:
    """32 hexadecimal digits of a scene's identity and a window of the plan."""
    window = (row["crs"], tuple(row["transform"]), row["width"], row["height"])
    return hashlib.blake2b(f"{identity}{window}".encode(), digest_size=16).hexdigest()


class ReusableChips:
    """The chips and the failures of the finished `image_chips` folder that is replaced, if it is of this version."""

    def __init__(self, folder: Path | None) -> None:
        self.failures: dict[str, dict[str, Any]] = {}
        self._rows: dict[str, int] = {}
        if folder is None:
            return
        self._folder = folder
        try:
            table = read_table(folder / "chips.parquet", columns=("window_digest", *_PLACE, *_MEASURES))
            self.failures = read_failures(folder)
        except (UpstreamMissingError, OutputSchemaError, CorruptInputError):
            return
        self._table = table.filter(pc.is_valid(table["shard"]))
        self._rows = {digest: row for row, digest in enumerate(self._table["window_digest"].to_pylist())}

    def find(self, digest: str) -> tuple[Quality, bytes, str] | None:
        """Measures, JPEG and its SHA-256 of a chip by its window's digest, or None where it has to be read.

        How much of a focus box holds data is known for any box only where the whole chip does; else it is read again.
        So is a chip whose bytes are not what they were.
        """
        if (number := self._rows.get(digest)) is None:
            return None
        row = {name: self._table[name][number].as_py() for name in self._table.schema.names}
        if row["nodata_share"] > 0:
            return None
        try:
            jpeg = read_member(inside(self._folder, row["shard"]), row["offset"], row["length"])
        except (UpstreamMissingError, CorruptInputError):
            return None
        if hashlib.sha256(jpeg).hexdigest() != row["sha256"]:
            return None
        return Quality(**{name: row[name] for name in _MEASURES}), jpeg, row["sha256"]
