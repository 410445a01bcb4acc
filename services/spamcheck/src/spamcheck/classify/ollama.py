"""A model on an Ollama server: ask about an item, and take nothing but a valid answer."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Literal

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError

from ..items import Item, Verdict
from ..settings import Settings
from . import answer
from .base import AnswerInvalid, ClassifierUnavailable, ModelState
from .prompt import ContextTooSmall, Message, Prompt, Prompter
from .rules import Evidence

SEED = 20240901
"""Any number: with temperature 0 it makes answers repeatable on the same server."""
KEEP_ALIVE = "15m"
"""How long the server keeps a model in memory after a call: longer than any pause within a run."""
CONNECT_SECONDS = 5.0
LOOK_SECONDS = 3.0
"""Limit of a question about the server's models."""
SHARES = (1.0, 0.5, 0.25, 0.125)
"""Parts of the context's room tried in turn when a text needs more tokens than was estimated."""


class _ContextFull(Exception):
    """The server says, or its count shows, that a prompt was not seen whole."""


class _ChatMessage(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")
    content: str


class _ChatReply(BaseModel):
    """The parts of a reply of POST /api/chat that are looked at."""

    model_config = ConfigDict(strict=True, extra="ignore")
    message: _ChatMessage
    done: Literal[True]
    done_reason: str | None = None
    prompt_eval_count: int = 0
    eval_count: int = 0


class OllamaModel:
    """One model. Several may share a client; whoever made the client closes it."""

    def __init__(self, settings: Settings, model: str, client: httpx.AsyncClient, prompter: Prompter) -> None:
        """Ask `model` with the settings' limits (seconds, tokens)."""
        self.name = model
        self.by = f"ollama/{model}"
        self._client = client
        self._prompter = prompter
        self._timeout_seconds = settings.ollama_timeout_seconds
        self._context_tokens = settings.ollama_context_tokens
        url = settings.ollama_url
        self._where = f"Ollama at {url.scheme}://{url.host}:{url.port}"  # not the whole: it may hold a password

    async def judge(self, item: Item, evidence: Evidence) -> Verdict:
        """Judge one item. A long text is judged in several windows: the first that is spam decides.

        When none is, the least certain window gives the confidence and the reasoning. Raises ClassifierUnavailable or
        AnswerInvalid.
        """
        for share in SHARES:
            try:
                # In a thread: cutting a long text takes seconds, in which others must not wait.
                prompts = await asyncio.to_thread(self._prompter.prompts, item, evidence, share)
                return await self._judge_all(prompts)
            except _ContextFull:
                continue
            except ContextTooSmall:
                break
        raise AnswerInvalid(
            f"{self.name}: the text does not fit a context of {self._context_tokens} tokens even in small parts;"
            " set OLLAMA_CONTEXT_TOKENS higher"
        )

    async def _judge_all(self, prompts: list[Prompt]) -> Verdict:
        answers: list[answer.Answer] = []
        for prompt in prompts:
            answers.append(await self._ask(prompt))
            if answers[-1].is_spam:
                break
        deciding = answers[-1] if answers[-1].is_spam else min(answers, key=lambda each: each.confidence)
        return Verdict(
            is_spam=deciding.is_spam,
            confidence=deciding.confidence,
            by=self.by,
            indicators=tuple(code for each in answers for code in each.indicators),
            reasoning=deciding.reasoning,
        )

    async def _ask(self, prompt: Prompt) -> answer.Answer:
        """One answer, with one try to repair."""
        try:
            return await self._answer(prompt.messages(), SEED)
        except answer.NotAnAnswer as fault:
            first_fault = str(fault)
        try:
            # Another seed, because the same one would tend to the same answer.
            return await self._answer(prompt.messages(first_fault), SEED + 1)
        except answer.NotAnAnswer as fault:
            raise AnswerInvalid(f"{self.name} gave no valid answer, twice: {first_fault}; then: {fault}") from None

    async def _answer(self, messages: list[Message], seed: int) -> answer.Answer:
        reply = await self._chat(
            {
                "model": self.name,
                "messages": messages,
                "format": answer.SCHEMA,
                "stream": False,
                # Newer servers refuse a prompt that is too long instead of cutting it; older ones ignore this.
                "truncate": False,
                "keep_alive": KEEP_ALIVE,
                "options": {
                    "temperature": 0,
                    "seed": seed,
                    "num_ctx": self._context_tokens,
                    "num_predict": answer.MAX_ANSWER_TOKENS,
                },
            }
        )
        # A prompt that was cut to fit, or pushed out while the answer was written, fills the context to the brim.
        if reply.prompt_eval_count + reply.eval_count >= self._context_tokens:
            raise _ContextFull
        if reply.done_reason not in (None, "stop"):
            raise answer.NotAnAnswer("it was too long and was cut off")
        return answer.parse(reply.message.content)

    async def _chat(self, request: dict[str, Any]) -> _ChatReply:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                response = await self._client.post("/api/chat", json=request)
        except (TimeoutError, httpx.TimeoutException):
            raise ClassifierUnavailable(
                f"{self._where}: no answer of {self.name} within {self._timeout_seconds:g} s; see whether the GPU is in"
                " use (ollama ps), or set OLLAMA_TIMEOUT_SECONDS higher"
            ) from None
        except httpx.ConnectError:
            raise ClassifierUnavailable(
                f"{self._where} does not answer; start it (systemctl start ollama) or set OLLAMA_URL"
            ) from None
        except httpx.TransportError as error:
            raise ClassifierUnavailable(f"{self._where}: the connection was cut ({type(error).__name__})") from None
        try:
            body = json.loads(response.content)
        except ValueError:
            body = None
        if response.status_code != httpx.codes.OK or not isinstance(body, dict) or "error" in body:
            raise self._refusal(response.status_code, body)
        try:
            return _ChatReply.model_validate(body)
        except ValidationError:
            raise self._refusal(response.status_code, None) from None

    def _refusal(self, status: int, body: Any) -> Exception:
        """What a refusal means. Its own words are looked at and not repeated: they may quote the prompt."""
        error = str(body.get("error", "")).lower() if isinstance(body, dict) else ""
        if "context" in error and ("exceed" in error or "length" in error):
            return _ContextFull()
        if status == httpx.codes.NOT_FOUND and not error:
            return ClassifierUnavailable(f"{self._where}: HTTP 404; is OLLAMA_URL the address of an Ollama server?")
        if "not found" in error:
            return ClassifierUnavailable(f"{self._where} has no model {self.name}; run: ollama pull {self.name}")
        if status == httpx.codes.SERVICE_UNAVAILABLE or "busy" in error:
            return ClassifierUnavailable(
                f"{self._where} is busy (HTTP {status}): fewer items at once (PARALLELISM), or a longer queue"
                " (OLLAMA_MAX_QUEUE)"
            )
        if "memory" in error:
            return ClassifierUnavailable(
                f"{self._where} has not enough memory for {self.name} (HTTP {status}): a smaller model, or a smaller"
                " OLLAMA_CONTEXT_TOKENS or OLLAMA_NUM_PARALLEL"
            )
        if status == httpx.codes.OK and not error:
            return ClassifierUnavailable(f"{self._where}: the answer is not Ollama's; is OLLAMA_URL right?")
        return ClassifierUnavailable(f"{self._where} failed (HTTP {status}); see its journal: journalctl -u ollama")


async def model_states(client: httpx.AsyncClient, names: list[str]) -> dict[str, ModelState]:
    """The state of each model on the server. Raises nothing."""
    try:
        present, loaded = await asyncio.gather(_names(client, "/api/tags"), _names(client, "/api/ps"))
    except (httpx.HTTPError, TimeoutError, ValueError, KeyError, TypeError):
        return dict.fromkeys(names, "unreachable")
    states: dict[str, ModelState] = {}
    for name in names:
        full = full_name(name)
        states[name] = "missing" if full not in present else "loaded" if full in loaded else "not loaded"
    return states


async def _names(client: httpx.AsyncClient, path: str) -> set[str]:
    async with asyncio.timeout(LOOK_SECONDS):
        response = await client.get(path)
    response.raise_for_status()
    return {full_name(str(model["name"])) for model in response.json()["models"]}


def full_name(model: str) -> str:
    """The model's name with its tag: `llama3.2` and `llama3.2:latest` are the same."""
    return model if ":" in model.rsplit("/", 1)[-1] else f"{model}:latest"
