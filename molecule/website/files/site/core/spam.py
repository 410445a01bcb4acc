"""The endpoints of the spam check as recorded: the Host first (400), then the key (401), then the answer."""

import hmac
import os

from django.conf import settings
from django.http import JsonResponse


def batch(request):
    """Nothing is scheduled here."""
    given = request.headers.get("X-API-Key", "")
    if not hmac.compare_digest(given.encode(), settings.LLM_SPAM_CHECK_API_KEY.encode()):
        answer = JsonResponse({"detail": "Invalid API key" if given else "No API key"}, status=401)
        answer["WWW-Authenticate"] = "X-API-Key"
        return answer
    if request.method != "GET":
        return JsonResponse({"detail": f'Method "{request.method}" not allowed.'}, status=405)
    return JsonResponse([], safe=False)


def about(_request):
    """What the process was started with, for the tests."""
    return JsonResponse(
        {"checker": os.environ.get("LLM_SPAM_CHECK_API_URL"), "pid": os.getpid(), "parent": os.getppid()}
    )
