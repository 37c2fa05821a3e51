"""Dagster metadata made from the library's results: tables, images, column schemas, progress in the run's log."""

import base64
import io
import json
import math
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq

from skyscript_assets.lib.progress import Progress

MAX_PREVIEW_BYTES = 150_000
"""Largest image put into the event log; the full one lies on disk."""

MAX_WHOLE_NUMBER = 1 << 53
"""From here on browsers round whole numbers, which are shown as text then; so is what JSON does not know, NaN."""

PROGRESS_INTERVAL_S = 10.0
"""How often a long stage reports to the run's log."""


def image(path: Path, title: str) -> dg.MetadataValue:
    """An image file as Markdown that the UI shows in place; one that is too large for the event log made smaller."""
    from PIL import Image

    data = path.read_bytes()
    if len(data) <= MAX_PREVIEW_BYTES:
        return image_bytes(data, title, "png" if path.suffix == ".png" else "jpeg")
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    for side in (1000, 800, 600, 400, 300):
        picture.thumbnail((side, side))
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=80)
        if buffer.tell() <= MAX_PREVIEW_BYTES:
            break
    return image_bytes(buffer.getvalue(), title, "jpeg")


def drawn(draw: Callable[[Path], object], title: str) -> dg.MetadataValue:
    """A picture (PNG) that a function writes into the file it is given, as Markdown that the UI shows in place."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture.png"
        draw(path)
        return image_bytes(path.read_bytes(), title, "png")


def image_bytes(data: bytes, title: str, kind: str) -> dg.MetadataValue:
    """Image bytes of at most `MAX_PREVIEW_BYTES` as Markdown that the UI shows in place."""
    return dg.MetadataValue.md(f"![{title}](data:image/{kind};base64,{base64.b64encode(data).decode()})")


def rows(table: pa.Table, limit: int = 20) -> dg.MetadataValue:
    """The first rows of a table: numbers with six digits, long values cut.

    Never as Markdown: the text is others', and the UI fetches what Markdown names.
    """
    head = table.slice(0, limit).to_pylist()
    records = [dg.TableRecord({name: _cell(value) for name, value in row.items()}) for row in head]
    return dg.MetadataValue.table(records, _table_schema(table.schema))


def json_file(path: Path) -> dg.MetadataValue:
    """What a JSON file holds."""
    return dg.MetadataValue.json(json.loads(path.read_text(encoding="utf-8")))


def parquet_rows(path: Path, columns: list[str] | None = None, limit: int = 12) -> dg.MetadataValue:
    """The first rows of a Parquet file, all columns unless some are named."""
    return rows(pq.read_table(path, columns=columns), limit)


def _cell(value: Any) -> str | int | float | bool | None:
    match value:
        case None | bool():
            return value
        case int() if abs(value) < MAX_WHOLE_NUMBER:
            return value
        case float() if math.isfinite(value):
            return float(f"{value:.6g}")
    text = str(value)
    return text if len(text) <= 120 else text[:117] + "..."


def _table_schema(schema: pa.Schema) -> dg.TableSchema:
    return dg.TableSchema([dg.TableColumn(field.name, str(field.type)) for field in schema])


def follow(folder: Path, tables: Mapping[str, pa.Schema]) -> dict[str, Any]:
    """The command that tells all of the first chip or object in a stage's tables, where these have ids."""
    for name, schema in tables.items():
        ids = [column for column in ("chip_id", "object_id") if column in schema.names]
        if ids and (first := next(pq.ParquetFile(folder / name).iter_batches(1, columns=ids[:1]), None)):
            return {"follow one": dg.MetadataValue.text(f"skyscript why {first[0][0]}")}
    return {}


def column_schemas(tables: Mapping[str, pa.Schema]) -> dict[str, dg.TableSchema]:
    """The columns of a stage's tables as the UI shows them; those of the first, the main table, have Dagster's name."""
    shown = {f"columns of {name}": _table_schema(schema) for name, schema in tables.items()}
    if shown:
        shown["dagster/column_schema"] = shown.pop(next(iter(shown)))
    return shown


def column_lineage(columns_from: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Which columns of a main table are those of another asset's, by that asset."""
    lineage = dg.TableColumnLineage(
        {
            column: [dg.TableColumnDep(asset_key=dg.AssetKey(asset), column_name=column)]
            for asset, columns in columns_from.items()
            for column in columns
        }
    )
    return {"dagster/column_lineage": lineage} if columns_from else {}


def code_reference(function: Callable[..., Any]) -> dict[str, Any]:
    """Where a function stands, so that the UI points at a stage's body and not at what makes assets of stages."""
    code = function.__code__
    with warnings.catch_warnings():  # code references are called beta
        warnings.simplefilter("ignore", dg.BetaWarning)
        reference = dg.LocalFileCodeReference(
            file_path=code.co_filename, line_number=code.co_firstlineno, label=function.__name__
        )
        return {"dagster/code_references": dg.CodeReferencesMetadataValue(code_references=[reference])}


def counts(values: Mapping[str, Any]) -> dict[str, Any]:
    """A stage's counts as metadata: numbers plainly, the rest as JSON."""
    return {
        name: value if isinstance(value, int | float | str) else dg.MetadataValue.json(value)
        for name, value in values.items()
        if value is not None
    }


def log_progress(log: Any) -> Progress:
    """A listener that writes items done, rate and time left to a Dagster log, at most every `PROGRESS_INTERVAL_S`."""
    started = time.monotonic()
    last = started

    def report(done: int, total: int, unit: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < PROGRESS_INTERVAL_S:
            return
        last = now
        rate = done / (now - started)
        left = f", about {(total - done) / rate:.0f} s left" if total and rate else ""
        log.info(f"{done:,} of {total:,} {unit}, {rate:,.1f} a second{left}" if total else f"{done:,} {unit}")

    return report
