"""The connection to Earth Engine: package, credentials, project, and requests that are tried again where that may help.

Google's client keeps one connection a process (`ee.Initialize`); a source with other credentials replaces it.
"""

from __future__ import annotations

import importlib.util
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from skyscript_assets.lib.errors import (
    CorruptInputError,
    MissingInputError,
    RefusedError,
    SettingsError,
    UnreachableError,
)
from skyscript_assets.lib.imagery.sources.earthengine.settings import EarthEngineSource

FIRST_PAUSE_S = 1.0
"""Seconds before the second try; doubled with each further one."""

LONGEST_PAUSE_S = 60.0
"""Longest pause between two tries."""

OVERLOADED = (
    "too many concurrent aggregations",
    "too many requests",
    "quota exceeded",
    "rate limit exceeded",
    "resource exhausted",
)
"""What Earth Engine says where the project asks too much (https://developers.google.com/earth-engine/guides/usage)."""

TOO_LONG = ("computation timed out", "memory limit exceeded", "capacity exceeded")
"""What it says where one computation takes too much."""

T = TypeVar("T")

_lock = threading.Lock()
_connected: list[tuple[str, str, str]] = []
"""Address, project and credentials file of the process's connection."""


def installed() -> bool:
    """Whether Google's client is installed."""
    return importlib.util.find_spec("ee") is not None


def has_credentials() -> bool:
    """Whether Google's tools have left credentials where its client finds them; nothing is asked."""
    home = Path(os.environ.get("CLOUDSDK_CONFIG") or Path.home() / ".config/gcloud")
    places = [
        Path(os.environ.get("GOOGLE_APPLICATION_CREDENTIALS") or home / "application_default_credentials.json"),
        Path.home() / ".config/earthengine/credentials",
    ]
    return any(path.is_file() for path in places)


class EarthEngine:
    """Earth Engine as one source asks it; threads may share it.

    Args:
        source: Project, credentials, address, tries.
        key: The source's key, for messages.

    Raises:
        MissingInputError: the package, the credentials or the project are missing, or refused.
        SettingsError: the environment variable with the credentials' path is not set.
        UnreachableError: Earth Engine gives no answer.
    """

    def __init__(self, source: EarthEngineSource, key: str) -> None:
        self._source, self._key = source, key
        if not installed():
            raise MissingInputError(
                f"source {key} needs Google's Earth Engine client: pip install 'skyscript-assets[earthengine]'"
            )
        credentials, path = self._credentials()
        project = self._project(credentials)
        with _lock:
            name = (source.url or "", project, path)
            if _connected != [name]:
                self.call(lambda: self._initialize(credentials, project))
                _connected[:] = [name]

    def call(self, ask: Callable[[], T]) -> T:
        """Make a request through Google's client, again and later each time while it may still succeed.

        Args:
            ask: Makes the request.

        Raises:
            MissingInputError: the credentials or the project are refused.
            RefusedError: what is asked for does not exist, or is no proper request.
            CorruptInputError: the computation takes too much.
            UnreachableError: no answer came of `tries` tries, or the quota is used up.
        """
        for attempt in range(self._source.tries):
            if attempt:
                time.sleep(min(FIRST_PAUSE_S * 2 ** (attempt - 1), LONGEST_PAUSE_S))
            try:
                return ask()
            except Exception as error:  # noqa: BLE001 - the client passes on what google-auth, requests and others raise
                status, said = _status(error), _said(error)
                passing = self._judge(error, status, said)
        raise passing

    def _judge(self, error: Exception, status: int, said: str) -> Exception:
        """What to raise in the end for a failure that may pass; one that may not is raised at once."""
        import google.auth.exceptions

        where = f"source {self._key}: Earth Engine"
        lower = said.lower()
        if any(text in lower for text in TOO_LONG):
            return CorruptInputError(
                f"{where} takes too long over one request ({said}), tried {self._source.tries} times"
            )
        if status == 429 or any(text in lower for text in OVERLOADED):
            return UnreachableError(f"{where} wants fewer requests ({said}): run again later, finished parts are kept")
        if status >= 500 or isinstance(error, ConnectionError | TimeoutError | google.auth.exceptions.TransportError):
            return UnreachableError(
                f"{where} gave no answer in {self._source.tries} tries ({said}); check the network, or run again later"
            )
        if status in (401, 403) or isinstance(error, google.auth.exceptions.GoogleAuthError):
            raise MissingInputError(
                f"{where} refuses the credentials or the project ({said}); {self._login()}"
            ) from None
        if status or type(error).__name__ == "EEException":
            raise RefusedError(
                f"{where} refuses ({said}); check collection and bands in sources.yaml", status
            ) from None
        raise error

    def _initialize(self, credentials: Any, project: str) -> None:
        import ee

        from skyscript_assets.lib.imagery.sources.earthengine.transport import Transport

        # Retries are made here, where they are bounded and a used-up quota is told from a broken request.
        ee.data.setMaxRetries(0)
        ee.data.setUserAgent("skyscript-assets")
        transport = Transport(self._source.timeout_s)
        ee.Initialize(credentials, url=self._source.url, project=project, http_transport=transport)

    def _credentials(self) -> tuple[Any, str]:
        """The credentials, and the file that they are from where the settings name one."""
        import ee
        from google.oauth2 import service_account

        variable = self._source.credentials_variable
        if variable is None:
            try:
                return ee.data.get_persistent_credentials(), ""
            except ee.EEException:
                raise MissingInputError(f"source {self._key}: no Earth Engine credentials; {self._login()}") from None
        path = os.environ.get(variable, "").strip()
        if not path:
            raise SettingsError(
                f"source {self._key}: set the environment variable {variable} to the path of a service account's key "
                "file"
            )
        try:
            return service_account.Credentials.from_service_account_file(path, scopes=ee.oauth.SCOPES), path
        except OSError as error:
            raise MissingInputError(
                f"source {self._key}: {variable} names {path}, which cannot be read ({error.strerror})"
            ) from None
        except ValueError:
            # The message of google-auth may quote the file.
            raise MissingInputError(
                f"source {self._key}: {variable} names {path}, which is no key file of a service account"
            ) from None

    def _project(self, credentials: Any) -> str:
        project = self._source.project
        for name in ("project_id", "quota_project_id"):
            project = project or getattr(credentials, name, None)
        if not project:
            raise MissingInputError(
                f"source {self._key}: state sources.yaml: {self._key}.project, a Google Cloud project"
            )
        return str(project)

    def _login(self) -> str:
        if self._source.credentials_variable is not None:
            variable = self._source.credentials_variable
            return f"check the key file that {variable} names, and sources.yaml: {self._key}.project"
        return (
            "run `earthengine authenticate` or `gcloud auth application-default login`, or name a service account's "
            f"key file in an environment variable (sources.yaml: {self._key}.credentials_variable), and state "
            f"{self._key}.project"
        )


def _status(error: BaseException) -> int:
    """The HTTP status of a failure, 0 where there was no answer: the client hides it in the error's context."""
    for candidate in (error, error.__context__, error.__cause__):
        status = getattr(getattr(candidate, "resp", None), "status", None)
        if status is not None:
            return int(status)
    return 0


def _said(error: BaseException) -> str:
    """What a failure says, short and printable; google-auth adds the whole answer, which is left out."""
    text = "".join(char if char.isprintable() else " " for char in str(error.args[0] if error.args else error))
    return " ".join(text.split())[:200] or type(error).__name__
