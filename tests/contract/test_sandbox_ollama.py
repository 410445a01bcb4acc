"""The Ollama stand-in: what the throughput figures and the checker's tests rely on."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx
import pytest

from spamops.sandbox.ollama import Fault, SandboxOllama


def chat(text: str = "| hello", **more: Any) -> dict[str, Any]:
    return {"model": "llama3.2", "messages": [{"role": "user", "content": text}], "stream": False, **more}


async def ask_many(url: str, texts: list[str]) -> list[httpx.Response]:
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=30, limits=limits) as client:
        return await asyncio.gather(*(client.post("/api/chat", json=chat(text)) for text in texts))


async def test_it_serves_so_many_at_once_and_takes_the_time_it_was_told() -> None:
    with SandboxOllama(seconds_per_answer=0.1, serves_at_once=8) as server:
        began = time.monotonic()
        replies = await ask_many(server.url, [f"| {number}" for number in range(40)])
        seconds = time.monotonic() - began
    assert {reply.status_code for reply in replies} == {200}
    assert server.most_at_once == 8
    assert (server.requests, server.answered) == (40, 40)
    # Five rounds of 0.1 s can not be faster; an upper bound would only measure the machine.
    assert seconds >= 0.5


async def test_beyond_the_queue_it_is_busy() -> None:
    with SandboxOllama(seconds_per_answer=0.2, serves_at_once=1, max_queue=2) as server:
        replies = await ask_many(server.url, ["| x"] * 6)
    statuses = sorted(reply.status_code for reply in replies)
    assert statuses == [200, 200, 200, 503, 503, 503]
    assert server.most_waiting == 2


def test_a_chat_is_answered_from_the_fenced_text_alone() -> None:
    with SandboxOllama() as server:
        spam = httpx.post(f"{server.url}/api/chat", json=chat("codes: casino\n| Win at our CASINO"), trust_env=False)
        ham = httpx.post(f"{server.url}/api/chat", json=chat("codes: casino\n| A model of farms"), trust_env=False)
    assert '"is_spam": true' in spam.json()["message"]["content"]
    assert '"is_spam": false' in ham.json()["message"]["content"]


def test_without_stream_false_it_streams_as_the_original_does() -> None:
    with SandboxOllama() as server:
        request = {key: value for key, value in chat().items() if key != "stream"}
        reply = httpx.post(f"{server.url}/api/chat", json=request, trust_env=False)
    assert reply.headers["content-type"].startswith("application/x-ndjson")
    with pytest.raises(ValueError):
        reply.json()


def test_faults_come_in_the_order_they_were_ordered_in_and_then_end() -> None:
    with SandboxOllama() as server:
        server.order(Fault.BUSY)
        server.order(Fault.SERVER_ERROR, times=2)
        statuses = [httpx.post(f"{server.url}/api/chat", json=chat(), trust_env=False).status_code for _ in range(4)]
    assert statuses == [503, 500, 500, 200]
