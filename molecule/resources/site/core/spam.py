"""The endpoints of the spam check as recorded: the Host first (400), then the key (401), then the answer."""

import contextlib
import hmac
import os
import urllib.error
import urllib.request

from django.conf import settings
from django.http import HttpResponse, JsonResponse


def _refusal(request, method):
    given = request.headers.get("X-API-Key", "")
    if not hmac.compare_digest(given.encode(), settings.LLM_SPAM_CHECK_API_KEY.encode()):
        answer = JsonResponse({"detail": "Invalid API key" if given else "No API key"}, status=401)
        answer["WWW-Authenticate"] = "X-API-Key"
        return answer
    if request.method != method:
        return JsonResponse({"detail": f'Method "{request.method}" not allowed.'}, status=405)
    return None


def _records(request):
    """The answer of the place where a test keeps the records, which follows the recorded contract."""
    forwarded = urllib.request.Request(  # noqa: S310 -- an address of the tests
        os.environ["RECORDS_URL"] + request.path,
        data=request.body or None,
        method=request.method,
        headers={"X-API-Key": os.environ["RECORDS_KEY"], "Content-Type": "application/json"},
    )
    try:
        answer = urllib.request.urlopen(forwarded, timeout=30)  # noqa: S310
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        return HttpResponse(answer.read(), status=answer.status, content_type=answer.headers["Content-Type"])


def batch(request):
    """What is scheduled: nothing, while no test keeps records."""
    refusal = _refusal(request, "GET")
    if refusal:
        return refusal
    if "RECORDS_URL" in os.environ:
        with contextlib.suppress(urllib.error.URLError):
            return _records(request)
    return JsonResponse([], safe=False)


def update(request):
    """One verdict."""
    return _refusal(request, "POST") or _records(request)


def about(_request):
    """What the process was started with, for the tests."""
    return JsonResponse(
        {"checker": os.environ.get("LLM_SPAM_CHECK_API_URL"), "pid": os.getpid(), "parent": os.getppid()}
    )
