"""Failures: chips that could not be read, what went wrong, how often it was tried, and when.

A failure is not a rejection of what a chip shows: it may be gone the next time. What is tried again, and when, belongs
to `cut`.
"""

import datetime as dt
import re
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from socket import gaierror
from typing import Any
from urllib.error import URLError

import pyarrow as pa

from skyscript_assets.lib.errors import DISK_FULL, CorruptInputError, MissingInputError, RefusedError, UnreachableError
from skyscript_assets.lib.secrets import told
from skyscript_assets.lib.tables import fields, read_table

FAILURES_FILE = "failures.parquet"

FAILURE_SCHEMA = pa.schema(
    [
        *fields(pa.string(), "chip_id", "scene_id", "reason", "error"),
        ("attempts", pa.int32()),
        *fields(pa.timestamp("ms", tz="UTC"), "first", "last"),
    ]
)
"""Columns of `failures.parquet`, in the order of the plan. `reason`: the image is `missing`, its server too slow
(`timeout`) or answered with an error (`http`), or its bytes are `unreadable`. `error` is the message of the last
attempt, `first` and `last` are the times of the first and the last attempt."""

READ_ERRORS = (CorruptInputError, MissingInputError, UnreachableError, OSError, HTTPException)
"""What reading a window may raise through no fault of the plan."""

MAX_ERROR_LENGTH = 300
"""Longest message of a failure, characters."""

_HTTP_ERRORS = (UnreachableError, RefusedError, HTTPException, URLError, ConnectionError, gaierror)
_HTTP_TEXT = re.compile(r"\bHTTP\b")


def is_failure(error: BaseException) -> bool:
    """Whether an error is one of reading; a full disk, for one, is an `OSError` and is not."""
    return isinstance(error, READ_ERRORS) and getattr(error, "errno", None) not in DISK_FULL


def failed(
    error: BaseException, scene_id: str, now: dt.datetime, before: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The row of `failures.parquet`, but for the chip's id, of an attempt at a time that ended in an error.

    `before` is the chip's row so far.
    """
    return {
        "scene_id": scene_id,
        "reason": _reason(error),
        "error": told(str(error), MAX_ERROR_LENGTH) or type(error).__name__,
        "attempts": 1 if before is None else before["attempts"] + 1,
        "first": now if before is None else before["first"],
        "last": now,
    }


def _reason(error: BaseException) -> str:
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    if any(isinstance(link, TimeoutError) for link in chain):
        return "timeout"
    if any(isinstance(link, FileNotFoundError | MissingInputError) for link in chain):
        return "missing"
    if any(getattr(link, "status", 0) in (404, 410) for link in chain):
        return "missing"
    # What GDAL says of a server reaches Python as text alone.
    if any(isinstance(link, _HTTP_ERRORS) or _HTTP_TEXT.search(str(link)) for link in chain):
        return "http"
    return "unreadable"


def read_failures(folder: Path) -> dict[str, dict[str, Any]]:
    """The failures of a folder of chips, rows by chip id. Raises what `read_table` does."""
    return {row["chip_id"]: row for row in read_table(folder / FAILURES_FILE, FAILURE_SCHEMA).to_pylist()}
