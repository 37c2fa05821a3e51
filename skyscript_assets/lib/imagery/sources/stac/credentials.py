"""Credentials of remote sources: signed addresses and token headers, each only for the hosts that it is meant for."""

from __future__ import annotations

import datetime as dt
import functools
import json
import os
import threading
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit, urlunsplit

from skyscript_assets.lib.errors import CorruptInputError, SettingsError
from skyscript_assets.lib.http import Signer, host_of, request
from skyscript_assets.lib.secrets import holds_secret, shown
from skyscript_assets.lib.settings.sources import SasSigning, StacSource, TokenHeader

MAX_TOKEN_BYTES = 64 << 10
EARLY = dt.timedelta(seconds=60)
"""A token is asked for anew so long before it expires."""


def signer_of(source: StacSource) -> Signer | None:
    """What signs the requests of a source, None where it needs nothing.

    Raises:
        SettingsError: the settings do not say to whom a token goes.
    """
    signers: list[Signer] = []
    if source.signing is not None:
        if source.collection is None:
            raise SettingsError("sources.yaml: signing needs a collection: its tokens are given out for one")
        signers.append(_sas_tokens(source.signing, source.collection))
    if source.token is not None:
        hosts = source.token.hosts or tuple(filter(None, [host_of(source.catalog)]))
        signers.append(_Header(source.token, hosts, in_clear=source.catalog.startswith("http:")))
    return _All(signers) if signers else None


class _All:
    """Several signers, one after the other."""

    def __init__(self, signers: Sequence[Signer]) -> None:
        self._signers = signers

    def sign(self, url: str, *, renew: bool = False) -> tuple[str, Mapping[str, str]]:
        headers: dict[str, str] = {}
        for signer in self._signers:
            url, more = signer.sign(url, renew=renew)
            headers |= more
        return url, headers


class _Header:
    """A token from the environment as a header."""

    def __init__(self, token: TokenHeader, hosts: Sequence[str], *, in_clear: bool) -> None:
        self._token, self._hosts, self._in_clear = token, hosts, in_clear

    def sign(self, url: str, *, renew: bool = False) -> tuple[str, Mapping[str, str]]:  # noqa: ARG002
        if not _may_see(url, self._hosts, in_clear=self._in_clear):
            return url, {}
        value = os.environ.get(self._token.env, "").strip()
        if not value:
            raise SettingsError(
                f"sources.yaml: token.env names {self._token.env}, but no such environment variable is set: set it to "
                f"the token for {shown(url)}"
            )
        return url, {self._token.header: f"{self._token.prefix}{value}"}


class _SasTokens:
    """Azure SAS tokens as the Planetary Computer gives them out (https://planetarycomputer.microsoft.com/docs/concepts/sas).

    `{endpoint}/token/{collection}` answers `token`, a query string, and `msft:expiry`.
    """

    def __init__(self, signing: SasSigning, collection: str) -> None:
        self._signing, self._collection = signing, collection
        self._lock = threading.Lock()
        self._token = ""
        self._expires = dt.datetime.min.replace(tzinfo=dt.UTC)

    def sign(self, url: str, *, renew: bool = False) -> tuple[str, Mapping[str, str]]:
        parts = urlsplit(url)
        in_clear = self._signing.endpoint.startswith("http:")
        if not _may_see(url, self._signing.hosts, in_clear=in_clear) or holds_secret(url):
            return url, {}
        with self._lock:
            if renew or self._expires - dt.datetime.now(dt.UTC) <= EARLY:
                self._fetch()
            query = "&".join(filter(None, [parts.query, self._token]))
        return urlunsplit(parts._replace(query=query)), {}

    def _fetch(self) -> None:
        address = f"{self._signing.endpoint.rstrip('/')}/token/{self._collection}"
        answer = request(address, limit=MAX_TOKEN_BYTES)
        try:
            facts = json.loads(answer.body)
            expires = dt.datetime.fromisoformat(facts["msft:expiry"])
            self._token = str(facts["token"]).lstrip("?")
        except (ValueError, KeyError, TypeError) as error:
            raise CorruptInputError(
                f"{address} answers no token and expiry: correct `signing.endpoint` of the source"
            ) from error
        self._expires = expires if expires.tzinfo is not None else expires.replace(tzinfo=dt.UTC)


@functools.lru_cache(maxsize=64)
def _sas_tokens(signing: SasSigning, collection: str) -> _SasTokens:
    """One per process, so that threads and scenes share a token."""
    return _SasTokens(signing, collection)


def _may_see(url: str, hosts: Sequence[str], *, in_clear: bool) -> bool:
    """Whether a host is among those that a secret is meant for, and it goes there encrypted unless it came in clear."""
    host = host_of(url)
    return (in_clear or url.startswith("https:")) and any(
        host == known or (known.startswith(".") and host.endswith(known)) for known in hosts
    )
