"""A stand-in for an Ollama server: its HTTP API, its queue and its faults, without a model behind it.

It answers /api/chat, /api/tags, /api/ps and /api/version as Ollama 0.11 does. It serves a fixed number of chats at
once, each for a fixed time; further ones wait in the order they came in; beyond a limit they are refused with 503.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import Enum
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from .http import LoopbackServer

Chat = dict[str, Any]
"""The JSON body of a request to /api/chat."""

VERSION = "0.11.4"
MAX_QUEUE = 512
"""Ollama's default for OLLAMA_MAX_QUEUE."""
KEPT_CHATS = 1000
"""So many of the last requests are kept for tests to look at."""

SPAM_WORDS = ("casino", "viagra", "followers", "cheap pills", "escort", "payday loan", "replica watch", "crypto bonus")
"""What the stand-in calls spam by itself."""


class Fault(Enum):
    """What can be ordered to go wrong with a chat."""

    MODEL_MISSING = "404, as if the model had never been pulled"
    SERVER_ERROR = "500, as when the model's process dies"
    NO_MEMORY = "500, as when the model does not fit"
    BUSY = "503, as with a full queue"
    ERROR_UNDER_200 = "an error object under HTTP 200"
    HANG = "no answer until the client leaves"
    CUT = "the connection is cut in the middle of the body"
    NOT_JSON = "a web page instead of JSON"
    CONTENT_NOT_JSON = "the model's text is no JSON"
    OUT_OF_RANGE = "a confidence of 5e15"
    TEXT_FOR_BOOLEAN = 'is_spam is the text "not TRUE"'
    TRUNCATED = "the model's text stops in the middle, done_reason length"
    CONTEXT_FULL = "the count shows that the prompt was cut to fit the context"


class SandboxOllama:
    """The stand-in. Start it, point a client at `url`, look at the counts, stop it. Thread-safe.

    `seconds_per_answer`: how long a chat occupies one of the `serves_at_once` places. `answer`: makes the model's
    answer from the request, as an object (sent as JSON text) or as a text (sent as it is).
    """

    def __init__(
        self,
        port: int = 0,
        seconds_per_answer: float = 0.0,
        serves_at_once: int = 8,
        models: Sequence[str] = ("llama3.2", "llama3.1"),
        answer: Callable[[Chat], dict[str, Any] | str] | None = None,
        max_queue: int = MAX_QUEUE,
    ) -> None:
        """Take a port of 127.0.0.1 (0: a free one). Raises http.PortInUse."""
        self.models = [_full_name(model) for model in models]
        self.chats: deque[Chat] = deque(maxlen=KEPT_CHATS)
        self.requests = 0
        """chats asked for, faulty ones included"""
        self.answered = 0
        self.most_at_once = 0
        self.most_waiting = 0
        self._seconds = seconds_per_answer
        self._answer = answer or trivial_answer
        self._places = asyncio.Semaphore(serves_at_once)  # first come, first served
        self._serving = self._waiting = 0
        self._max_queue = max_queue
        self._loaded: dict[str, None] = {}
        self._faults: deque[Fault] = deque()
        self._lock = threading.Lock()
        routes = [
            Route("/", self._root),
            Route("/api/version", self._version),
            Route("/api/tags", self._tags),
            Route("/api/ps", self._ps),
            Route("/api/chat", self._chat, methods=["POST"]),
        ]
        self._server = LoopbackServer(Starlette(routes=routes), port)

    @property
    def url(self) -> str:
        """The base address, without a slash at the end."""
        return self._server.url

    def start(self) -> None:
        """Return when requests are answered."""
        self._server.start()

    def stop(self) -> None:
        """Stop answering and free the port."""
        self._server.stop()

    def __enter__(self) -> SandboxOllama:
        """Start."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.stop()

    def answer_with(self, answer: Callable[[Chat], dict[str, Any] | str]) -> None:
        """Answer this way from now on."""
        self._answer = answer

    def order(self, fault: Fault, times: int = 1) -> None:
        """Let the next `times` chats go wrong, after the faults ordered before."""
        with self._lock:
            self._faults.extend([fault] * times)

    def _next_fault(self) -> Fault | None:
        with self._lock:
            return self._faults.popleft() if self._faults else None

    async def _root(self, _: Request) -> Response:
        return PlainTextResponse("Ollama is running")

    async def _version(self, _: Request) -> Response:
        return JSONResponse({"version": VERSION})

    async def _tags(self, _: Request) -> Response:
        return JSONResponse({"models": [_described(model) for model in self.models]})

    async def _ps(self, _: Request) -> Response:
        expires = {"expires_at": _now(), "size_vram": 0}
        return JSONResponse({"models": [_described(model) | expires for model in self._loaded]})

    async def _chat(self, request: Request) -> Response:
        self.requests += 1
        try:
            chat: Chat = await request.json()
        except ValueError:
            return JSONResponse({"error": "invalid character in request"}, 400)
        self.chats.append(chat)
        fault = self._next_fault()
        model = str(chat.get("model", ""))
        if not model:
            return JSONResponse({"error": "model is required"}, 400)
        if fault is Fault.MODEL_MISSING or _full_name(model) not in self.models:
            return JSONResponse({"error": f'model "{model}" not found, try pulling it first'}, 404)
        if fault is Fault.BUSY or self._waiting >= self._max_queue:
            return JSONResponse({"error": "server busy, please try again.  maximum pending requests exceeded"}, 503)
        with self._count_waiting():
            await self._places.acquire()
        try:
            with self._count_serving():
                return await self._serve(request, chat, fault)
        finally:
            self._places.release()

    async def _serve(self, request: Request, chat: Chat, fault: Fault | None) -> Response:
        began = time.monotonic_ns()
        if fault is Fault.HANG:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            return PlainTextResponse("")
        if self._seconds:
            await asyncio.sleep(self._seconds)
        if fault in _REFUSALS:
            status, error = _REFUSALS[fault]
            return JSONResponse({"error": error}, status)
        if fault is Fault.NOT_JSON:
            return PlainTextResponse("<html>it works</html>", media_type="text/html")
        self._loaded[_full_name(str(chat["model"]))] = None
        reply = self._reply(chat, fault, time.monotonic_ns() - began)
        if fault is Fault.CUT:
            return _CutResponse(reply)
        self.answered += 1
        if chat.get("stream", True):
            last = reply | {"message": {"role": "assistant", "content": ""}}
            lines = [json.dumps(reply | {"done": False}), json.dumps(last)]
            return PlainTextResponse("\n".join(lines) + "\n", media_type="application/x-ndjson")
        return JSONResponse(reply)

    def _reply(self, chat: Chat, fault: Fault | None, nanoseconds: int) -> dict[str, Any]:
        made = self._answer(chat)
        content = made if isinstance(made, str) else json.dumps(made)
        reason = "stop"
        prompt_tokens = sum(len(str(message.get("content", ""))) for message in chat.get("messages", [])) // 4
        match fault:
            case Fault.CONTENT_NOT_JSON:
                content = "I would say that this is not spam."
            case Fault.OUT_OF_RANGE:
                content = json.dumps({**_object(content), "confidence": 5e15})
            case Fault.TEXT_FOR_BOOLEAN:
                content = json.dumps({**_object(content), "is_spam": "not TRUE"})
            case Fault.TRUNCATED:
                content, reason = content[: len(content) // 2], "length"
            case Fault.CONTEXT_FULL:
                prompt_tokens = int(chat.get("options", {}).get("num_ctx", 4096))
        return {
            "model": chat["model"],
            "created_at": _now(),
            "message": {"role": "assistant", "content": content},
            "done_reason": reason,
            "done": True,
            "total_duration": nanoseconds,
            "load_duration": 0,
            "prompt_eval_count": prompt_tokens,
            "prompt_eval_duration": 0,
            "eval_count": max(1, len(content) // 4),
            "eval_duration": nanoseconds,
        }

    @contextmanager
    def _count_waiting(self) -> Any:
        self._waiting += 1
        self.most_waiting = max(self.most_waiting, self._waiting)
        try:
            yield
        finally:
            self._waiting -= 1

    @contextmanager
    def _count_serving(self) -> Any:
        self._serving += 1
        self.most_at_once = max(self.most_at_once, self._serving)
        try:
            yield
        finally:
            self._serving -= 1


_REFUSALS = {
    Fault.SERVER_ERROR: (500, "llama runner process has terminated: exit status 2"),
    Fault.NO_MEMORY: (500, "model requires more system memory (9.3 GiB) than is available (4.0 GiB)"),
    Fault.ERROR_UNDER_200: (200, "an error was encountered while running the model: unexpected EOF"),
}


class _CutResponse(Response):
    """Announces the whole body, sends half of it, and leaves: the server then closes the connection."""

    def __init__(self, body: dict[str, Any]) -> None:
        super().__init__(json.dumps(body), media_type="application/json")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        half = self.body[: len(self.body) // 2]
        await send({"type": "http.response.body", "body": bytes(half), "more_body": True})


def trivial_answer(chat: Chat) -> dict[str, Any]:
    """Spam when one of SPAM_WORDS stands in the last message.

    Where lines of it begin with `| ` (fenced data), only those are looked at, so that instructions do not count.
    """
    question = str(chat["messages"][-1].get("content", "")) if chat.get("messages") else ""
    fenced = [line for line in question.splitlines() if line.startswith("| ")]
    text = "\n".join(fenced or [question]).lower()
    is_spam = any(word in text for word in SPAM_WORDS)
    return {
        "indicators": ["advertising"] if is_spam else [],
        "reasoning": "A word from a short list." if is_spam else "No word from a short list.",
        "is_spam": is_spam,
        "confidence": 0.9,
    }


def _object(content: str) -> dict[str, Any]:
    parsed = json.loads(content)
    return parsed if isinstance(parsed, dict) else {}


def _full_name(model: str) -> str:
    return model if ":" in model.rsplit("/", 1)[-1] else f"{model}:latest"


def _described(model: str) -> dict[str, Any]:
    details = {"format": "gguf", "family": "llama", "families": ["llama"], "parameter_size": "3.2B"}
    return {"name": model, "model": model, "modified_at": _now(), "size": 1, "digest": "0" * 64, "details": details}


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")
