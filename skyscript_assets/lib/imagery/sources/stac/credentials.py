"""Credentials of remote sources: signed addresses and token headers, each only for the hosts that it is meant for."""

import datetime as dt
import functools
import json
import math
import os
import threading
import time
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit, urlunsplit

from skyscript_assets.lib.errors import CorruptInputError, SettingsError
from skyscript_assets.lib.http import Signer, request, server_time
from skyscript_assets.lib.imagery.sources.stac.settings import SasSigning, StacSource
from skyscript_assets.lib.secrets import holds_secret, shown

MAX_TOKEN_BYTES = 64 << 10
EARLY_S = 60.0
"""A token is asked for anew so many seconds before it expires."""


def signer_of(source: StacSource) -> Signer | None:
    """What signs the requests of a source, None where it needs nothing.

    Raises:
        SettingsError: the settings do not say to whom a token goes.
    """
    if source.signing is not None and source.collection is None:
        raise SettingsError("sources.yaml: signing needs a collection: its tokens are given out for one")
    return None if source.signing is None and source.token is None else _Credentials(source)


class _Credentials:
    """Signed addresses, and a token from the environment as a header, as the settings have them."""

    def __init__(self, source: StacSource) -> None:
        hosts = source.private_hosts
        self._signing = _sas_tokens(source.signing, source.collection or "", hosts) if source.signing else None
        self._token, self._in_clear = source.token, source.catalog.startswith("http:")
        self._hosts = (source.token.hosts if source.token else ()) or tuple(
            filter(None, [urlsplit(source.catalog).hostname])
        )

    def sign(self, url: str, *, renew: bool = False) -> tuple[str, Mapping[str, str]]:
        headers = {}
        if self._token is not None and _may_see(url, self._hosts, in_clear=self._in_clear):
            value = os.environ.get(self._token.env, "").strip()
            if not value:
                raise SettingsError(
                    f"sources.yaml: token.env names {self._token.env}, but no such environment variable is set: set it "
                    f"to the token for {shown(url)}"
                )
            headers[self._token.header] = f"{self._token.prefix}{value}"
        return url if self._signing is None else self._signing.signed(url, renew=renew), headers


class _SasTokens:
    """Azure SAS tokens as the Planetary Computer gives them out (https://planetarycomputer.microsoft.com/docs/concepts/sas).

    `{endpoint}/token/{collection}` answers `token`, a query string, and `msft:expiry`.
    """

    def __init__(self, signing: SasSigning, collection: str, private_hosts: frozenset[str]) -> None:
        self._signing, self._collection, self._private_hosts = signing, collection, private_hosts
        self._lock = threading.Lock()
        self._token, self._good_until = "", -math.inf

    def signed(self, url: str, *, renew: bool) -> str:
        """An address with a token; `renew` where the last one was refused."""
        parts = urlsplit(url)
        in_clear = self._signing.endpoint.startswith("http:")
        if not _may_see(url, self._signing.hosts, in_clear=in_clear) or holds_secret(url):
            return url
        with self._lock:
            if renew or time.monotonic() >= self._good_until:
                self._fetch()
            query = "&".join(filter(None, [parts.query, self._token]))
        return urlunsplit(parts._replace(query=query))

    def _fetch(self) -> None:
        address = f"{self._signing.endpoint.rstrip('/')}/token/{self._collection}"
        answer = request(address, limit=MAX_TOKEN_BYTES, private_hosts=self._private_hosts)
        try:
            facts = json.loads(answer.body)
            expires = dt.datetime.fromisoformat(facts["msft:expiry"])
            self._token = str(facts["token"]).lstrip("?")
        except (ValueError, KeyError, TypeError) as error:
            raise CorruptInputError(
                f"{address} answers no token and expiry: correct `signing.endpoint` of the source"
            ) from error
        expires = expires if expires.tzinfo is not None else expires.replace(tzinfo=dt.UTC)
        self._good_until = time.monotonic() + expires.timestamp() - server_time(answer.headers) - EARLY_S


_sas_tokens = functools.lru_cache(maxsize=64)(_SasTokens)
"""One per process, so that threads and scenes share a token."""


def _may_see(url: str, hosts: Sequence[str], *, in_clear: bool) -> bool:
    """Whether a host is among those that a secret is meant for, and it goes there encrypted unless it came in clear."""
    host = urlsplit(url).hostname or ""
    return (in_clear or url.startswith("https:")) and any(
        host == known or (known.startswith(".") and host.endswith(known)) for known in hosts
    )
