"""What a benchmark's test images are known by, so that nothing is trained on them: digest, hash and thumbnail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from skyscript_assets.lib.benchmarks.items import iter_images, read_items
from skyscript_assets.lib.lookahead import in_order
from skyscript_assets.lib.pairs.leaks import FINGERPRINT_SCHEMA, FINGERPRINTS_FILE
from skyscript_assets.lib.pairs.thumbnails import fingerprint
from skyscript_assets.lib.progress import Progress, silent
from skyscript_assets.lib.tables import rows_to_table, write_table

DECODING_THREADS, IMAGES_AHEAD = 2, 64


def write_fingerprints(folder: Path, progress: Progress = silent) -> None:
    """Write `fingerprints.parquet` of a benchmark's items in its folder.

    Raises:
        CorruptInputError: an image cannot be decoded; and what `read_items` raises.
    """
    items = read_items(folder)
    ids = items.filter(pc.equal(items["split"], "test"))["item_id"].to_pylist()
    images = (image for images in iter_images(folder, ["test"]) for image in images)
    rows: list[dict[str, Any]] = []
    for row in in_order(_row, zip(ids, images, strict=True), threads=DECODING_THREADS, ahead=IMAGES_AHEAD):
        rows.append(row)
        if len(rows) % IMAGES_AHEAD == 0:
            progress(len(rows), len(ids), "fingerprints")
    write_table(folder / FINGERPRINTS_FILE, rows_to_table(rows, FINGERPRINT_SCHEMA))


def _row(item: tuple[str, bytes]) -> dict[str, Any]:
    name, image = item
    return {"item_id": name, **fingerprint(image, name)}
