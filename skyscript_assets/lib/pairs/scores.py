"""Similarity of chips and their captions by the scorer of the settings; which are kept is the manifest's matter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from skyscript_assets.lib.errors import CorruptInputError
from skyscript_assets.lib.pairs.features import read_chip_features
from skyscript_assets.lib.settings.base import CaptionText
from skyscript_assets.lib.tables import read_table, write_table
from skyscript_assets.lib.towers.model import ClipModel, normalised

SCORE_SCHEMA = pa.schema(
    [("chip_id", pa.string()), ("column", pa.string()), ("score", pa.float64()), ("scorer", pa.string())]
)
"""Columns of `scores.parquet`; the score is a cosine, -1 to 1."""


def write_scores(
    features_folder: Path, captions_folder: Path, model: ClipModel, scorer: str, text: CaptionText, out: Path
) -> dict[str, Any]:
    """Score every captioned chip and write `scores.parquet`, in the order of the captions.

    The score is the cosine of the chip's unaugmented view and prefix + caption (paper: CLIP similarity, section on
    filtering). Each distinct caption is encoded once. The scorer is named with the digest of its weights.

    Args:
        features_folder: A `chip_features` folder, made by the scorer's image tower.
        captions_folder: A `captions` folder.
        model: The scorer.
        scorer: Its name.
        text: Which caption, with which prefix.
        out: Folder that receives the table.

    Returns:
        Counts, and figures of the scores, None where there are no pairs.

    Raises:
        UpstreamMissingError: an input is missing.
        OutputSchemaError: the features are of another tower.
        CorruptInputError: a captioned chip has no features.
    """
    captions = read_table(captions_folder / "captions.parquet", columns=["chip_id", text.column])
    known, features = read_chip_features(features_folder, model.tower_digest)
    row_of = {chip_id: row for row, chip_id in enumerate(known)}
    chip_ids: list[str] = captions["chip_id"].to_pylist()
    missing = [chip_id for chip_id in chip_ids if chip_id not in row_of]
    if missing:
        raise CorruptInputError(
            f"{features_folder}: {len(missing)} captioned chips have no features, such as {missing[0]}; "
            "materialize chip_features again"
        )
    texts = [text.prefix + caption for caption in captions[text.column].to_pylist()]
    scores = np.empty(0, np.float64)
    if chip_ids:
        plain = features[[row_of[chip_id] for chip_id in chip_ids], 0].astype(np.float32)
        images = normalised(model.project_image(plain))
        scores = np.einsum("nd,nd->n", images, model.encode_texts(texts), dtype=np.float64)
    scorer = f"{scorer}@{model.digest[:12]}"
    count = len(chip_ids)
    table = pa.table(
        {"chip_id": chip_ids, "column": [text.column] * count, "score": scores, "scorer": [scorer] * count},
        schema=SCORE_SCHEMA,
    )
    write_table(out / "scores.parquet", table)
    figures = np.array([scores.mean(), scores.min(), scores.max()]).tolist() if count else [None] * 3
    told = {"pairs": count, "captions": len(set(texts)), "scorer": scorer}
    return told | dict(zip(("mean", "lowest", "highest"), figures, strict=True))
