"""Similarity of chips and their captions by the scorers of the settings; which are kept is the manifest's matter.

The score is the cosine of the embeddings of the chip's unaugmented view and of prefix + caption (paper: CLIP
similarity, section on filtering), or what a scorer of a package says of the two.
"""

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from skyscript_assets.lib.arrays import IntArray
from skyscript_assets.lib.errors import CorruptInputError, SettingsError
from skyscript_assets.lib.files import digest
from skyscript_assets.lib.lookahead import in_order
from skyscript_assets.lib.pairs.features import BATCH_CHIPS, THREADS, Chip, read_chip_features
from skyscript_assets.lib.parts import Parts
from skyscript_assets.lib.plugins import of_package
from skyscript_assets.lib.progress import Progress, silent
from skyscript_assets.lib.settings.base import STYLES
from skyscript_assets.lib.settings.plant import ScoredText
from skyscript_assets.lib.tables import fields, read_table, write_table
from skyscript_assets.lib.towers.model import ClipModel, Float32Array, normalised
from skyscript_assets.lib.towers.scorers import Encoder, PairScorer
from skyscript_assets.lib.towers.views import UInt8Array, centre_box

Texts = Sequence[Sequence[str]]
"""By style, the text of each chip."""

STYLE_SCORES = pa.struct(fields(pa.float32(), *STYLES))
SCORE_SCHEMA = pa.schema(
    [
        *fields(pa.string(), "chip_id", "column"),
        ("score", pa.float64()),
        ("scorer", pa.string()),
        ("scores", pa.map_(pa.string(), STYLE_SCORES)),
    ]
)
"""Columns of `scores.parquet`: `score` is that of the first scorer for the style `column`, `scores` holds all, by
scorer and style. A scorer's name ends with the digest of what it is. An empty caption has no score (null)."""

PART_CHIPS = 8192
"""Chips in a part: what a killed run loses at most, and within which equal captions are encoded once."""


def write_scores(
    features_folder: Path,
    captions_folder: Path,
    chips: Sequence[Chip],
    scorer: tuple[str, ClipModel],
    text: ScoredText,
    out: Path,
    further: Mapping[str, Encoder | PairScorer] | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Score every captioned chip and write `scores.parquet`, in the order of the captions.

    The prefix stands before the style that it is set for and before the paper's two, not before other sentences. A
    killed run continues after its last whole part. The first scorer's image tower made the features; further ones look
    at the chips. The names of scorers include their digests.

    Returns counts, and figures of each scorer and style, None where there are none; `agreement` is Spearman's
    correlation of ranks with `score`.

    Raises:
        UpstreamMissingError: an input is missing.
        OutputSchemaError: the features are of another tower.
        CorruptInputError: a captioned chip has no features or no image.
        SettingsError: a package's scorer fails, or does not give each pair a number.
    """
    captions = read_table(captions_folder / "captions.parquet", columns=["chip_id", *text.styles])
    first, model = scorer
    known, features = read_chip_features(features_folder, model.tower_digest)
    seen = _places(captions["chip_id"], known, captions_folder, "features")
    cut = _places(captions["chip_id"], [chip.chip_id for chip in chips], captions_folder, "image")
    models: dict[str, Encoder | PairScorer] = {first: model, **(further or {})}
    parts = Parts(out)
    for number, start in enumerate(range(0, len(seen), PART_CHIPS)):
        part, rows = captions.slice(start, PART_CHIPS), slice(start, start + PART_CHIPS)
        made_from = digest([list(models), text.model_dump(), part.to_pydict()])
        if not parts.keep(number, made_from):
            texts = [[text.prefix_of(style) + caption for caption in part[style].to_pylist()] for style in text.styles]
            plain = features[seen[rows], 0].astype(np.float32)
            scores = [_cosines(model.project_image(plain), texts, *scorer)]
            scores += [_looked([chips[i] for i in cut[rows]], texts, *one) for one in list(models.items())[1:]]
            parts.finish(number, made_from, _table(part, list(models), np.stack(scores)))
        progress(min(start + PART_CHIPS, len(seen)), len(seen), "chips")
    table = pa.concat_tables([SCORE_SCHEMA.empty_table(), *parts.tables()])
    write_table(out / "scores.parquet", table)
    parts.clear()
    distinct = pc.count_distinct(captions[text.column]).as_py()
    return {"pairs": len(seen), "captions": distinct, "scores": _figures(table, list(models), text.styles)}


def _places(asked: pa.ChunkedArray, known: list[str], folder: Path, what: str) -> IntArray:
    """Where each chip id stands among the known ones."""
    found = pc.index_in(asked, pa.array(known, pa.string()))
    if found.null_count:
        raise CorruptInputError(
            f"{folder}: {found.null_count} captioned chips have no {what}, such as "
            f"{asked.filter(pc.is_null(found))[0]}; materialize image_chips and chip_features again"
        )
    places: IntArray = found.to_numpy().astype(np.int64)
    return places


def _looked(chips: Sequence[Chip], texts: Texts, name: str, model: Encoder | PairScorer) -> Float32Array:
    """Scores (styles, N) by a scorer that looks at the chips."""
    size = max(BATCH_CHIPS, model.batch_size) if isinstance(model, ClipModel) else BATCH_CHIPS
    views = in_order(lambda chip: _view(chip, model), chips, threads=THREADS, ahead=2 * size)
    rows: list[Float32Array] = []
    done = 0
    while batch := list(itertools.islice(views, size)):
        if isinstance(model, PairScorer):
            own = [of_style[done : done + len(batch)] for of_style in texts]
            rows.append(np.stack([_answer(name, (len(batch),), model.score_pairs, batch, each) for each in own]))
        else:
            wanted = (len(batch), rows[0].shape[1] if rows else None)
            rows.append(_answer(name, wanted, model.encode_images, batch))
        done += len(batch)
    if isinstance(model, PairScorer):
        return np.concatenate(rows, axis=1)
    return _cosines(np.concatenate(rows), texts, name, model)


def _view(chip: Chip, model: Encoder | PairScorer) -> UInt8Array:
    image = chip.image()
    if isinstance(model, ClipModel):
        return model.view(image, chip.focus)
    x0, y0, x1, y1 = centre_box(image.shape[1], image.shape[0], chip.focus)
    return image[y0:y1, x0:x1]


def _cosines(images: Float32Array, texts: Texts, name: str, model: Encoder) -> Float32Array:
    """Cosines (styles, N) of embeddings (N, E) and the texts of each style."""
    wanted = (len(texts) * len(images), images.shape[1])
    known = _answer(name, wanted, model.encode_texts, list(itertools.chain.from_iterable(texts)))
    unit = normalised(known).reshape(len(texts), *images.shape)
    cosines: Float32Array = np.einsum("snd,nd->sn", unit, normalised(images), dtype=np.float64).astype(np.float32)
    return cosines


def _answer(name: str, shape: tuple[int | None, ...], ask: Callable[..., Any], *given: Any) -> Float32Array:
    """What a scorer answers, of a known number of rows and, but for a first batch of images, of columns."""
    with of_package(f"scorer {name}", ask):
        answer = ask(*given)
    try:
        found = np.asarray(answer, np.float32)
    except (TypeError, ValueError) as error:
        raise SettingsError(f"scorer {name} answers with what are no numbers ({str(error)[:200]})") from error
    if found.ndim != len(shape) or any(a not in (b, None) for a, b in zip(shape, found.shape, strict=True)):
        raise SettingsError(f"scorer {name} answers with numbers of shape {found.shape}, wanted: {shape}")
    return found


def _table(captions: pa.Table, names: Sequence[str], scores: Float32Array) -> pa.Table:
    """A table of scores (scorers, styles, N), of captions with the columns chip_id and styles."""
    count, styles = captions.num_rows, captions.column_names[1:]
    empty = np.array([pc.equal(pc.utf8_trim_whitespace(captions[style]), "").to_numpy() for style in styles])
    if odd := [name for name, each in zip(names, scores, strict=True) if not np.isfinite(each[~empty]).all()]:
        raise SettingsError(f"scorer {odd[0]} gives captions scores that are no finite numbers")
    scores = np.where(empty, np.float32(np.nan), scores)
    of_style = {style: pa.array(scores[:, i].T.ravel(), from_pandas=True) for i, style in enumerate(styles)}
    columns = [of_style.get(style, pa.nulls(count * len(names), pa.float32())) for style in STYLES]
    nested = pa.StructArray.from_arrays(columns, fields=list(STYLE_SCORES))
    starts = np.arange(0, (count + 1) * len(names), len(names), dtype=np.int32)
    return pa.table(
        {
            "chip_id": captions["chip_id"],
            "column": pa.repeat(styles[0], count),
            "score": pa.array(scores[0, 0].astype(np.float64), from_pandas=True),
            "scorer": pa.repeat(names[0], count),
            "scores": pa.MapArray.from_arrays(starts, pa.array(list(names) * count, pa.string()), nested),
        },
        schema=SCORE_SCHEMA,
    )


def _figures(table: pa.Table, names: Sequence[str], styles: Sequence[str]) -> dict[str, Any]:
    """Figures of each scorer and style; the first are those of `score`."""
    import pandas as pd

    known = {
        f"{name} {style}": pc.struct_field(pc.map_lookup(table["scores"], name, "first"), style).to_numpy()
        for name, style in itertools.product(names, styles)
    }
    scores = pd.DataFrame(known, dtype=np.float64)
    figures = scores.agg(["mean", "min", "max"]).T
    figures["agreement"] = scores.corrwith(scores.iloc[:, 0], method="spearman")
    told: dict[str, Any] = json.loads(figures.to_json(orient="index", double_precision=15))
    return told
