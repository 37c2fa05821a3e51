"""An object store (`s3://`, `gs://`, `az://`): a few plain requests, tried again where they fail for now.

None of them is conditional, so that stores that do not know conditions, or ignore them, do as well.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skyscript_assets.lib.errors import StorageError, UnreachableError

if TYPE_CHECKING:
    from obstore import ObjectMeta

TRIES = 6
"""How often a file is fetched whose bytes stop coming; single requests are tried again by obstore."""

_REQUESTS: dict[str, Any] = {
    "retry_config": {"max_retries": 10, "retry_timeout": timedelta(minutes=5)},
    # A whole file may take long, a pause within it may not.
    "client_options": {"timeout": timedelta(days=1), "read_timeout": timedelta(minutes=2)},
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
            import obstore
            from obstore.exceptions import BaseError
            from obstore.store import from_url
        except ImportError as error:
            raise StorageError(f"{address}: {error} (pip install 'skyscript-assets[s3]')") from error
        self._obstore, self._address = obstore, address.rstrip("/")
        try:
            self._objects = from_url(address, **_REQUESTS)
        except (BaseError, ValueError) as error:
            reason = f"is no address of a data folder ({_first_line(error)})"
            raise StorageError(f"{address} {reason}; set SKYSCRIPT_DATA") from error

    def below(self, folder: str) -> Iterator[ObjectMeta]:
        """Path, size and time of change of every object below a folder."""
        with self._asking(folder):
            for page in self._obstore.list(self._objects, folder):
                yield from page

    def read(self, path: str) -> bytes:
        """The bytes of a small object."""
        with self._asking(path):
            return bytes(self._obstore.get(self._objects, path).bytes())

    def put(self, path: str, content: bytes | Path) -> None:
        """Write an object, whole or not at all."""
        with self._asking(path):
            self._obstore.put(self._objects, path, content)

    def fetch(self, path: str, target: Path) -> str:
        """Copy an object into a file; its SHA-256."""
        for tried in range(1, TRIES + 1):
            digest = hashlib.sha256()
            try:
                with self._asking(path), target.open("wb") as file:
                    for chunk in self._obstore.get(self._objects, path):
                        digest.update(chunk)
                        file.write(chunk)
                break
            except UnreachableError:
                if tried == TRIES:
                    raise
                time.sleep(0.1 * 2**tried)
        return digest.hexdigest()

    def delete(self, paths: Sequence[str]) -> None:
        """Remove objects."""
        with self._asking(paths[0]):
            self._obstore.delete(self._objects, paths)

    @contextlib.contextmanager
    def _asking(self, path: str) -> Iterator[None]:
        from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

        place = f"{self._address}/{path}"
        try:
            yield
        except FileNotFoundError as error:
            raise StorageError(f"{place} does not exist ({_first_line(error)})") from error
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise StorageError(f"{place} may not be used ({_first_line(error)}); look at the credentials") from error
        except BaseError as error:
            raise UnreachableError(f"{place} cannot be reached ({_first_line(error)}); run again later") from error


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0][:300]
