"""HTTP for Google's client: the interface of httplib2 over the project's own requests."""

from __future__ import annotations

from typing import Any

import httplib2

from skyscript_assets.lib import http

MAX_ANSWER_BYTES = 64 << 20
"""Largest answer that is read; pixels are at most 48 MB (see `reader.MAX_REQUEST_BYTES`)."""


class Transport:
    """What `ee.Initialize` sends its requests with; threads may share it.

    Args:
        timeout_s: Seconds without a byte after which a request has failed.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s

    def request(
        self, uri: str, method: str = "GET", body: Any = None, headers: dict[str, str] | None = None, **_: Any
    ) -> tuple[httplib2.Response, bytes]:
        """Make a request, once.

        Raises:
            PassingError: there is no connection, or it ended too early.
            CorruptInputError: the answer is too long.
        """
        answer = http.ask(
            uri, limit=MAX_ANSWER_BYTES, method=method, body=body, headers=headers, stall_s=self._timeout_s
        )
        return httplib2.Response({**answer.headers, "status": str(answer.status)}), answer.body

    def close(self) -> None:
        """Nothing to do: connections are shared by the process."""
