"""HTTP for Google's client: the interface of httplib2 over requests, with a timeout and bounded answers."""

from __future__ import annotations

from typing import Any

import httplib2
import requests

MAX_ANSWER_BYTES = 64 << 20
"""Largest answer that is read; pixels are at most 48 MB (see `reader.MAX_REQUEST_BYTES`)."""


class Transport:
    """What `ee.Initialize` sends its requests with; threads may share it.

    Args:
        timeout_s: Seconds without a byte after which a request has failed.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s, self._session = timeout_s, requests.Session()

    def request(
        self,
        uri: str,
        method: str = "GET",
        body: Any = None,
        headers: dict[str, str] | None = None,
        redirections: int | None = None,  # noqa: ARG002 - part of the interface
        connection_type: Any = None,  # noqa: ARG002
    ) -> tuple[httplib2.Response, bytes]:
        """Make a request.

        Raises:
            ConnectionError: there is no connection, or it ended too early.
            TimeoutError: no byte came in time.
        """
        try:
            with self._session.request(
                method, uri, data=body, headers=headers, timeout=self._timeout_s, stream=True
            ) as response:
                content = bytearray()
                for chunk in response.iter_content(1 << 16):
                    content += chunk
                    if len(content) > MAX_ANSWER_BYTES:
                        raise ConnectionError(f"the answer has more than {MAX_ANSWER_BYTES} bytes")
        # The address may hold a token: only the kind of failure is passed on.
        except requests.exceptions.Timeout:
            raise TimeoutError(f"no answer within {self._timeout_s:g} s") from None
        except requests.exceptions.RequestException as error:
            raise ConnectionError(f"no connection, or a cut one ({type(error).__name__})") from None
        return httplib2.Response({**response.headers, "status": str(response.status_code)}), bytes(content)

    def close(self) -> None:
        """Close the connections."""
        self._session.close()
