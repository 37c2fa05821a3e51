"""HTTP requests that try again: bounded answers, Retry-After, redirects within http and https, credentials by host.

What an answer means belongs to callers; downloads of whole files that are continued belong to `lib.osm.download`.
"""

from __future__ import annotations

import datetime as dt
import email.utils
import functools
import logging
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urljoin, urlsplit

from skyscript_assets.lib.errors import CorruptInputError, RefusedError, SettingsError, UnreachableError
from skyscript_assets.lib.secrets import shown

CONNECT_TIMEOUT_S = 10.0
STALL_S = 30.0
"""Seconds without a byte after which a connection counts as cut."""

SLOWEST_BYTES_PER_S = 1_000.0
"""An answer that comes more slowly than this, once it has taken `STALL_S`, counts as stalled."""

TRIES = 5
FIRST_PAUSE_S = 1.0
"""Seconds before the second try; doubled with each further one."""

LONGEST_PAUSE_S = 60.0
"""Longest pause between two tries that is chosen here."""

LONGEST_RETRY_AFTER_S = 600.0
"""Longest pause that a server may ask for; where it asks for more the request fails and says so."""

PASSING_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers that may be another one a little later."""

CREDENTIAL_STATUSES = frozenset({401, 403})
"""Answers that new credentials may turn."""

MAX_REDIRECTS = 5
CONNECTIONS = 16
"""Connections that are kept open to one host."""

_CHUNK_BYTES = 1 << 18


class Signer(Protocol):
    """Credentials: what makes an address and headers acceptable to the hosts that they are meant for."""

    def sign(self, url: str, *, renew: bool = False) -> tuple[str, Mapping[str, str]]:
        """The address to ask for and headers to send with it; `renew` where the last ones were refused."""
        ...


@dataclass(frozen=True)
class Answer:
    """A server's answer: status, headers by lower-case name, and body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class _PassingError(Exception):
    """A failure that may pass; `pause_s` are the seconds that the server asks to wait, `broken` a broken body."""

    def __init__(self, problem: str, pause_s: float = 0.0, *, broken: bool = False) -> None:
        super().__init__(problem)
        self.pause_s = pause_s
        self.broken = broken


def host_of(url: str) -> str:
    """The host of an address, lower case, without port."""
    return urlsplit(url).hostname or ""


def request(
    url: str,
    *,
    limit: int,
    signer: Signer | None = None,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    check: Callable[[Answer], None] | None = None,
) -> Answer:
    """Ask a server, again and later each time while it or the network fails for now.

    Args:
        url: Address, http or https.
        limit: Most bytes of the body that are accepted, after decompression.
        signer: Credentials for the hosts that they are meant for; renewed once where they are refused.
        method: GET or POST.
        headers: Further headers.
        body: Body of a POST.
        check: Raises CorruptInputError for an answer that is not what was asked for.

    Returns:
        The answer, status 200 to 299.

    Raises:
        SettingsError: the address is none, or not http or https.
        RefusedError: the server refuses, or redirects away from http and https.
        CorruptInputError: the body is too long, or ends early on every try, or `check` says so.
        UnreachableError: the server or the network failed on every try.
    """
    renew = renewed = False
    failures = 0
    while True:
        try:
            return _follow(url, limit, signer, renew, method, dict(headers or {}), body, check)
        except RefusedError as error:
            # Tokens expire between two requests: once they are asked for anew.
            if signer is None or renewed or error.status not in CREDENTIAL_STATUSES:
                raise
            renew = renewed = True
        except _PassingError as error:
            failures, renew = failures + 1, False
            _pause(url, error, failures)


def _pause(url: str, error: _PassingError, failures: int) -> None:
    """Wait before the next try, or raise what ends the trying."""
    if error.pause_s > LONGEST_RETRY_AFTER_S:
        raise UnreachableError(
            f"{shown(url)}: {error}, and the server asks to come back after {error.pause_s:.0f} s; run again then"
        )
    if failures >= TRIES:
        problem = f"{shown(url)}: {TRIES} requests in a row failed, at last with: {error}"
        if error.broken:
            raise CorruptInputError(f"{problem}; the file is broken on its server, or what lies between is")
        raise UnreachableError(f"{problem}; check the network and the address, and run again")
    time.sleep(max(error.pause_s, min(FIRST_PAUSE_S * 2 ** (failures - 1), LONGEST_PAUSE_S)))


def _follow(
    url: str,
    limit: int,
    signer: Signer | None,
    renew: bool,
    method: str,
    headers: dict[str, str],
    body: bytes | None,
    check: Callable[[Answer], None] | None,
) -> Answer:
    """One try: ask, and ask where a redirect points to; credentials go only where their signer sends them."""
    for _ in range(MAX_REDIRECTS + 1):
        if urlsplit(url).scheme not in ("http", "https") or not host_of(url):
            raise SettingsError(f"{shown(url)} cannot be asked: give an http or https address")
        signed, credentials = signer.sign(url, renew=renew) if signer is not None else (url, {})
        answer = _ask(signed, limit, method, headers | dict(credentials), body)
        if 200 <= answer.status < 300:
            if check is not None:
                check(answer)
            return answer
        if answer.status not in (301, 302, 303, 307, 308) or "location" not in answer.headers:
            raise _refusal(url, answer)
        target = urljoin(url, answer.headers["location"])
        if urlsplit(target).scheme not in ("http", "https"):
            raise RefusedError(f"{shown(url)} redirects to {shown(target)}, which is neither http nor https")
        if answer.status == 303 or (answer.status in (301, 302) and method == "POST"):
            method, body = "GET", None
        url = target
    raise RefusedError(f"{shown(url)} redirects more than {MAX_REDIRECTS} times")


def _refusal(url: str, answer: Answer) -> Exception:
    if answer.status in PASSING_STATUSES:
        return _PassingError(f"the server answers {answer.status}", retry_after_s(answer.headers.get("retry-after")))
    remedy = "correct the address"
    if answer.status in CREDENTIAL_STATUSES:
        remedy = "it needs a token, or the one that it got has expired: see `signing` and `token` of the source"
    return RefusedError(f"{shown(url)}: the server answers {answer.status}; {remedy}", answer.status)


def _ask(url: str, limit: int, method: str, headers: Mapping[str, str], body: bytes | None) -> Answer:
    """Send one request.

    Raises:
        _PassingError: the network failed, or the body ended early.
        CorruptInputError: the body is longer than `limit`.
    """
    import urllib3

    agent = {"User-Agent": "skyscript-assets", "Accept-Encoding": "identity"}
    timeout = urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=STALL_S)
    try:
        response = _pool(_proxy_for(url)).urlopen(
            method,
            url,
            body=body,
            headers=agent | dict(headers),
            timeout=timeout,
            redirect=False,
            retries=False,
            preload_content=False,
        )
        try:
            data = _read(response, url, limit)
        except BaseException:
            response.close()
            raise
        response.release_conn()
    except urllib3.exceptions.HTTPError as error:
        raise _failure(url, error) from error
    return Answer(response.status, {name.lower(): value for name, value in response.headers.items()}, data)


def _failure(url: str, error: Any) -> Exception:
    """What an exception of urllib3 means; its own message may hold the query and is not passed on."""
    from urllib3 import exceptions

    match error:
        case exceptions.LocationParseError():
            return SettingsError(f"{shown(url)} is no address that can be asked")
        case exceptions.SSLError() if "CERTIFICATE_VERIFY_FAILED" in str(error):
            return UnreachableError(
                f"{shown(url)}: the server's certificate is not trusted; correct the address or this machine's clock"
            )
        case exceptions.IncompleteRead() | exceptions.InvalidChunkLength():
            return _PassingError("the body ends before the length that the server announced", broken=True)
        case exceptions.ProtocolError() if any(isinstance(arg, exceptions.IncompleteRead) for arg in error.args):
            return _PassingError("the body ends before the length that the server announced", broken=True)
        case exceptions.DecodeError():
            return _PassingError("the body is compressed in a broken way", broken=True)
        case exceptions.TimeoutError():
            return _PassingError("no answer came in time")
        case _:
            return _PassingError(f"the connection failed ({type(error).__name__})")


def _read(response: Any, url: str, limit: int) -> bytes:
    """The body, unless it is longer than the limit or comes too slowly."""
    stated = response.headers.get("Content-Length", "")
    if stated.isascii() and stated.isdigit() and int(stated) > limit:
        raise _too_long(url, limit)
    started, chunks, size = time.monotonic(), [], 0
    while chunk := response.read(min(_CHUNK_BYTES, limit + 1 - size), decode_content=True):
        chunks.append(chunk)
        size += len(chunk)
        if size > limit:
            raise _too_long(url, limit)
        spent = time.monotonic() - started
        if spent > STALL_S and size < SLOWEST_BYTES_PER_S * spent:
            raise _PassingError(f"only {size} bytes came in {spent:.0f} s")
    return b"".join(chunks)


def _too_long(url: str, limit: int) -> CorruptInputError:
    return CorruptInputError(f"{shown(url)}: the answer is longer than the {limit} bytes that are accepted")


def _proxy_for(url: str) -> str | None:
    """The proxy that the system's settings name for an address, as urllib has them."""
    parts = urlsplit(url)
    if urllib.request.proxy_bypass(parts.hostname or ""):
        return None
    return urllib.request.getproxies().get(parts.scheme)


@functools.cache
def _pool(proxy: str | None) -> Any:
    """The process's open connections."""
    import urllib3

    # On its level DEBUG urllib3 logs whole addresses, signatures included.
    logging.getLogger("urllib3").setLevel(logging.INFO)
    if proxy is not None:
        return urllib3.ProxyManager(proxy, num_pools=32, maxsize=CONNECTIONS)
    return urllib3.PoolManager(num_pools=32, maxsize=CONNECTIONS)


def retry_after_s(value: str | None) -> float:
    """Seconds to wait by a Retry-After header, a number or an HTTP date (RFC 9110, 10.2.3); 0 where it is neither."""
    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        until = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    return max(0.0, (until.replace(tzinfo=until.tzinfo or dt.UTC) - dt.datetime.now(dt.UTC)).total_seconds())
