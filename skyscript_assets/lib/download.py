"""Downloads that survive a cut connection: parts are kept and continued with HTTP range requests (RFC 9110, 14).

How a server is asked, and asked again, is `lib.http`; what is particular to OSM extracts, such as their checksums,
belongs to `lib.osm.extract`, what is kept of archives and weights to `lib.archive`.
"""

import contextlib
import dataclasses
import itertools
import json
import os
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from skyscript_assets.lib import http
from skyscript_assets.lib.errors import DISK_FULL, CorruptInputError, NoSpaceError
from skyscript_assets.lib.files import check_room
from skyscript_assets.lib.hosts import private_hosts
from skyscript_assets.lib.http import PassingError
from skyscript_assets.lib.progress import Progress, silent
from skyscript_assets.lib.secrets import shown, without_secrets

CHUNK_BYTES = 1 << 18
ANSWER_S = 10.0
"""Seconds that a server has for the beginning of its answer where nothing is downloaded."""

ABSENT_STATUSES = frozenset({403, 404, 410})
"""Answers that mean that there is no such file; object stores answer 403 where they do not list their files."""

_BY_HAND = ", or download it by hand and give the file as `path` in regions.yaml (`pretrained`, `root` elsewhere)"
_WEB_PAGE = re.compile(rb"(\xef\xbb\xbf)?\s*<(!doctype\s+html|html)\b", re.IGNORECASE)
_SNIFFED_BYTES = 512


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

    def may_be(self, other: Self) -> bool:
        """Whether no validator that both have says that they differ."""
        pairs = ((self.etag, other.etag), (self.last_modified, other.last_modified))
        return all(None in pair or pair[0] == pair[1] for pair in pairs)


UNKNOWN = Version()
"""The version where the server says nothing of it."""


def download(
    url: str, target: Path, progress: Progress = silent, *, known: Version = UNKNOWN, allowed: Collection[str] = ()
) -> Version | None:
    """Download a file; a part left by an earlier call is continued if the server still has the same file.

    The part is `{target}.part`, with `{target}.part.tag` beside it that holds the address and the server's name for
    this version of the file. Where the server gives none, a cut download starts afresh.

    Args:
        url: Address, http or https, as the settings state it.
        target: Where the whole file ends.
        progress: Told the bytes that are there, and their total where the server states it.
        known: Version that the caller has already; where the server still has it nothing is downloaded.
        allowed: Further hosts that may be private (`lib.hosts`).

    Returns:
        The version downloaded, None where the server still has the known one.

    Raises:
        SettingsError: the address is none, or not http or https.
        RefusedError: the server refuses; the part stays as it was.
        UnreachableError: every try failed; the part stays for a later call.
        CorruptInputError: the answer is a web page; the part stays as it was.
        NoSpaceError: the disk has less room than the file needs; the part stays for a later call.
    """
    part = _Part(url, target, private_hosts(allowed, url))
    try:
        changed = http.persist(shown(url), lambda: _continue(part, known, progress), kept=part.kept, otherwise=_BY_HAND)
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        raise NoSpaceError(
            f"{target.parent}: the disk is full after {part.size} bytes of {shown(url)}; free some and run again: "
            "they are kept"
        ) from error
    return part.finish() if changed else None


def is_another(url: str, known: Version, size: int | None, allowed: Collection[str] = ()) -> bool | None:
    """Ask a server, once and briefly, whether a file is another one than that of a known version and size in bytes.

    Returns:
        None where the answer has neither a validator nor a length by which that could be told.

    Raises:
        RefusedError: the server refuses, or does not have the file.
        UnreachableError: the server or the network failed.
    """

    def attempt() -> bool | None:
        hosts = private_hosts(allowed, url)
        with http.opened(url, headers=known.conditions, stall_s=ANSWER_S, private_hosts=hosts) as response:
            if response.status == 304:
                return False
            http.check_status(url, response.status, response.headers)
            now = Version(response.headers.get("ETag"), response.headers.get("Last-Modified"))
            length = response.length_remaining
            if not known.may_be(now) or (None not in (size, length) and size != length):
                return True
            return False if (known.etag and now.etag) or (known.last_modified and now.last_modified) else None

    return http.persist(shown(url), attempt, tries=1)


def read_small(url: str, limit: int, allowed: Collection[str] = ()) -> bytes | None:
    """The first `limit` bytes of a small file, such as a list of checksums; None where the server has no such file.

    Raises:
        SettingsError: the address is none, or not http or https.
        RefusedError: the server refuses.
        UnreachableError: every try failed.
    """

    def attempt() -> Any:
        with http.opened(url, private_hosts=private_hosts(allowed, url)) as response:
            if response.status in ABSENT_STATUSES:
                return None
            http.check_status(url, response.status, response.headers, _BY_HAND)
            return response.read(limit)

    data: bytes | None = http.persist(shown(url), attempt, otherwise=_BY_HAND)
    return data


class _Part:
    """What is there of a download, and which version of the file it is of."""

    def __init__(self, url: str, target: Path, hosts: frozenset[str]) -> None:
        self.private_hosts = hosts
        self.url, self._address, self._target = url, without_secrets(url), target
        self.path = target.with_name(f"{target.name}.part")
        self._tag = target.with_name(f"{target.name}.part.tag")

    @property
    def size(self) -> int:
        """Its bytes."""
        return self.path.stat().st_size if self.path.is_file() else 0

    def kept(self) -> int:
        """Bytes that the next try can continue from."""
        return self.size if self.version.for_ranges else 0

    @property
    def version(self) -> Version:
        """The version that it is of, unknown where it is of another address."""
        try:
            facts = json.loads(self._tag.read_text(encoding="utf-8"))
            return Version(facts["etag"], facts["last_modified"]) if facts["url"] == self._address else UNKNOWN
        except (OSError, ValueError, KeyError, TypeError):
            return UNKNOWN

    def begin(self, version: Version) -> None:
        """Note the version of what comes now."""
        self._tag.write_text(json.dumps({"url": self._address} | dataclasses.asdict(version)), encoding="utf-8")

    def doubt(self, problem: str) -> PassingError:
        """Have the next try begin afresh, for a reason."""
        self._tag.unlink(missing_ok=True)
        return PassingError(problem)

    def finish(self) -> Version:
        """Give the whole file its name."""
        version = self.version
        os.replace(self.path, self._target)
        self._tag.unlink(missing_ok=True)
        return version


def _continue(part: _Part, known: Version, progress: Progress) -> bool:
    """Fetch what is missing: True when the part is whole, False where the server still has the known version."""
    have, version = part.kept(), part.version
    headers = known.conditions
    if have:
        # With If-Range a server whose file has changed sends the whole new file instead of its rest (RFC 9110, 13.1.5).
        headers = {"Range": f"bytes={have}-", "If-Range": str(version.for_ranges)}
    with http.opened(part.url, headers=headers, private_hosts=part.private_hosts) as response:
        if response.status == 304 and headers and not have:
            return False
        stated = response.headers.get("Content-Range", "")
        if response.status == 416 and have:
            if stated == f"bytes */{have}":
                return True
            raise part.doubt("the part kept is longer than the file")
        http.check_status(part.url, response.status, response.headers, _BY_HAND)
        now = Version(response.headers.get("ETag"), response.headers.get("Last-Modified"))
        if response.status != 206:
            have = 0
        elif not (stated.startswith(f"bytes {have}-") and version.may_be(now)):
            raise part.doubt("the server sent another piece of the file than it was asked for")
        _receive(response, part, now, have, progress)
    return True


def _receive(response: Any, part: _Part, version: Version, have: int, progress: Progress) -> None:
    """Write an answer's body behind the `have` bytes that are kept."""
    length = response.length_remaining
    # The check is made here: what was written is kept, and bytes too many are seen as well.
    response.length_remaining = None
    whole = re.fullmatch(r"bytes \d+-\d+/(\d+)", response.headers.get("Content-Range", ""))
    total = int(whole[1]) if whole and have else have + (length or 0)
    check_room(part.path.parent, total - have, f"to be downloaded from {shown(part.url)}", part.size - have)
    pieces = _pieces(response, length)
    if not have:
        first = b""
        while len(first) < _SNIFFED_BYTES and (piece := next(pieces, b"")):
            first += piece
        if _WEB_PAGE.match(first):
            raise CorruptInputError(
                f"{shown(part.url)} answers with a web page instead of the file: open it in a browser (a network may "
                f"ask for a login){_BY_HAND}"
            )
        pieces = itertools.chain([first], pieces)
    with part.path.open("r+b" if have else "wb") as file:
        file.truncate(have)
        file.seek(have)
        if not have:
            part.begin(version)
        for piece in pieces:
            file.write(piece)
            have += len(piece)
            progress(have, total, "bytes")
    if have < total:
        raise PassingError(f"the connection ended after {have} of {total} bytes")
    if length is not None and _goes_on(response):
        raise part.doubt(f"the server sent more than the {total} bytes that it announced")


def _pieces(response: Any, left: int | None) -> Iterator[bytes]:
    """A body as it comes: `left` bytes at most, after which the answer stays open, or all where that is not known."""
    while left != 0 and (piece := response.read1(CHUNK_BYTES, decode_content=False)):
        left = None if left is None else left - len(piece)
        yield piece


def _goes_on(response: Any) -> bool:
    """Whether an answer whose connection ends with it has more bytes than it stated."""
    source = response._fp.fp
    if source is not None and response._fp.will_close:
        with contextlib.suppress(OSError):
            return bool(source.read1(1))
    return False
