"""The connection to Earth Engine: package, credentials, project, and requests that are tried again where that may help.

Google's client keeps one connection a process (`ee.Initialize`); a source with other credentials replaces it.
"""

import importlib.util
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from skyscript_assets.lib.errors import (
    CorruptInputError,
    MissingInputError,
    RefusedError,
    SettingsError,
    SkyScriptError,
)
from skyscript_assets.lib.hosts import private_hosts
from skyscript_assets.lib.http import CREDENTIAL_STATUSES, PASSING_STATUSES, PassingError, ask, fails_for_now, persist
from skyscript_assets.lib.imagery.sources.earthengine.settings import EarthEngineSource
from skyscript_assets.lib.secrets import told

OVERLOADED = (
    "too many concurrent aggregations",
    "too many requests",
    "quota exceeded",
    "rate limit exceeded",
    "resource exhausted",
)
"""What Earth Engine says where the project asks too much (https://developers.google.com/earth-engine/guides/usage)."""

MAX_ANSWER_BYTES = 64 << 20
"""Largest answer that is read; pixels are at most 48 MB (see `reader.MAX_REQUEST_BYTES`)."""

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

    Raises:
        MissingInputError: the package, the credentials or the project are missing, or refused.
        SettingsError: the environment variable with the credentials' path is not set.
        UnreachableError: Earth Engine gives no answer.
    """

    def __init__(self, source: EarthEngineSource, key: str) -> None:
        self._source, self._key, self._where = source, key, f"source {key}: Earth Engine"
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

    def call(self, make: Callable[[], T]) -> T:
        """Make a request through Google's client, again and later each time while it may still succeed.

        Raises:
            MissingInputError: the credentials or the project are refused.
            RefusedError: what is asked for does not exist, or is no proper request.
            CorruptInputError: the computation takes too much.
            UnreachableError: no answer came of `tries` tries, or the quota is used up.
        """

        def attempt() -> T:
            try:
                return make()
            except (SkyScriptError, PassingError):
                raise
            except Exception as error:  # noqa: BLE001 - the client passes on what google-auth and others raise
                raise self._meaning(error) from None

        return persist(self._where, attempt, tries=self._source.tries)

    def _meaning(self, error: Exception) -> Exception:
        """What a failure of Google's client is in the project's terms."""
        import google.auth.exceptions

        # The client hides the answer in the error's context; google-auth adds all of it to its message: left out.
        answers = (getattr(link, "resp", None) for link in (error, error.__context__, error.__cause__))
        answer = next(filter(None, answers), None)
        status = 0 if answer is None else int(answer.status)
        said = told(str(error.args[0] if error.args else error), 200) or type(error).__name__
        if any(text in said.lower() for text in TOO_LONG):
            return PassingError(
                f"one request takes too long ({said})", lasting=CorruptInputError, remedy="plan smaller chips"
            )
        if any(text in said.lower() for text in OVERLOADED):
            status = 429
        if status in PASSING_STATUSES:
            return fails_for_now(status, answer or {}, said)
        if isinstance(error, google.auth.exceptions.TransportError):
            return PassingError(said)
        if status in CREDENTIAL_STATUSES or isinstance(error, google.auth.exceptions.GoogleAuthError):
            return MissingInputError(f"{self._where} refuses the credentials or the project ({said}); {self._login()}")
        if status or type(error).__name__ == "EEException":
            return RefusedError(f"{self._where} refuses ({said}); check collection and bands in sources.yaml", status)
        return error

    def _initialize(self, credentials: Any, project: str) -> None:
        import ee

        # Retries are made here, where they are bounded and a used-up quota is told from a broken request.
        ee.data.setMaxRetries(0)
        ee.data.setUserAgent("skyscript-assets")
        transport = _Transport(self._source)
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
        except (OSError, ValueError) as error:
            # The message of google-auth may quote the file.
            unread = f"cannot be read ({error.strerror})" if isinstance(error, OSError) else ""
            why = unread or "is no key file of a service account"
            raise MissingInputError(f"source {self._key}: {variable} names {path}, which {why}") from None

    def _project(self, credentials: Any) -> str:
        own = (getattr(credentials, name, None) for name in ("project_id", "quota_project_id"))
        project = next(filter(None, (self._source.project, *own)), None)
        if project is None:
            raise MissingInputError(
                f"source {self._key}: state sources.yaml: {self._key}.project, a Google Cloud project"
            )
        return str(project)

    def _login(self) -> str:
        variable = self._source.credentials_variable
        if variable is not None:
            return f"check the key file that {variable} names, and sources.yaml: {self._key}.project"
        return (
            "run `earthengine authenticate` or `gcloud auth application-default login`, or name a service account's "
            f"key file in an environment variable (sources.yaml: {self._key}.credentials_variable), and state "
            f"{self._key}.project"
        )


class _Transport:
    """What Google's client sends its requests with: the interface of httplib2 over the project's own requests."""

    def __init__(self, source: EarthEngineSource) -> None:
        hosts = private_hosts(source.allow_private_hosts, source.url)
        self._how = {"stall_s": source.timeout_s, "private_hosts": hosts}

    def request(
        self, uri: str, method: str = "GET", body: Any = None, headers: dict[str, str] | None = None, **_: Any
    ) -> tuple[Any, bytes]:
        """Make a request, once."""
        import httplib2

        how: dict[str, Any] = {"method": method, "body": body, "headers": headers, **self._how}
        answer = ask(uri, limit=MAX_ANSWER_BYTES, **how)
        return httplib2.Response({**answer.headers, "status": str(answer.status)}), answer.body

    def close(self) -> None:
        """Nothing to do: connections are shared by the process."""
