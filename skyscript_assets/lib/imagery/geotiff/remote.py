"""Images on web servers: what is read of a remote GeoTIFF is fetched into a sparse copy on this machine, then decoded.

The blocks under many windows are known before the first is decoded, so that they are fetched together: ranges beside
each other in one request, several requests at a time. GDAL reads the copy as it reads any file, and only after all that
it will touch is there. Its own HTTP file system fetches block by block, waits for each, and hides from callers why a
server refuses; credentials that expire between two blocks need that answer.
"""

import bisect
import contextlib
import functools
import hashlib
import os
import re
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from skyscript_assets.lib import http
from skyscript_assets.lib.errors import DISK_FULL, CorruptInputError, NoSpaceError, SceneError, SkyScriptError
from skyscript_assets.lib.imagery.geotiff.directories import read_directories
from skyscript_assets.lib.imagery.geotiff.raster import open_dataset
from skyscript_assets.lib.imagery.reader import Window
from skyscript_assets.lib.secrets import shown

HEAD_BYTES = 32 << 10
"""Bytes of a file's beginning fetched first: the directories of most COGs, and what a fingerprint covers."""

MAX_WHOLE_BYTES = 64 << 20
"""Largest file that is taken whole from a server that knows no ranges."""

MERGE_BYTES = 64 << 10
"""Ranges nearer to each other than this are fetched in one request: about what a round trip of 50 ms could carry."""

MAX_REQUEST_BYTES = 2 << 20
"""Longest range of one request; more is asked for at the same time on several connections."""

MAX_COPY_BYTES = 1 << 30
"""Most bytes of one file that are kept; then its copy is begun anew."""


class SparseCopy:
    """A remote TIFF file of which only what is needed is on this machine; may be shared by threads.

    Attributes:
        name: What messages call it: its address without query.
        size: Its bytes.
        fingerprint: SHA-256 of its size and first bytes, which in a COG state where each block is and how long.
    """

    def __init__(self, url: str, signer: http.Signer | None, private_hosts: frozenset[str] = frozenset()) -> None:
        """Fetch the beginning of a file and its directories; `private_hosts` as `lib.http.opened` has them.

        Raises:
            RefusedError: the server refuses it.
            CorruptInputError: it is no whole TIFF file.
            UnreachableError: the server failed on every try.
            NoSpaceError: the disk is full.
        """
        self.name = shown(url)
        self._url, self._signer, self._hosts = url, signer, private_hosts
        self._lock = threading.RLock()
        self._kept = Spans()
        self._etag: str | None = None
        self.size = 0  # until the first answer
        self._file = self._new_file()
        head = self._asked(0, HEAD_BYTES, MAX_WHOLE_BYTES).body
        self._keep(0, head)
        self.fingerprint = hashlib.sha256(self.size.to_bytes(8, "big") + head[:HEAD_BYTES]).hexdigest()
        self.directories = read_directories(self._read, self.name)
        end = max(directory.end for directory in self.directories)
        if end > self.size:
            raise CorruptInputError(f"{self.name} ends early: it has {self.size} bytes, its blocks need {end}")
        self._header = list(self._kept)

    @property
    def block_shape(self) -> tuple[int, int]:
        """(rows, columns) of its blocks at full resolution."""
        return self.directories[0].block_height, self.directories[0].block_width

    @contextlib.contextmanager
    def open(self, windows: Iterable[Window] = (), overview: int | None = None) -> Iterator[Any]:
        """Fetch what is missing of some windows, or of an overview, with its mask, and open it as a rasterio dataset.

        Only these may be read through the dataset: elsewhere the copy may have holes, which GDAL reads as zeros.

        Raises:
            RefusedError: the server refuses now.
            CorruptInputError: it sends something else, or GDAL finds no raster in it.
            SceneError: the file has changed, or its blocks are too large.
            UnreachableError: the server failed on every try.
            NoSpaceError: the disk is full.
        """
        size = self.directories[0].size
        if overview is not None:
            with self._opened([], overview) as dataset:
                size = (dataset.width, dataset.height)
            windows = [Window(0, 0, *size)]
        like = [directory for directory in self.directories if directory.size == size]
        spans = [span for window in windows for directory in like for span in directory.ranges(window)]
        with self._opened(spans, overview) as dataset:
            yield dataset

    @contextlib.contextmanager
    def _opened(self, spans: Sequence[tuple[int, int]], overview: int | None = None) -> Iterator[Any]:
        # GDAL buffers what it reads, holes too: a dataset is opened after all that is read through it was fetched, and
        # before another thread may begin the copy anew.
        with contextlib.ExitStack() as stack:
            with self._lock:
                self._ensure(spans)
                dataset = stack.enter_context(
                    open_dataset(self._file.name, self.name, siblings=False, overview=overview)
                )
            yield dataset

    def _new_file(self) -> Any:
        try:
            return tempfile.NamedTemporaryFile(prefix="skyscript-remote-", suffix=".tif")
        except OSError as error:
            raise _no_space(error) from error

    def _asked(self, begin: int, end: int, limit: int) -> http.Answer:
        headers = {"Range": f"bytes={begin}-{end - 1}"}
        answer = http.request(self._url, limit=limit, signer=self._signer, headers=headers, private_hosts=self._hosts)
        self._check(answer, begin, end)
        return answer

    def _check(self, answer: http.Answer, begin: int, end: int) -> None:
        """Whether an answer is the range that was asked for, of the file that was opened (RFC 9110, 14.4)."""
        stated = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", answer.headers.get("content-range", ""))
        etag = answer.headers.get("etag")
        if answer.headers.get("content-encoding", "identity") != "identity":
            raise CorruptInputError(f"{self.name}: its server sends it compressed, where ranges mean nothing")
        if answer.status != 206 or stated is None:
            if not self.size:
                self.size, self._etag = len(answer.body), etag
                return
            raise CorruptInputError(f"{self.name}: its server sent the file where a range of it was asked for")
        first, last, size = (int(number) for number in stated.groups())
        if not self.size:
            self.size, self._etag = size, etag
        if size != self.size or (etag and self._etag and etag != self._etag and not etag.startswith("W/")):
            raise SceneError(f"{self.name} has changed while it was read: materialize scene_index and chip_plan again")
        if first != begin or last + 1 != min(end, size) or len(answer.body) != last + 1 - first:
            raise CorruptInputError(f"{self.name}: its server sent another range than bytes {begin} to {end - 1}")

    def _read(self, offset: int, length: int) -> bytes:
        """Bytes of the file, fetched where they are missing, with some that follow."""
        if offset + length > self.size:
            raise CorruptInputError(f"{self.name} ends early: it has {self.size} bytes, {offset + length} are needed")
        if self._kept.gaps(offset, offset + length):
            self._ensure([(offset, min(self.size, max(offset + length, offset + HEAD_BYTES)))])
        return os.pread(self._file.fileno(), length, offset)

    def _ensure(self, spans: Sequence[tuple[int, int]]) -> None:
        with self._lock:
            missing = [gap for span in spans for gap in self._kept.gaps(*span)]
            if missing and self._kept.total > MAX_COPY_BYTES:
                self._begin_anew()
                missing = [gap for span in spans for gap in self._kept.gaps(*span)]
            failure: Exception | None = None
            for future in [_requests().submit(self._fetch, *span) for span in merged(missing)]:
                try:
                    self._keep(*future.result())
                except SkyScriptError as error:
                    failure = failure or error
            if failure is not None:
                raise failure

    def _fetch(self, begin: int, end: int) -> tuple[int, bytes]:
        return begin, self._asked(begin, end, end - begin).body

    def _begin_anew(self) -> None:
        """Drop the blocks that were fetched; who has the old copy open goes on reading that."""
        old = self._file
        self._file = self._new_file()
        self._kept = Spans()
        for begin, end in self._header:
            self._keep(begin, os.pread(old.fileno(), end - begin, begin))
        old.close()

    def _keep(self, begin: int, data: bytes) -> None:
        try:
            written = 0
            while written < len(data):  # of a disk that is nearly full only the next call tells
                written += os.pwrite(self._file.fileno(), memoryview(data)[written:], begin + written)
            if os.fstat(self._file.fileno()).st_size < self.size:
                os.truncate(self._file.fileno(), self.size)
        except OSError as error:
            raise _no_space(error) from error
        self._kept.add(begin, begin + len(data))


class Spans:
    """Spans (begin, end) of a file, disjoint and in order."""

    def __init__(self) -> None:
        self._begins: list[int] = []
        self._ends: list[int] = []
        self.total = 0

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(zip(self._begins, self._ends, strict=True))

    def add(self, begin: int, end: int) -> None:
        """Add a span; those that it touches become one with it."""
        first, last = bisect.bisect_left(self._ends, begin), bisect.bisect_right(self._begins, end)
        if first < last:
            begin, end = min(begin, self._begins[first]), max(end, self._ends[last - 1])
            self.total -= sum(self._ends[first:last]) - sum(self._begins[first:last])
        self._begins[first:last], self._ends[first:last] = [begin], [end]
        self.total += end - begin

    def gaps(self, begin: int, end: int) -> list[tuple[int, int]]:
        """What of a span is not in these."""
        found = []
        for at in range(bisect.bisect_right(self._ends, begin), bisect.bisect_left(self._begins, end)):
            if self._begins[at] > begin:
                found.append((begin, self._begins[at]))
            begin = self._ends[at]
        return [*found, (begin, end)] if begin < end else found


def merged(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans in the order of the file, near ones joined, long ones divided."""
    joined: list[list[int]] = []
    for begin, end in sorted(spans):
        if joined and begin - joined[-1][1] <= MERGE_BYTES:
            joined[-1][1] = max(joined[-1][1], end)
        else:
            joined.append([begin, end])
    return [
        (start, min(start + MAX_REQUEST_BYTES, end))
        for begin, end in joined
        for start in range(begin, end, MAX_REQUEST_BYTES)
    ]


class GdalFile:
    """A GeoTIFF that GDAL opens by itself: a local file, or one of its virtual file systems that the settings name."""

    def __init__(self, place: str, env: Mapping[str, str]) -> None:
        """Open it once.

        Raises:
            CorruptInputError: it is no whole GeoTIFF, or cannot be reached.
            SceneError: its blocks are too large.
        """
        self.name = place
        self._env = {**GDAL_HTTP, **env}
        with self.open() as dataset:
            self.block_shape: tuple[int, int] = dataset.block_shapes[0]
            first_block = dataset.get_tag_item("BLOCK_OFFSET_0_0", "TIFF", 1)
            facts = (sorted(dataset.profile.items(), key=str), dataset.tags(), first_block)
        self.fingerprint = hashlib.sha256(repr(facts).encode()).hexdigest()

    def open(
        self,
        windows: Iterable[Window] = (),  # noqa: ARG002 - GDAL fetches what it reads
        overview: int | None = None,
    ) -> contextlib.AbstractContextManager[Any]:
        """Open it, or an overview of it, as a rasterio dataset."""
        return open_dataset(self.name, self.name, siblings=False, env=self._env, overview=overview)


ImageFile = SparseCopy | GdalFile
"""A GeoTIFF elsewhere."""

GDAL_HTTP: dict[str, str] = {
    "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": ".tif,.tiff",
    "GDAL_HTTP_MULTIRANGE": "YES",
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "GDAL_HTTP_MAX_RETRY": str(http.TRIES - 1),
    "GDAL_HTTP_RETRY_DELAY": str(http.FIRST_PAUSE_S),
    "GDAL_HTTP_CONNECTTIMEOUT": str(http.CONNECT_TIMEOUT_S),
    "GDAL_HTTP_LOW_SPEED_TIME": str(http.STALL_S),
    "GDAL_HTTP_LOW_SPEED_LIMIT": str(http.SLOWEST_BYTES_PER_S),
    "VSI_CACHE": "YES",
    "GDAL_INGESTED_BYTES_AT_OPEN": str(HEAD_BYTES),
}
"""GDAL's options (https://gdal.org/user/configoptions.html) where it reads over the network itself."""


@functools.cache
def _requests() -> ThreadPoolExecutor:
    """Threads that wait for servers."""
    return ThreadPoolExecutor(http.CONNECTIONS, thread_name_prefix="fetch")


def _no_space(error: OSError) -> Exception:
    if error.errno in DISK_FULL:
        return NoSpaceError(f"{tempfile.gettempdir()}: the disk is full; free some or name another folder as TMPDIR")
    return error
