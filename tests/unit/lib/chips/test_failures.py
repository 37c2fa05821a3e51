import datetime as dt
import urllib.error
from pathlib import Path

import pytest

from skyscript_assets.lib.chips.failures import (
    FAILURE_SCHEMA,
    FAILURES_FILE,
    MAX_ERROR_LENGTH,
    failed,
    read_failures,
)
from skyscript_assets.lib.errors import CorruptInputError, MissingInputError
from skyscript_assets.lib.tables import rows_to_table, write_table

NOON = dt.datetime(2024, 5, 1, 12, tzinfo=dt.UTC)


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MissingInputError("a.tif does not exist"), "missing"),
        (FileNotFoundError(2, "gone"), "missing"),
        (TimeoutError("slow"), "timeout"),
        (caused(CorruptInputError("no answer"), TimeoutError()), "timeout"),
        (urllib.error.URLError("refused"), "http"),
        (ConnectionResetError("reset"), "http"),
        (caused(CorruptInputError("cannot be read"), Exception("HTTP response code: 503")), "http"),
        (CorruptInputError("TIFFReadEncodedTile failed"), "unreadable"),
        (OSError(5, "Input/output error"), "unreadable"),
    ],
)
def test_the_reason_follows_from_the_error_and_its_causes(error: Exception, reason: str) -> None:
    assert failed(error, "s", NOON)["reason"] == reason


def test_attempts_are_counted_and_the_first_time_stays() -> None:
    later = NOON + dt.timedelta(hours=2)
    once = failed(TimeoutError("slow"), "s", NOON)
    twice = failed(CorruptInputError("torn"), "s", later, once)
    assert (once["attempts"], once["first"], once["last"]) == (1, NOON, NOON)
    assert (twice["attempts"], twice["first"], twice["last"], twice["error"]) == (2, NOON, later, "torn")


def test_messages_are_one_bounded_line_without_secrets() -> None:
    told = failed(OSError("https://host/a.tif?sig=SECRET\nfailed"), "s", NOON)
    assert told["error"] == "https://host/a.tif failed"
    assert failed(OSError(), "s", NOON)["error"] == "OSError"
    assert len(failed(OSError("x" * 10_000), "s", NOON)["error"]) == MAX_ERROR_LENGTH


def test_failures_come_back_as_they_were_written(tmp_path: Path) -> None:
    row = {"chip_id": "n1", **failed(TimeoutError("slow"), "s", NOON)}
    write_table(tmp_path / FAILURES_FILE, rows_to_table([row], FAILURE_SCHEMA))
    assert read_failures(tmp_path) == {"n1": row}
