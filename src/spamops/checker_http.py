"""Calls to the checker that end: bounded in time as a whole and in size, whatever the other side sends."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from typing import Any

import httpx

from .text import one_line

CONNECT_SECONDS = 5.0
SMALL_BYTES = 1024 * 1024
"""For every answer but a report."""
REPORT_BYTES = 64 * 1024 * 1024
"""For a report: some 250,000 verdicts."""


class CallFailed(Exception):
    """No answer, or one that cannot be taken. The message is for the operator, and never holds the request, which carries
    the key."""


@dataclass(frozen=True)
class Answer:
    """A whole answer."""

    status: int
    content: bytes

    @property
    def ok(self) -> bool:
        """Whether it is any 2xx."""
        return 200 <= self.status < 300

    def json_object(self) -> dict[str, Any] | None:
        """The body as a JSON object, or None for anything else."""
        try:
            body = json.loads(self.content)
        except (ValueError, RecursionError):  # not JSON, not UTF-8, a number of thousands of digits, nested too deep
            return None
        return body if isinstance(body, dict) else None

    def excerpt(self) -> str:
        """Status and the beginning of the body, on one line."""
        return f"{self.status} {one_line(self.content[:2000].decode('utf-8', 'replace'), 200) or '(empty)'}"


class CheckerHttp:
    """A client with the key in its header. Follows no redirects, which would carry the key elsewhere, and uses no proxy."""

    def __init__(self, base_url: str, api_key: str) -> None:
        self.base = base_url.rstrip("/")
        self._client = httpx.Client(
            headers={"X-API-Key": api_key, "Accept": "application/json"}, follow_redirects=False, trust_env=False
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def call(
        self,
        method: str,
        path: str,
        *,
        seconds: float,
        params: dict[str, str] | None = None,
        most_bytes: int = SMALL_BYTES,
    ) -> Answer:
        """One call that takes `seconds` at most, from connecting to the last byte.

        httpx bounds each read, not the whole: one that sends a byte now and then would be waited for without end. So the
        call is made in a thread of its own, which is left behind when the time is up.

        Raises CallFailed.
        """
        box: list[Answer | BaseException] = []
        done = threading.Event()

        def work() -> None:
            try:
                box.append(self._read(method, path, seconds, params, most_bytes))
            except BaseException as error:  # noqa: BLE001 - handed to the caller
                box.append(error)
            done.set()

        threading.Thread(target=work, daemon=True, name=f"call{path}").start()
        if not done.wait(seconds + 0.1) or not box:
            raise CallFailed("no answer in time")
        result = box[0]
        if isinstance(result, Answer):
            return result
        raise _named(result) from None

    def _read(self, method: str, path: str, seconds: float, params: dict[str, str] | None, most_bytes: int) -> Answer:
        content = bytearray()
        timeout = httpx.Timeout(seconds, connect=min(CONNECT_SECONDS, seconds))
        with self._client.stream(method, f"{self.base}{path}", params=params, timeout=timeout) as response:
            for chunk in response.iter_bytes():
                content += chunk
                if len(content) > most_bytes:
                    raise CallFailed(f"an answer of more than {most_bytes // 1024} KiB")
        return Answer(response.status_code, bytes(content))


def _named(error: BaseException) -> CallFailed:
    if isinstance(error, CallFailed):
        return error
    if isinstance(error, httpx.ConnectError):
        return CallFailed("no connection (refused, or the address is not reached)")
    if isinstance(error, httpx.TimeoutException):
        return CallFailed("no answer in time")
    if isinstance(error, httpx.HTTPError | httpx.InvalidURL | UnicodeError | RuntimeError):
        return CallFailed(f"the connection broke ({type(error).__name__})")
    raise error
