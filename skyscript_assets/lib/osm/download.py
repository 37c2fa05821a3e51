"""Downloads that survive a cut connection: parts are kept and continued with HTTP range requests (RFC 9110, 14)."""

from __future__ import annotations

import http.client
import os
import shutil
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from skyscript_assets.lib.errors import MissingInputError, NoSpaceError, SettingsError
from skyscript_assets.lib.progress import Progress, silent

CHUNK_BYTES = 1 << 18
TIMEOUT_S = 60.0
LONGEST_WAIT_S = 60.0
RETRIED_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers that may be another one a little later."""


def download(url: str, target: Path, progress: Progress = silent, *, tries: int = 5, wait_s: float = 1.0) -> None:
    """Download a file; a part left by an earlier call is continued if the server still has the same file.

    The part is `{target}.part`, with `{target}.part.tag` beside it that holds the server's name for this version of the
    file (its ETag or Last-Modified). Where the server gives neither, a cut download starts afresh.

    Args:
        url: Address, http or https.
        target: Where the whole file ends.
        progress: Told the bytes that are there, and their total where the server states it.
        tries: How often in a row the download may fail without any progress.
        wait_s: Seconds before the second try; doubled with each further one.

    Raises:
        SettingsError: the address is not http or https.
        MissingInputError: the server refuses, or every try failed; the part stays for a later call.
        NoSpaceError: the disk has less room than the file needs.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise SettingsError(f"{url} cannot be downloaded: give an http or https address")
    part, tag = _side_files(target)
    failures = 0
    while True:
        before = _size(part)
        try:
            _continue(url, part, tag, progress)
            break
        except urllib.error.HTTPError as error:
            if error.code not in RETRIED_STATUSES:
                raise MissingInputError(f"{url}: the server answers {error.code} {error.reason}") from error
            problem = f"{error.code} {error.reason}"
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            problem = str(getattr(error, "reason", error)) or type(error).__name__
        failures = 1 if _size(part) > before else failures + 1
        if failures >= tries:
            raise MissingInputError(
                f"{url}: the download failed {tries} times in a row, at last with: {problem}; "
                f"{_size(part)} bytes are kept and a new run continues from there"
            )
        time.sleep(min(wait_s * 2 ** (failures - 1), LONGEST_WAIT_S))
    os.replace(part, target)
    tag.unlink(missing_ok=True)


def _side_files(target: Path) -> tuple[Path, Path]:
    return target.with_name(f"{target.name}.part"), target.with_name(f"{target.name}.part.tag")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _continue(url: str, part: Path, tag: Path, progress: Progress) -> None:
    """Fetch what is not there yet.

    Raises:
        ConnectionError: the connection ended before the file did.
    """
    have = _size(part) if tag.is_file() else 0
    headers = {"User-Agent": "skyscript-assets", "Accept-Encoding": "identity"}
    if have:
        # With If-Range a server whose file has changed sends the whole new file instead of its rest (RFC 9110, 13.1.5).
        headers |= {"Range": f"bytes={have}-", "If-Range": tag.read_text(encoding="latin-1")}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310  (download() has checked the scheme)
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_S)  # noqa: S310
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        if error.headers.get("Content-Range") == f"bytes */{have}":
            return
        tag.unlink(missing_ok=True)
        raise ConnectionError("the part kept is longer than the file") from error
    with response:
        if response.status != 206 or not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            have = 0
        _receive(response, part, tag, have, progress)


def _receive(response: http.client.HTTPResponse, part: Path, tag: Path, have: int, progress: Progress) -> None:
    """Write an answer's body behind the `have` bytes that are kept."""
    length = response.headers.get("Content-Length")
    total = have + int(length) if length is not None else 0
    free = shutil.disk_usage(part.parent).free
    if total - have > free:
        raise NoSpaceError(f"{part.parent}: {total - have} bytes are to be downloaded, {free} are free")
    with part.open("r+b" if have else "wb") as file:
        file.truncate(have)
        file.seek(have)
        _remember(response, tag)
        while chunk := response.read(CHUNK_BYTES):
            file.write(chunk)
            have += len(chunk)
            progress(have, total, "bytes")
    if have < total:
        raise ConnectionError(f"the connection ended after {have} of {total} bytes")


def _remember(response: http.client.HTTPResponse, tag: Path) -> None:
    """Keep the server's name for this version of the file; weak ETags do not promise equal bytes."""
    etag = response.headers.get("ETag", "")
    name = etag if etag.startswith('"') else response.headers.get("Last-Modified", "")
    if name:
        tag.write_text(name, encoding="latin-1")
    else:
        tag.unlink(missing_ok=True)
