"""The model client against a real HTTP server: nothing but a valid answer becomes a verdict."""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest

from spamcheck.classify import answer
from spamcheck.classify.base import AnswerInvalid, ClassifierUnavailable
from spamcheck.classify.indicators import FOR_MODELS, Indicator
from spamcheck.classify.ollama import OllamaModel, full_name, model_states
from spamcheck.classify.prompt import Prompter
from spamcheck.classify.rules import examine
from spamcheck.items import Item, Verdict
from spamcheck.settings import Settings
from spamops.sandbox.ollama import Fault, SandboxOllama

SECRET_TEXT = "a sentence that must not leave the checker"
ITEM = Item("7", "job", "hash", {"title": "A job", "description": f"{SECRET_TEXT}. Casino chips for all."})
GOOD = {"indicators": ["off_topic"], "reasoning": "It sells chips.", "is_spam": True, "confidence": 0.75}


def make_settings(url: str, **changes: object) -> Settings:
    """Settings of a checker whose Ollama is at `url`."""
    values = {
        "api_key": "k" * 40,
        "payload_key": base64.b64encode(b"p" * 32).decode(),
        "ollama_url": url,
        "ollama_default_model": "llama3.2",
        "ollama_timeout_seconds": 5,
        **changes,
    }
    return Settings(**values)  # type: ignore[arg-type]


@pytest.fixture
def server() -> Iterator[SandboxOllama]:
    with SandboxOllama() as running:
        yield running


@pytest.fixture
async def make_model() -> AsyncIterator[Callable[..., OllamaModel]]:
    """Makes a client for a server; its connections are closed at the end."""
    clients: list[httpx.AsyncClient] = []

    def make(url: str, model: str = "llama3.2", **changes: object) -> OllamaModel:
        settings = make_settings(url, **changes)
        client = httpx.AsyncClient(base_url=url, trust_env=False, timeout=settings.ollama_timeout_seconds)
        clients.append(client)
        return OllamaModel(settings, model, client, Prompter(settings))

    yield make
    for client in clients:
        await client.aclose()


async def judge(model: OllamaModel, item: Item = ITEM) -> Verdict:
    return await model.judge(item, examine(item))


async def test_an_answer_becomes_a_verdict_that_names_its_model(server: SandboxOllama, make_model: Any) -> None:
    server.answer_with(lambda _: GOOD)
    verdict = await judge(make_model(server.url))
    assert verdict == Verdict(True, 0.75, "ollama/llama3.2", (Indicator.OFF_TOPIC,), "It sells chips.")


async def test_the_model_is_asked_for_repeatable_bounded_answers_in_the_schema(
    server: SandboxOllama, make_model: Any
) -> None:
    await judge(make_model(server.url, ollama_context_tokens=4096))
    chat = server.chats[0]
    assert chat["stream"] is False
    assert chat["format"] == answer.SCHEMA
    assert chat["keep_alive"]
    assert {key: chat["options"][key] for key in ("temperature", "num_ctx", "num_predict")} == {
        "temperature": 0,
        "num_ctx": 4096,
        "num_predict": answer.MAX_ANSWER_TOKENS,
    }
    assert isinstance(chat["options"]["seed"], int)
    assert chat["format"]["properties"]["indicators"]["items"]["enum"] == [str(code) for code in FOR_MODELS]


@pytest.mark.parametrize("fault", [Fault.CONTENT_NOT_JSON, Fault.OUT_OF_RANGE, Fault.TEXT_FOR_BOOLEAN, Fault.TRUNCATED])
async def test_a_faulty_answer_gets_one_try_to_repair_it(fault: Fault, server: SandboxOllama, make_model: Any) -> None:
    server.order(fault)
    verdict = await judge(make_model(server.url))
    assert (verdict.is_spam, verdict.confidence) == (True, 0.9)
    first, second = server.chats
    question = second["messages"][-1]["content"]
    assert "refused" in question
    assert SECRET_TEXT in question
    assert "refused" not in first["messages"][-1]["content"]
    assert second["options"]["seed"] != first["options"]["seed"]


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (Fault.CONTENT_NOT_JSON, "not JSON"),
        (Fault.OUT_OF_RANGE, "confidence"),
        (Fault.TEXT_FOR_BOOLEAN, "is_spam"),
        (Fault.TRUNCATED, "cut off"),
    ],
)
async def test_a_model_that_answers_wrongly_twice_gives_no_verdict(
    fault: Fault, told: str, server: SandboxOllama, make_model: Any
) -> None:
    server.order(fault, times=2)
    with pytest.raises(AnswerInvalid, match=told) as raised:
        await judge(make_model(server.url))
    assert len(server.chats) == 2
    assert SECRET_TEXT not in str(raised.value)


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (Fault.MODEL_MISSING, "ollama pull llama3.2"),
        (Fault.SERVER_ERROR, "HTTP 500"),
        (Fault.NO_MEMORY, "not enough memory"),
        (Fault.BUSY, "busy"),
        (Fault.ERROR_UNDER_200, "journalctl"),
        (Fault.CUT, "cut"),
        (Fault.NOT_JSON, "OLLAMA_URL"),
    ],
)
async def test_a_server_that_fails_is_named_with_what_to_do_and_gives_no_verdict(
    fault: Fault, told: str, server: SandboxOllama, make_model: Any
) -> None:
    server.order(fault)
    with pytest.raises(ClassifierUnavailable, match=told) as raised:
        await judge(make_model(server.url))
    assert SECRET_TEXT not in str(raised.value)
    assert (await judge(make_model(server.url))).is_spam


async def test_a_server_that_hangs_is_left_after_the_time_limit(server: SandboxOllama, make_model: Any) -> None:
    server.order(Fault.HANG)
    with pytest.raises(ClassifierUnavailable, match="OLLAMA_TIMEOUT_SECONDS"):
        await judge(make_model(server.url, ollama_timeout_seconds=0.2))


async def test_a_server_that_is_down_is_named_without_its_password(make_model: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://someone:passw0rd@127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ClassifierUnavailable, match="systemctl start ollama") as raised:
            await judge(make_model(url))
    assert "passw0rd" not in str(raised.value)


@pytest.mark.parametrize(
    "content",
    [
        {**GOOD, "is_spam": "true"},
        {**GOOD, "is_spam": "not TRUE"},
        {**GOOD, "is_spam": 1},
        {**GOOD, "is_spam": None},
        {**GOOD, "confidence": 5e15},
        {**GOOD, "confidence": -0.1},
        {**GOOD, "confidence": "0.9"},
        {**GOOD, "confidence": True},
        {**GOOD, "confidence": None},
        {**GOOD, "indicators": ["something new"]},
        {**GOOD, "indicators": ["content_deleted"]},
        {**GOOD, "indicators": "off_topic"},
        {**GOOD, "indicators": None},
        {**GOOD, "indicators": ["off_topic"] * 100},
        {**GOOD, "reasoning": None},
        {**GOOD, "extra": 1},
        {key: value for key, value in GOOD.items() if key != "is_spam"},
        [GOOD],
        "true",
        None,
    ],
    ids=lambda content: json.dumps(content)[-48:],
)
def test_what_is_not_exactly_an_answer_is_refused(content: Any) -> None:
    with pytest.raises(answer.NotAnAnswer):
        answer.parse(json.dumps(content))


@pytest.mark.parametrize("text", ["", "{", '{"is_spam": true}', json.dumps({**GOOD, "confidence": float("nan")})])
def test_broken_json_and_nan_are_refused(text: str) -> None:
    with pytest.raises(answer.NotAnAnswer):
        answer.parse(text)


def test_a_whole_number_is_a_confidence() -> None:
    assert answer.parse(json.dumps({**GOOD, "confidence": 1})).confidence == 1.0


def test_the_words_of_a_refusal_hold_nothing_of_the_answer() -> None:
    with pytest.raises(answer.NotAnAnswer) as raised:
        answer.parse(json.dumps({**GOOD, "is_spam": SECRET_TEXT, "indicators": [SECRET_TEXT], SECRET_TEXT: 1}))
    assert SECRET_TEXT not in str(raised.value)


def long_item(spam_at: int | None) -> Item:
    """A text of some windows, with a word of spam at the given sentence."""
    sentences = [f"Agents move over the grid and eat grass, step {number}." for number in range(2000)]
    if spam_at is not None:
        sentences[spam_at] = "Visit the casino."
    return Item("8", "codebase", "hash", {"description": " ".join(sentences)})


async def test_spam_in_the_middle_of_a_long_text_decides(server: SandboxOllama, make_model: Any) -> None:
    assert (await judge(make_model(server.url, ollama_context_tokens=4096), long_item(1000))).is_spam
    assert len(server.chats) > 1


async def test_a_long_honest_text_is_judged_to_the_end_and_as_sure_as_its_least_sure_part(
    server: SandboxOllama, make_model: Any
) -> None:
    count = 0

    def less_and_less_sure(_: Any) -> dict[str, Any]:
        nonlocal count
        count += 1
        return {"indicators": [], "reasoning": f"part {count}", "is_spam": False, "confidence": 1 - count / 100}

    server.answer_with(less_and_less_sure)
    verdict = await judge(make_model(server.url, ollama_context_tokens=4096), long_item(None))
    assert not verdict.is_spam
    assert count > 2
    assert (verdict.confidence, verdict.reasoning) == (pytest.approx(1 - count / 100), f"part {count}")


async def test_a_prompt_that_the_server_cut_is_cut_finer_until_all_was_seen(
    server: SandboxOllama, make_model: Any
) -> None:
    server.order(Fault.CONTEXT_FULL)
    verdict = await judge(make_model(server.url, ollama_context_tokens=4096), long_item(1000))
    assert verdict.is_spam
    shown = [len(chat["messages"][-1]["content"].split("<<<")[1]) for chat in server.chats]
    assert max(shown[1:]) < 0.7 * shown[0]


async def test_a_text_that_never_fits_gives_an_error_and_no_verdict(server: SandboxOllama, make_model: Any) -> None:
    server.order(Fault.CONTEXT_FULL, times=50)
    with pytest.raises(AnswerInvalid, match="OLLAMA_CONTEXT_TOKENS"):
        await judge(make_model(server.url, ollama_context_tokens=4096))


async def test_an_operator_sees_which_model_is_loaded_missing_or_out_of_reach(
    server: SandboxOllama, make_model: Any
) -> None:
    await judge(make_model(server.url))
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as client:
        states = await model_states(client, ["llama3.2", "llama3.2:latest", "llama3.1", "qwen3", "llama3.2:1b"])
    assert states == {
        "llama3.2": "loaded",
        "llama3.2:latest": "loaded",
        "llama3.1": "not loaded",
        "qwen3": "missing",
        "llama3.2:1b": "missing",
    }
    server.stop()
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as client:
        assert await model_states(client, ["llama3.2"]) == {"llama3.2": "unreachable"}


def test_a_name_without_a_tag_is_the_latest_also_behind_a_registry_with_a_port() -> None:
    assert full_name("127.0.0.1:5000/library/llama3.2") == "127.0.0.1:5000/library/llama3.2:latest"
    assert full_name("llama3.2:3b") == "llama3.2:3b"
