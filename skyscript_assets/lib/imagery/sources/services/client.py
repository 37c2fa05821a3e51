"""Requests to a service: slowly, few at a time, and its key never shown.

How a request is made and tried again is `lib.http`; here are the rate, the key and what an answer means.
"""

import fcntl
import hashlib
import importlib.metadata
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlencode, urljoin, urlsplit
from xml.etree.ElementTree import Element

from skyscript_assets.lib import http
from skyscript_assets.lib.errors import (
    CorruptInputError,
    MissingInputError,
    RefusedError,
    SceneError,
    SettingsError,
    SkyScriptError,
)
from skyscript_assets.lib.hosts import private_hosts
from skyscript_assets.lib.imagery.sources.services.settings import ServiceSource
from skyscript_assets.lib.imagery.sources.services.xml import parse_xml
from skyscript_assets.lib.secrets import KEY_PLACE, shown, told, with_place

MAX_ANSWER_BYTES = 32 << 20
"""Largest answer that is read: twice an uncompressed RGBA tile of 2,048 pixels a side."""

QUOTED_BYTES = 2000
"""Beginning of an answer that messages quote from."""

_MARKUP = re.compile(r"<[^>]*>")

LONGEST_QUEUE_S = 900.0
"""A turn that lies further ahead was taken before this machine was started anew."""


class Client:
    """Asks one service; threads may share it.

    `folder` exists and is shared by all processes that ask services, so that they keep the rate together.

    Raises:
        SettingsError: the environment variable that should hold the key is not set.
    """

    def __init__(self, source: ServiceSource, key: str, folder: Path) -> None:
        self._source, self._key = source, key
        self._host = urlsplit(source.url).netloc
        self._hosts = private_hosts(source.allow_private_hosts, source.url)
        self._secret = _read_secret(source, key)
        self._turn = folder / f"{hashlib.sha256(self._host.encode()).hexdigest()[:16]}.turn"
        contact = f"; {source.contact}" if source.contact else ""
        version = importlib.metadata.version("skyscript-assets")
        self._headers = {"User-Agent": f"skyscript-assets/{version} (chips of imagery with captions from OSM{contact})"}

    def sign(self, url: str, *, renew: bool = False) -> tuple[str, Mapping[str, str]]:  # noqa: ARG002
        """Wait for a turn, and give the address and headers with which a request is sent.

        Another host than that of the settings is given no key.
        """
        _wait_for_turn(self._turn, 1.0 / self._source.requests_per_second)
        if not self._secret or urlsplit(url).netloc != self._host:
            return url.replace(KEY_PLACE, ""), {}
        if KEY_PLACE in url:
            return url.replace(KEY_PLACE, quote(self._secret, safe="")), {}
        if self._source.api_key_header is not None:
            return url, {self._source.api_key_header: self._secret}
        return with_query(url, {self._source.api_key_parameter: self._secret}), {}

    def get(self, url: str) -> http.Answer | None:
        """Ask for an address, with `{api_key}` where the key belongs in it; None where the service has nothing there.

        Raises:
            MissingInputError: the service refuses: the same would happen to every request.
            UnreachableError: it gives no answer, or wants fewer requests.
            CorruptInputError: the answer is cut on every try, or too long.
        """
        try:
            how = {"headers": self._headers, "private_hosts": self._hosts}
            answer = http.request(url, limit=MAX_ANSWER_BYTES, signer=self, **how)
        except RefusedError as error:
            if error.status in self._source.absent_statuses:
                return None
            said = f"{shown(url)}: the service refuses with {error.status}; {self._remedy(error.status)}"
            told = said if error.status else with_place(str(error), self._secret)
            raise MissingInputError(f"source {self._key}: {told}") from None
        except SkyScriptError as error:
            # What went wrong below the signed address may name it, and with it a key that stands in its path.
            told = with_place(str(error), self._secret)
            if told == str(error):
                raise
            raise type(error)(told) from None
        return None if answer.status in self._source.absent_statuses else answer

    def quoted(self, answer: http.Answer) -> str:
        """What an answer that is no image says, such as a service's exception: its words, short and printable."""
        if answer.headers.get("content-type", "").startswith("image/"):
            return ""
        words = _MARKUP.sub(" ", answer.body[:QUOTED_BYTES].decode("utf-8", "ignore"))
        said = told(with_place(words, self._secret), 160)
        return f"; the service says: {said}" if said else ""

    def keyless(self, address: str) -> str:
        """An address that a service sent, with a place in it for the key where the service put the key itself."""
        parts = urlsplit(address)
        head = f"{parts.scheme}://{parts.netloc}" if parts.netloc else ""
        return head + with_place(address[len(head) :], self._secret)

    def capabilities(self, url: str, kind: str, names: tuple[str, ...]) -> Element:
        """What a service of some kind says that it offers: a document whose outermost element has one of some names.

        Raises:
            SceneError: it is another kind of service.
            MissingInputError: the service has none there.
            CorruptInputError: it is no document; and what `get` raises.
        """
        answer, remedy = self.get(url), f"correct sources.yaml: {self._key}.url"
        if answer is None:
            raise MissingInputError(f"{shown(url)}: the service has no such document; {remedy}")
        root = parse_xml(answer.body, shown(url))
        if root.tag not in names:
            raise SceneError(f"{shown(url)} is no {kind}: it answers with {root.tag}; {remedy}")
        return root

    def _remedy(self, status: int) -> str:
        variable = self._source.api_key_variable
        if status in (401, 403, 407) and variable is not None:
            return f"the key in the environment variable {variable} is wrong, has expired or does not reach this layer"
        if status in (401, 403, 407):
            return f"it needs a key (sources.yaml: {self._key}.api_key_variable) or is closed to this machine"
        return f"check url, layer, style and format in sources.yaml: {self._key}"


def _wait_for_turn(path: Path, seconds: float) -> None:
    """Wait until the next request may be sent; the one after it may `seconds` later.

    When that is stands in a file, so that all threads and processes that ask a host share one rate. It counts from the
    start of the machine, as all of them do: a clock that is set changes nothing.
    """
    now = time.monotonic()
    with path.open("a+", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # until the file is closed
        file.seek(0)
        try:
            turn = max(now, float(file.read(40)))
        except ValueError:
            turn = now
        turn = turn if turn < now + LONGEST_QUEUE_S else now
        file.seek(0)
        file.truncate()
        file.write(f"{turn + seconds:.6f}")
    time.sleep(max(0.0, turn - now))


def _read_secret(source: ServiceSource, key: str) -> str:
    """The key of a service from the environment variable that its settings name; empty where it needs none."""
    if source.api_key_variable is None:
        return ""
    secret = os.environ.get(source.api_key_variable, "").strip()
    if not secret:
        raise SettingsError(
            f"source {key} needs a key: set the environment variable {source.api_key_variable} (sources.yaml: "
            f"{key}.api_key_variable)"
        )
    return secret


def followed(base: str, address: str, *, same_host: bool = False) -> str:
    """An address that a document states, as it is used: whole, and as well encrypted as the document's own.

    With `same_host` the document's own, `base`, stands for an address on another host: behind a proxy services misname
    themselves.

    Raises:
        CorruptInputError: it is no web address.
    """
    whole = urljoin(base, address)
    if urlsplit(whole).scheme not in ("http", "https"):
        raise CorruptInputError(f"{shown(base)} names an address that is neither http nor https")
    if same_host and urlsplit(whole).hostname != urlsplit(base).hostname:
        return base
    if urlsplit(base).scheme == "https" and whole.startswith("http://"):
        whole = f"https://{whole.removeprefix('http://')}"
    return whole


def with_query(url: str, parameters: Mapping[str, str]) -> str:
    """An address with parameters; names that it has already, in any case, are replaced (OGC names ignore case)."""
    base, _, query = url.partition("?")
    names = {name.lower() for name in parameters}
    kept = [(name, value) for name, value in parse_qsl(query, keep_blank_values=True) if name.lower() not in names]
    return f"{base}?{urlencode([*kept, *parameters.items()], quote_via=quote, safe=':/,{}')}"
