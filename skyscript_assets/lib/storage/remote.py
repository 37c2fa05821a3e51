"""An object store (`s3://`, `gs://`, `az://`): a few plain requests, tried again where they fail for now.

None of them is conditional, so that stores that do not know conditions, or ignore them, do as well.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from skyscript_assets.lib.errors import StorageError, UnreachableError

if TYPE_CHECKING:
    from obstore import ObjectMeta

Result = TypeVar("Result")

TRIES = 6
"""How often something is asked for; within a try, obstore asks again where a server refuses, not where bytes stop."""

_REQUESTS: dict[str, Any] = {
    "retry_config": {"max_retries": 10, "retry_timeout": timedelta(minutes=5)},
    # A whole file may take long, a pause within it may not. Plain HTTP is for who names such an endpoint.
    "client_options": {"timeout": timedelta(days=1), "read_timeout": timedelta(minutes=2), "allow_http": True},
}


class ObjectStore:
    """The objects below an address.

    Raises:
        StorageError: it is no address, or the package is not installed; of every method: the credentials are refused,
            or an object does not exist.
        UnreachableError: of every method: no answer after every try.
    """

    def __init__(self, address: str) -> None:
        try:
            import obstore.exceptions
            from obstore.store import from_url
        except ImportError as error:
            raise StorageError(f"{address}: {error} (pip install 'skyscript-assets[s3]')") from error
        self._obstore, self._address = obstore, address.rstrip("/")
        try:
            self._objects = from_url(address, **_REQUESTS)
        except (obstore.exceptions.BaseError, ValueError) as error:
            reason = f"is no address of an object store ({_first_line(error)})"
            remedy = "give one such as s3://bucket/folder (the data's is SKYSCRIPT_DATA)"
            raise StorageError(f"{address} {reason}; {remedy}") from error

    def below(self, folder: str) -> list[ObjectMeta]:
        """Path, size and time of change of every object below a folder."""
        pages = self._ask(folder, lambda: list(self._obstore.list(self._objects, folder)))
        return [item for page in pages for item in page]

    def read(self, path: str) -> bytes:
        """The bytes of a small object."""
        return self._ask(path, lambda: bytes(self._obstore.get(self._objects, path).bytes()))

    def read_range(self, path: str, start: int, length: int) -> bytes:
        """Some bytes of an object, fewer where it ends."""
        return self._ask(path, lambda: bytes(self._obstore.get_range(self._objects, path, start=start, length=length)))

    def put(self, path: str, content: bytes | Path) -> None:
        """Write an object, whole or not at all."""
        self._ask(path, lambda: self._obstore.put(self._objects, path, content))

    def fetch(self, path: str, target: Path) -> str:
        """Copy an object into a file; its SHA-256."""

        def copy() -> str:
            digest = hashlib.sha256()
            with target.open("wb") as file:
                for chunk in self._obstore.get(self._objects, path):
                    digest.update(chunk)
                    file.write(chunk)
            return digest.hexdigest()

        return self._ask(path, copy)

    def delete(self, paths: Sequence[str]) -> None:
        """Remove objects."""
        self._ask(paths[0], lambda: self._obstore.delete(self._objects, paths))

    def _ask(self, path: str, request: Callable[[], Result]) -> Result:
        place = f"{self._address}/{path}"
        for tried in range(1, TRIES + 1):
            try:
                return request()
            except (FileNotFoundError, self._obstore.exceptions.BaseError) as error:
                reason = _first_line(error)
                if isinstance(error, FileNotFoundError) or re.search(r"status code: 4\d\d", reason):
                    raise StorageError(f"{place} does not exist or may not be used ({reason})") from error
                if tried == TRIES:
                    raise UnreachableError(f"{place} cannot be reached ({reason}); run again later") from error
                time.sleep(0.1 * 2**tried)
        raise AssertionError("the last try returns or raises")


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0][:300]
