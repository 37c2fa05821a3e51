"""Downloads that survive a cut connection: parts are kept and continued with HTTP range requests (RFC 9110, 14).

What is particular to OSM extracts, such as their checksums, belongs to `lib.osm.extract`.
"""

from __future__ import annotations

import dataclasses
import http.client
import json
import os
import re
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar
from urllib.parse import urlsplit

from skyscript_assets.lib.errors import DISK_FULL, CorruptInputError, MissingInputError, NoSpaceError, SettingsError
from skyscript_assets.lib.http import LONGEST_PAUSE_S, LONGEST_RETRY_AFTER_S, PASSING_STATUSES, retry_after_s
from skyscript_assets.lib.progress import Progress, silent

CHUNK_BYTES = 1 << 18
TIMEOUT_S = 60.0
"""Seconds without a byte after which a connection counts as cut."""

ABSENT_STATUSES = frozenset({403, 404, 410})
"""Answers that mean that there is no such file; object stores answer 403 where they do not list their files."""

_BY_HAND = "or download it by hand and give the file as `path` in regions.yaml"
_WEB_PAGE = re.compile(rb"(\xef\xbb\xbf)?\s*<(!doctype\s+html|html)\b", re.IGNORECASE)
_SNIFFED_BYTES = 512

T = TypeVar("T")


@dataclass(frozen=True)
class Version:
    """What a server calls the state of a file: its validators (RFC 9110, 8.8)."""

    etag: str | None = None
    last_modified: str | None = None

    @property
    def for_ranges(self) -> str | None:
        """What may stand in If-Range: weak ETags do not promise equal bytes."""
        return self.etag if self.etag is not None and self.etag.startswith('"') else self.last_modified

    @property
    def conditions(self) -> dict[str, str]:
        """Headers of a request that is to be answered only where the file is another one."""
        headers = {"If-None-Match": self.etag, "If-Modified-Since": self.last_modified}
        return {name: value for name, value in headers.items() if value}


UNKNOWN = Version()
"""The version where the server says nothing of it."""


class _PassingError(Exception):
    """A failure that may pass; `pause_s` are the seconds that the server asks to wait."""

    def __init__(self, problem: str, pause_s: float = 0.0) -> None:
        super().__init__(problem)
        self.pause_s = pause_s


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, and never leaves http and https."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        if urlsplit(newurl).scheme not in ("http", "https"):
            raise MissingInputError(
                f"{req.full_url} redirects to {newurl}, which is neither http nor https; correct the address, "
                f"{_BY_HAND}"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def download(
    url: str,
    target: Path,
    progress: Progress = silent,
    *,
    known: Version = UNKNOWN,
    tries: int = 5,
    wait_s: float = 1.0,
) -> Version | None:
    """Download a file; a part left by an earlier call is continued if the server still has the same file.

    The part is `{target}.part`, with `{target}.part.tag` beside it that holds the address and the server's name for
    this version of the file. Where the server gives none, a cut download starts afresh.

    Args:
        url: Address, http or https.
        target: Where the whole file ends.
        progress: Told the bytes that are there, and their total where the server states it.
        known: Version that the caller has already; where the server still has it nothing is downloaded.
        tries: How often in a row the download may fail without any progress.
        wait_s: Seconds before the second try; doubled with each further one.

    Returns:
        The version downloaded, None where the server still has the known one.

    Raises:
        SettingsError: the address is none, or not http or https.
        MissingInputError: the server refuses, or every try failed; the part stays for a later call.
        CorruptInputError: the answer is a web page; the part stays as it was.
        NoSpaceError: the disk has less room than the file needs; the part stays for a later call.
    """
    part, tag = _side_files(target)

    def attempt() -> bool:
        try:
            return _continue(url, part, tag, known, progress)
        except OSError as error:
            if error.errno not in DISK_FULL:
                raise
            raise NoSpaceError(
                f"{part.parent}: the disk is full after {_size(part)} bytes of {url}; free some and run again: "
                "they are kept"
            ) from error

    if not _persist(url, attempt, lambda: _kept(url, part, tag), tries, wait_s):
        return None
    version = _remembered(url, tag)
    os.replace(part, target)
    tag.unlink(missing_ok=True)
    return version


def read_small(url: str, limit: int, *, tries: int = 5, wait_s: float = 1.0) -> bytes | None:
    """The first `limit` bytes of a small file, such as a list of checksums; None where the server has no such file.

    Raises:
        SettingsError: the address is none, or not http or https.
        MissingInputError: the server refuses, or every try failed.
    """

    def attempt() -> bytes | None:
        try:
            with _ask(url, {}) as response:
                data = _read_up_to(response, limit)
                if len(data) < limit and response.length:
                    raise _PassingError(f"the connection ended {response.length} bytes too early")
                return data
        except urllib.error.HTTPError as error:
            if error.code in ABSENT_STATUSES:
                return None
            raise

    return _persist(url, attempt, lambda: 0, tries, wait_s)


def _side_files(target: Path) -> tuple[Path, Path]:
    return target.with_name(f"{target.name}.part"), target.with_name(f"{target.name}.part.tag")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _remembered(url: str, tag: Path) -> Version:
    """Version of the part that a tag describes."""
    try:
        facts = json.loads(tag.read_text(encoding="utf-8"))
        return Version(facts["etag"], facts["last_modified"]) if facts["url"] == url else UNKNOWN
    except (OSError, ValueError, KeyError, TypeError):
        return UNKNOWN


def _kept(url: str, part: Path, tag: Path) -> int:
    """Bytes that the next try can continue from."""
    return _size(part) if _remembered(url, tag).for_ranges else 0


def _persist(url: str, attempt: Callable[[], T], kept: Callable[[], int], tries: int, wait_s: float) -> T:
    """Try again after failures that may pass, later each time, until `tries` in a row brought nothing."""
    if urlsplit(url).scheme not in ("http", "https"):
        raise SettingsError(f"{url} cannot be downloaded: give an http or https address")
    failures = 0
    while True:
        before = kept()
        try:
            return attempt()
        except urllib.error.HTTPError as error:
            raise MissingInputError(
                f"{url}: the server answers {error.code} {error.reason}; {_remedy(error)}"
            ) from error
        except _PassingError as error:
            problem, asked_s = str(error), error.pause_s
        if asked_s > LONGEST_RETRY_AFTER_S:
            raise MissingInputError(
                f"{url}: {problem}, and the server asks to come back after {asked_s:.0f} s; run again then"
                f"{_rest(kept())}"
            )
        failures = 1 if kept() > before else failures + 1
        if failures >= tries:
            raise MissingInputError(
                f"{url}: the download failed {tries} times in a row, at last with: {problem}; check the network and "
                f"the address, {_BY_HAND}{_rest(kept())}"
            )
        time.sleep(max(asked_s, min(wait_s * 2 ** (failures - 1), LONGEST_PAUSE_S)))


def _rest(kept: int) -> str:
    return f"; {kept} bytes are kept and a new run continues from there" if kept else ""


def _remedy(error: urllib.error.HTTPError) -> str:
    if error.code in (401, 403, 407):
        return f"the address needs a login or is closed to this machine: give another one, {_BY_HAND}"
    return f"correct the address in regions.yaml, {_BY_HAND}"


def _ask(url: str, headers: dict[str, str]) -> http.client.HTTPResponse:
    """Send a request.

    Raises:
        HTTPError: the server refuses for good, or with another status that only the caller understands.
        _PassingError: the server or the network refuses for now.
    """
    agent = {"User-Agent": "skyscript-assets", "Accept-Encoding": "identity"}
    try:
        request = urllib.request.Request(url, headers=agent | headers)  # noqa: S310  (_persist() checks the scheme)
        response: http.client.HTTPResponse = urllib.request.build_opener(_Redirects).open(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code not in PASSING_STATUSES:
            raise
        pause_s = retry_after_s(error.headers.get("Retry-After"))
        raise _PassingError(f"{error.code} {error.reason}", pause_s) from error
    except (http.client.InvalidURL, ValueError) as error:
        raise SettingsError(f"{url} is no address that can be asked ({error}); correct it in regions.yaml") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise MissingInputError(
                f"{url}: the server's certificate is not trusted ({reason.verify_message}); correct the address or the "
                f"clock of this machine, {_BY_HAND}"
            ) from error
        raise _PassingError(str(reason) or type(reason).__name__) from error
    return response


def _read(response: http.client.HTTPResponse, size: int = CHUNK_BYTES) -> bytes:
    """What has come of a body, at most `size` bytes; nothing at its end."""
    try:
        return response.read1(size)
    except (OSError, http.client.HTTPException) as error:
        raise _PassingError(str(error) or type(error).__name__) from error


def _read_up_to(response: http.client.HTTPResponse, size: int) -> bytes:
    """The first bytes of a body: `size`, or all where it is shorter."""
    data = b""
    while len(data) < size and (more := _read(response, size - len(data))):
        data += more
    return data


def _continue(url: str, part: Path, tag: Path, known: Version, progress: Progress) -> bool:
    """Fetch what is not there yet.

    Returns:
        Whether the part is whole now; False where the server still has the known version.
    """
    have, version = _kept(url, part, tag), _remembered(url, tag)
    headers = known.conditions
    if have:
        # With If-Range a server whose file has changed sends the whole new file instead of its rest (RFC 9110, 13.1.5).
        headers = {"Range": f"bytes={have}-", "If-Range": str(version.for_ranges)}
    try:
        response = _ask(url, headers)
    except urllib.error.HTTPError as error:
        if error.code == 304 and headers and not have:
            return False
        if error.code != 416 or not have:
            raise
        if error.headers.get("Content-Range") == f"bytes */{have}":
            return True
        tag.unlink()
        raise _PassingError("the part kept is longer than the file") from error
    with response:
        if response.status == 206:
            _check_rest(response, have, version, tag)
        else:
            have = 0
        _receive(url, response, part, tag, have, progress)
    return True


def _check_rest(response: http.client.HTTPResponse, have: int, version: Version, tag: Path) -> None:
    """Refuse a rest that does not begin where the part ends, or that is of another version."""
    begins = response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
    now = _version(response)
    names = ((version.etag, now.etag), (version.last_modified, now.last_modified))
    same = all(None in pair or pair[0] == pair[1] for pair in names)
    if not (begins and same):
        tag.unlink(missing_ok=True)
        raise _PassingError("the server sent another piece of the file than it was asked for")


def _version(response: http.client.HTTPResponse) -> Version:
    return Version(response.headers.get("ETag"), response.headers.get("Last-Modified"))


def _total(response: http.client.HTTPResponse, have: int) -> int:
    """Bytes of the whole file, 0 where the server does not say."""
    stated = re.fullmatch(r"bytes \d+-\d+/(\d+)", response.headers.get("Content-Range", ""))
    if stated and response.status == 206:
        return int(stated[1])
    return have + response.length if response.length is not None else 0


def _receive(
    url: str, response: http.client.HTTPResponse, part: Path, tag: Path, have: int, progress: Progress
) -> None:
    """Write an answer's body behind the `have` bytes that are kept."""
    total, length = _total(response, have), response.length
    free = shutil.disk_usage(part.parent).free + _size(part) - have
    if total - have > free:
        raise NoSpaceError(
            f"{part.parent}: {total - have} bytes are to be downloaded from {url}, {free} are free; free some and run "
            "again"
        )
    chunk = b"" if have else _read_up_to(response, _SNIFFED_BYTES)
    if _WEB_PAGE.match(chunk):
        raise CorruptInputError(
            f"{url} answers with a web page instead of the file: open it in a browser (a network may ask for a login), "
            f"{_BY_HAND}"
        )
    with part.open("r+b" if have else "wb") as file:
        file.truncate(have)
        file.seek(have)
        if not have:
            tag.write_text(json.dumps({"url": url} | dataclasses.asdict(_version(response))), encoding="utf-8")
        while chunk := chunk or _read(response):
            file.write(chunk)
            have += len(chunk)
            progress(have, total, "bytes")
            chunk = b""
    if have < total:
        raise _PassingError(f"the connection ended after {have} of {total} bytes")
    if length is not None and _goes_on(response):
        tag.unlink()
        raise _PassingError(f"the server sent more than the {total} bytes that it announced")


def _goes_on(response: http.client.HTTPResponse) -> bool:
    """Whether an answer whose connection ends with it has more bytes than it stated."""
    source: Any = response.fp
    if source is None or not response.will_close:
        return False
    try:
        return bool(source.read1(1))
    except OSError:
        return False
