"""What went wrong with a CoMSES site, in words that say what to fix. Never content, never the key."""

from __future__ import annotations

import json
import re
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx

from .base import ItemFaulty, ItemGone, ItemRefused, SiteFaulty, SiteRefused, SiteUnreachable, SourceError

_FIELD = re.compile(r"[A-Za-z_]{1,40}")


@dataclass(frozen=True, slots=True)
class Where:
    """The site in messages: scheme, host and port, without path, user or password."""

    scheme: str
    host: str
    port: int | None
    sent: str = ""
    """The Host header, where it is not the host."""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"the site at {self.scheme}://{host}" + (f":{self.port}" if self.port else "")


def of_batch(where: Where, response: httpx.Response, body: bytes) -> SourceError:
    """The fault that an answer to the batch request means."""
    status = response.status_code
    if status == 500:
        return SiteFaulty(
            f"{where} failed on the whole batch (500). One record can do that, such as a profile with unreadable"
            " affiliation data: see the site's own log, and repair or remove that record"
        )
    return _of_both(where, response, body) or SiteFaulty(f"{where} answered the batch request with {status}")


def of_update(where: Where, response: httpx.Response, body: bytes, item_id: str) -> SourceError:
    """The fault that an answer to one verdict means."""
    status = response.status_code
    answer = _object(body)
    name = item_id if item_id.isdigit() else "(not a number)"
    if status == 404 and "error" in answer:
        return ItemGone(f"record {name} no longer exists on the site (404)")
    if status == 500:
        return ItemFaulty(
            f"the site failed on record {name} (500). If it goes on: the record's stored details may be unreadable;"
            " see the site's own log"
        )
    if status == 400 and _is_json(body):
        fields = sorted(field for field in answer if _FIELD.fullmatch(field))
        return ItemRefused(f"the site refuses the verdict on record {name} (400): faulty {', '.join(fields) or 'body'}")
    if status in {413, 415, 422}:
        reason = {413: "too long", 415: "content type"}.get(status, "body")
        return ItemRefused(f"the site refuses the verdict on record {name} ({status}: {reason})")
    return _of_both(where, response, body) or SiteFaulty(f"{where} answered an update with {status}")


def of_transport(where: Where, error: Exception, timeout_seconds: float) -> SourceError:
    """The fault that no answer, or half an answer, means."""
    causes = list(_causes(error))
    tls = next((cause for cause in causes if isinstance(cause, ssl.SSLError)), None)
    if isinstance(tls, ssl.SSLCertVerificationError):
        return SiteRefused(
            f"{where}: its certificate cannot be trusted ({tls.verify_message}). Set COMSES_URL to the name in the"
            " certificate, or add the site's certificate authority to this machine's trust store"
        )
    if tls is not None:
        return SiteRefused(
            f"{where}: no TLS connection ({tls.reason or 'broken off'}). Does that port speak HTTPS? See COMSES_URL"
        )
    if isinstance(error, httpx.TimeoutException | TimeoutError):
        return SiteUnreachable(f"{where} did not answer within {timeout_seconds:g} s")
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        return SiteUnreachable(f"{where}: the name cannot be resolved. See COMSES_URL and this machine's DNS")
    if any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        return SiteUnreachable(f"{where} refuses connections: is it running, and is the port right?")
    if isinstance(error, httpx.ProxyError):
        return SiteUnreachable(f"{where}: the proxy named in this machine's environment does not let the call through")
    if isinstance(error, httpx.LocalProtocolError | httpx.UnsupportedProtocol | httpx.InvalidURL):
        return SiteRefused(
            f"{where}: the request cannot be written. See COMSES_URL and COMSES_API_KEY (printable ASCII)"
        )
    if isinstance(error, httpx.DecodingError):
        return SiteFaulty(f"{where} sent an answer whose compression is broken")
    if isinstance(error, httpx.ConnectError):
        return SiteUnreachable(f"{where}: no connection (no route, or a firewall)")
    return SiteUnreachable(f"{where} cut the connection before its answer was whole ({type(error).__name__})")


def _of_both(where: Where, response: httpx.Response, body: bytes) -> SourceError | None:
    """Faults that say nothing of a record, by status."""
    status = response.status_code
    if 300 <= status < 400:
        return SiteRefused(_redirect(where, response))
    if status == 401:
        if _object(body).get("detail") == "No API key":
            return SiteRefused(
                f"{where} says 'No API key' (401): COMSES_API_KEY was sent, so something in between removes the header"
                " X-API-Key"
            )
        return SiteRefused(
            f"{where} says the key is wrong (401, 'Invalid API key'): set COMSES_API_KEY to the content of the site's"
            " secret file llm_spam_check_api_key, and restart the site if that file was changed"
        )
    if status == 403:
        return SiteRefused(
            f"{where} forbids the call (403). The site itself never does: see the firewall or proxy before it"
        )
    if status == 400 and not _is_json(body):
        return SiteRefused(
            f"{where} does not allow the host name {where.sent or where.host} (400 with an HTML page): add {where.sent or where.host} to the site's"
            " ALLOWED_HOSTS, or set COMSES_URL to a name that is listed there"
        )
    if status == 404:
        return SiteRefused(
            f"{where} has no spam check endpoints (404): see COMSES_URL, and that the site runs a version with"
            " /api/spam/"
        )
    if status == 405:
        return SiteRefused(f"{where} does not take this method (405): something in between changes the request")
    if status == 429:
        return SiteUnreachable(f"{where} asks to slow down (429{_retry_after(response)})")
    if status > 500:
        return SiteUnreachable(f"{where} is not available now ({status}{_retry_after(response)})")
    return None


def _redirect(where: Where, response: httpx.Response) -> str:
    text = f"{where} redirects ({response.status_code}), and a redirected verdict would be lost"
    try:
        target = urlsplit(str(response.url.join(response.headers.get("Location", ""))))
        scheme, host = target.scheme, target.hostname or ""
    except (ValueError, httpx.InvalidURL):
        return f"{text}: see COMSES_URL"
    if where.scheme == "http" and scheme == "https":
        return f"{text}: COMSES_URL must begin with https://, or go through the proxy that stands before the site"
    if host and host != where.host and re.fullmatch(r"[a-z0-9.:-]{1,253}", host):
        return f"{text}: set COMSES_URL to {scheme}://{host} if that is the site"
    return f"{text}: see COMSES_URL, and that nothing in between strips the slash at the end"


def _retry_after(response: httpx.Response) -> str:
    value = response.headers.get("Retry-After", "")
    return f", Retry-After {value} s" if value.isascii() and value.isdigit() and len(value) < 7 else ""


def _is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return False
    return True


def _object(body: bytes) -> dict[str, object]:
    """The answer as a JSON object, or an empty one."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and everything behind it, groups of errors included."""
    waiting: list[BaseException | None] = [error]
    seen: set[int] = set()
    while waiting:
        cause = waiting.pop()
        if cause is None or id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        waiting += [cause.__cause__, cause.__context__]
        if isinstance(cause, BaseExceptionGroup):
            waiting += cause.exceptions
