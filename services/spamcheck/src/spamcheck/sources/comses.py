"""The CoMSES website as a source: its two endpoints, and its faults in words that say what to fix."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import ssl
from typing import Any

import httpx

from ..items import Item, Verdict
from . import comses_faults as faults
from .base import SiteFaulty, SiteRefused
from .comses_records import BatchReader

BATCH_PATH = "/api/spam/get-latest-batch/"
UPDATE_PATH = "/api/spam/update/"
# Without the slash at the end the site answers 301, which clients follow as a GET: the verdict would be lost.

MAX_ANSWER_BYTES = 64 * 1024 * 1024
"""100 records of content without a length limit; more than this is no batch but a fault."""


class ComsesSource:
    """Reads what a CoMSES site has scheduled and hands verdicts over. Tries once: the workflow does the repeating.

    `base_url` is the site's address, with or without a slash at the end; `timeout_seconds` limits each whole call; `host` is
    sent as the Host header where the address has another name than the site knows itself by.
    Raises SiteRefused for an address that cannot be one.
    """

    def __init__(self, base_url: str, api_key: str, timeout_seconds: float, host: str = "") -> None:
        try:
            address = httpx.URL(base_url)
        except httpx.InvalidURL:
            raise SiteRefused(
                "COMSES_URL is not an address; set it to something like https://www.example.org"
            ) from None
        if address.scheme not in {"http", "https"} or not address.host:
            raise SiteRefused("COMSES_URL must begin with http:// or https:// and name a host")
        self._where = faults.Where(scheme=address.scheme, host=address.host, port=address.port, sent=host)
        self._timeout_seconds = timeout_seconds
        self._reader = BatchReader()
        self._client = httpx.AsyncClient(
            base_url=address.copy_with(path=address.path.rstrip("/") + "/", query=None, fragment=None),
            headers={"Accept": "application/json", "X-API-Key": api_key, "User-Agent": "spamcheck"}
            | ({"Host": host} if host else {}),
            timeout=httpx.Timeout(timeout_seconds),
            follow_redirects=False,
            # The machine's own trust store, where an administrator adds a certificate authority.
            verify=ssl.create_default_context(),
            # A proxy of the environment cannot reach this machine's loopback.
            trust_env=not _is_loopback(address.host),
        )

    async def scheduled(self) -> list[Item]:
        """One batch (at most 100 items) of what is scheduled now.

        Raises SiteUnreachable, SiteRefused or SiteFaulty.
        """
        response, body = await self._call("GET", BATCH_PATH)
        if response.status_code != 200:
            raise faults.of_batch(self._where, response, body)
        # In a thread, and record by record: parsing megabytes of markup must not hold up heartbeats.
        reading = self._reader.items(await asyncio.to_thread(self._json, body, "the batch"))
        batch: list[Item] = []
        while (item := await asyncio.to_thread(next, reading, None)) is not None:
            batch.append(item)
        return batch

    async def submit(self, item_id: str, verdict: Verdict) -> None:
        """Hand one verdict over.

        Raises the same, and ItemGone, ItemRefused or ItemFaulty for this one item.
        """
        response, body = await self._call("POST", UPDATE_PATH, update_body(item_id, verdict))
        if response.status_code != 200:
            raise faults.of_update(self._where, response, body, item_id)
        answer = self._json(body, "the answer to an update")
        if not (isinstance(answer, dict) and answer.get("message")):
            raise SiteFaulty(f"{self._where} answered an update with 200 but not in the words of its contract")

    async def aclose(self) -> None:
        """Close connections."""
        await self._client.aclose()

    async def _call(self, method: str, path: str, body: Any = None) -> tuple[httpx.Response, bytes]:
        """One request, its answer read whole within the limits of time and size."""
        try:
            async with asyncio.timeout(self._timeout_seconds):
                async with self._client.stream(method, path.removeprefix("/"), json=body) as response:
                    received = bytearray()
                    async for part in response.aiter_bytes():
                        received += part
                        if len(received) > MAX_ANSWER_BYTES:
                            raise SiteFaulty(
                                f"{self._where} sent more than {MAX_ANSWER_BYTES >> 20} MiB in one answer; is COMSES_URL right?"
                            )
                    return response, bytes(received)
        except (httpx.HTTPError, httpx.InvalidURL, OSError, TimeoutError) as error:
            # `from None`: the library's own error holds the request, and that the key.
            raise faults.of_transport(self._where, error, self._timeout_seconds) from None

    def _json(self, body: bytes, what: str) -> Any:
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            raise SiteFaulty(
                f"{self._where} sent {what} as something that is not JSON ({len(body)} bytes); is COMSES_URL the address"
                " of the site itself, with nothing in between that answers in its place?"
            ) from None


def update_body(item_id: str, verdict: Verdict) -> dict[str, Any]:
    """What the update endpoint takes. Blank fields are left out: it refuses null and empty texts."""
    body: dict[str, Any] = {
        "id": int(item_id) if item_id.isascii() and item_id.isdigit() else item_id,
        "is_spam": verdict.is_spam,
        "confidence": verdict.confidence,
    }
    if verdict.indicators:
        body["spam_indicators"] = list(verdict.indicators)
    if verdict.reasoning:
        body["reasoning"] = verdict.reasoning
    return body


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
