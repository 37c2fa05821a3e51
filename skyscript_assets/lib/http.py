"""HTTP, the one way in which servers are asked: tries, Retry-After, redirects, bounds, credentials by host, errors.

A fault is the same error for whoever asks: RefusedError (this will not do, now or later), UnreachableError (the server
or the network failed for now, on every try), CorruptInputError (what came is broken). What an answer means belongs to
callers; downloads that are continued belong to `lib.download`.
"""

import contextlib
import email.utils
import functools
import http.client
import logging
import re
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar
from urllib.parse import urljoin, urlsplit

from skyscript_assets.lib.errors import CorruptInputError, RefusedError, SettingsError, SkyScriptError, UnreachableError
from skyscript_assets.lib.hosts import refuse_by_name, refuse_private
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

CREDENTIAL_STATUSES = frozenset({401, 403, 407})
"""Answers that new credentials may turn."""

REDIRECT_STATUSES = frozenset({301, 302, 303, 307, 308})

MAX_REDIRECTS = 5
CONNECTIONS = 16
"""Connections that are kept open to one host."""

_HEADERS = {"User-Agent": "skyscript-assets", "Accept-Encoding": "identity"}
_CHUNK_BYTES = 1 << 18
_WEB = re.compile("https?://", re.IGNORECASE)

T = TypeVar("T")


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


class PassingError(Exception):
    """A failure of one try that may pass.

    Attributes:
        pause_s: Seconds that the server asks to wait.
        lasting: The error that it is where it does not pass.
        remedy: What to do then.
    """

    def __init__(
        self,
        problem: str,
        *,
        pause_s: float = 0.0,
        lasting: type[SkyScriptError] = UnreachableError,
        remedy: str = "check the network and the address, and run again",
    ) -> None:
        super().__init__(problem)
        self.pause_s, self.lasting, self.remedy = pause_s, lasting, remedy


def persist(
    what: str, attempt: Callable[[], T], *, tries: int = 0, kept: Callable[[], int] = lambda: 0, otherwise: str = ""
) -> T:
    """Try again after failures that may pass, later each time, until some in a row brought nothing.

    Args:
        what: What is asked, as messages name it.
        attempt: One try; raises PassingError where it failed for now.
        tries: Failures in a row after which there is no further try; 0: `TRIES`.
        kept: Bytes that a try can continue from: where there are more of them than before, it was not in vain.
        otherwise: What can be done besides the remedy.

    Returns:
        What a try returned.

    Raises:
        UnreachableError: every try failed, or the server asks to come back much later.
        CorruptInputError: every try failed in a way that stands for broken data.
    """
    most, failures = tries or TRIES, 0
    while True:
        before = kept()
        try:
            return attempt()
        except PassingError as error:
            now = kept()
            failures = 1 if now > before else failures + 1
            rest = f"; {now} bytes are kept and a new run continues from there" if now else ""
            if error.pause_s > LONGEST_RETRY_AFTER_S:
                later = f"the server asks to come back after {error.pause_s:.0f} s; run again then"
                raise UnreachableError(f"{what}: {error}, and {later}{rest}") from error
            if failures >= most:
                problem = f"{most} requests in a row failed, at last with: {error}; {error.remedy}{otherwise}"
                raise error.lasting(f"{what}: {problem}{rest}") from error
            time.sleep(max(error.pause_s, min(FIRST_PAUSE_S * 2 ** (failures - 1), LONGEST_PAUSE_S)))


def request(url: str, *, limit: int, signer: Signer | None = None, **how: Any) -> Answer:
    """Ask a server, again and later each time while it or the network fails for now; the answer's status is 200 to 299.

    Credentials are renewed once where they are refused; `how` are further arguments of `opened`.

    Raises:
        SettingsError: the address is none, or not http or https.
        RefusedError: the server refuses, or redirects away from http and https.
        CorruptInputError: the body is longer than `limit` bytes after decompression, or ends early on every try.
        UnreachableError: the server or the network failed on every try.
    """
    renewed = False

    def attempt(*, renew: bool = False) -> Answer:
        nonlocal renewed
        try:
            answer = ask(url, limit=limit, signer=signer, renew=renew, **how)
            check_status(url, answer.status, answer.headers)
        except RefusedError as error:
            # Tokens expire between two requests: once they are asked for anew.
            if signer is None or renewed or error.status not in CREDENTIAL_STATUSES:
                raise
            renewed = True
            return attempt(renew=True)
        return answer

    return persist(shown(url), attempt)


def ask(url: str, *, limit: int, **how: Any) -> Answer:
    """One try of a request, with further arguments of `opened`: whatever the server answers.

    Raises:
        CorruptInputError: the body is longer than `limit` bytes after decompression.
        PassingError: it failed for now; and what `opened` raises.
    """
    with opened(url, **how) as response:
        headers = {name.lower(): value for name, value in response.headers.items()}
        return Answer(response.status, headers, _read(response, url, limit))


@contextlib.contextmanager
def opened(
    url: str,
    *,
    signer: Signer | None = None,
    renew: bool = False,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    stall_s: float | None = None,
    private_hosts: frozenset[str] = frozenset(),
) -> Iterator[Any]:
    """One try of a request whose body is read inside the block, where reading raises as asking does.

    Redirects are followed within http and https; credentials go only where their signer sends them.

    Args:
        url: Address, http or https.
        signer: Credentials for the hosts that they are meant for.
        renew: Whether the last credentials were refused.
        method: GET or POST.
        headers: Further headers.
        body: Body of a POST.
        stall_s: Seconds without a byte until the try has failed; default: `STALL_S`.
        private_hosts: Hosts whose addresses may be private, see `lib.hosts`; all others must be on the open Internet.

    Yields:
        The answer as urllib3 has it, of any status but a redirect.

    Raises:
        SettingsError: the address is none, or not http or https.
        RefusedError: the server redirects away from http and https, or in circles; or the address is a private one.
        UnreachableError: the server's certificate is not trusted.
        PassingError: the server or the network failed for now.
    """
    for _ in range(MAX_REDIRECTS + 1):
        if not _WEB.match(url):
            raise SettingsError(f"{shown(url)} cannot be asked: give an http or https address")
        signed, credentials = signer.sign(url, renew=renew) if signer is not None else (url, {})
        pool = _pool_for(signed, private_hosts)
        with _sent(pool, method, signed, {**(headers or {}), **credentials}, body, stall_s or STALL_S) as response:
            if response.status not in REDIRECT_STATUSES or "location" not in response.headers:
                yield response
                return
            response.read(_CHUNK_BYTES)  # so that the connection can be used again
        target = urljoin(url, response.headers["location"])
        if not _WEB.match(target):
            raise RefusedError(f"{shown(url)} redirects to {shown(target)}, which is neither http nor https")
        if response.status == 303 or (response.status in (301, 302) and method == "POST"):
            method, body = "GET", None
        url = target
    raise RefusedError(f"{shown(url)} redirects more than {MAX_REDIRECTS} times")


def check_status(url: str, status: int, headers: Mapping[str, str], otherwise: str = "") -> None:
    """Raise what an answer's status means where it is not 200 to 299.

    `headers` have names in lower case, or in any where the mapping ignores case; `otherwise` is what can be done
    besides the remedy.

    Raises:
        RefusedError: the server refuses.
        PassingError: it failed for now.
    """
    if 200 <= status < 300:
        return
    if status in PASSING_STATUSES:
        raise fails_for_now(status, headers)
    remedy = "correct the address"
    if status in CREDENTIAL_STATUSES:
        remedy = "it needs a login or a token (`signing` and `token` of a source), or the one that it got has expired"
    raise RefusedError(f"{shown(url)}: the server answers {status}; {remedy}{otherwise}", status)


def fails_for_now(status: int, headers: Mapping[str, str], said: str = "") -> PassingError:
    """The failure that one of `PASSING_STATUSES` is; `said` is what the server says of it, `headers` as above."""
    problem = "wants fewer requests" if status == 429 else "fails for now"
    detail = f"{status}: {said}" if said else f"{status}"
    return PassingError(f"the server {problem} ({detail})", pause_s=_retry_after_s(headers), remedy="run again later")


def server_time(headers: Mapping[str, str]) -> float:
    """When a server sent an answer, seconds since 1970 by its own clock; by this machine's where it does not say.

    What a server sets an end to is measured from here: this machine's clock may be wrong, and be set.
    """
    sent = _seconds_of(headers.get("date"))
    return time.time() if sent is None else sent


@contextlib.contextmanager
def _sent(
    pool: Any, method: str, url: str, headers: Mapping[str, str], body: bytes | None, stall_s: float
) -> Iterator[Any]:
    """Send one request and translate what urllib3 raises; a body that was read leaves the connection open."""
    import urllib3

    given = {name.lower() for name in headers}
    sent = {name: value for name, value in _HEADERS.items() if name.lower() not in given} | dict(headers)
    timeout = urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=stall_s)
    try:
        response = pool.urlopen(
            method, url, body=body, headers=sent, timeout=timeout, redirect=False, retries=False, preload_content=False
        )
        with contextlib.closing(response):
            yield response
    except urllib3.exceptions.HTTPError as error:
        raise _failure(url, error) from error


def _failure(url: str, error: Any) -> Exception:
    """What an exception of urllib3 means; its own message may hold the query and is not passed on."""
    from urllib3 import exceptions

    match error:
        case exceptions.LocationValueError():
            return SettingsError(f"{shown(url)} is no address that can be asked")
        case exceptions.SSLError() if "CERTIFICATE_VERIFY_FAILED" in str(error):
            return UnreachableError(
                f"{shown(url)}: the server's certificate is not trusted; correct the address or this machine's clock"
            )
        case _ if any(isinstance(part, http.client.IncompleteRead) for part in (error, *error.args)):
            return _broken("the body ends before the length that the server announced")
        case exceptions.DecodeError():
            return _broken("the body is compressed in a broken way")
        case exceptions.NewConnectionError():  # a name or a port that is not there; urllib3 counts it as a timeout
            return PassingError(f"no connection ({getattr(error.__cause__, 'strerror', None) or 'unknown host'})")
        case exceptions.TimeoutError():
            return PassingError("no answer came in time")
        case _:
            return PassingError(f"the connection failed ({type(error).__name__})")


def _broken(problem: str) -> PassingError:
    remedy = "the file is broken on its server, or what lies between is: run again later"
    return PassingError(problem, lasting=CorruptInputError, remedy=remedy)


def _read(response: Any, url: str, limit: int) -> bytes:
    """The body, unless it is longer than the limit or comes too slowly."""
    stated = response.headers.get("Content-Length", "")
    length = int(stated) if stated.isascii() and stated.isdigit() else 0
    started, chunks, size = time.monotonic(), [], 0
    while max(size, length) <= limit and (
        chunk := response.read(min(_CHUNK_BYTES, limit + 1 - size), decode_content=True)
    ):
        chunks.append(chunk)
        size += len(chunk)
        spent = time.monotonic() - started
        if spent > STALL_S and size < SLOWEST_BYTES_PER_S * spent:
            raise PassingError(f"only {size} bytes came in {spent:.0f} s")
    if max(size, length) > limit:
        raise CorruptInputError(f"{shown(url)}: the answer is longer than the {limit} bytes that are accepted")
    return b"".join(chunks)


def _pool_for(url: str, private_hosts: frozenset[str]) -> Any:
    """The open connections for an address, by the proxy that the system's settings name for it, as urllib has them."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    proxy = None if urllib.request.proxy_bypass(host) else urllib.request.getproxies().get(parts.scheme)
    if proxy is not None:
        # A proxy looks the name up for itself; what it stands for here is all that can be checked.
        refuse_by_name(host, private_hosts)
        return _pool(proxy, frozenset())
    return _pool(None, private_hosts)


@functools.cache
def _pool(proxy: str | None, private_hosts: frozenset[str]) -> Any:
    """The process's open connections; those that may be private serve nobody else."""
    import urllib3

    # On its level DEBUG urllib3 logs whole addresses, signatures included.
    logging.getLogger("urllib3").setLevel(logging.INFO)
    if proxy is not None:
        return urllib3.ProxyManager(proxy, num_pools=32, maxsize=CONNECTIONS)
    manager = urllib3.PoolManager(num_pools=32, maxsize=CONNECTIONS)
    manager.pool_classes_by_scheme = {
        scheme: _guarded(pool, private_hosts) for scheme, pool in manager.pool_classes_by_scheme.items()
    }
    return manager


def _guarded(pool: Any, private_hosts: frozenset[str]) -> Any:
    """A class of urllib3's pools whose connections go to no other private address."""
    base = pool.ConnectionCls

    def connected(self: Any) -> Any:
        refuse_by_name(self.host, private_hosts)
        sock = base._new_conn(self)
        try:
            # The name may have been given another address since: the one that was connected to counts.
            refuse_private(self.host, sock.getpeername()[0], private_hosts)
        except BaseException:
            sock.close()
            raise
        return sock

    return type("Guarded", (pool,), {"ConnectionCls": type("Guarded", (base,), {"_new_conn": connected})})


def _retry_after_s(headers: Mapping[str, str]) -> float:
    """Seconds to wait by a Retry-After header, a number or an HTTP date (RFC 9110, 10.2.3); 0 where it is neither."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    until = _seconds_of(text)
    return 0.0 if until is None else max(0.0, until - server_time(headers))


def _seconds_of(date: str | None) -> float | None:
    """Seconds since 1970 of an HTTP date, None where it is none."""
    parts = email.utils.parsedate_tz(date or "")
    try:
        return None if parts is None else email.utils.mktime_tz(parts)
    except (ValueError, OverflowError):
        return None
