"""The model client against a real Ollama, with a tiny real model whose weights are noise.

What such a model says is nonsense within the grammar: no verdict may come of it unless it is a valid answer. Needs the
binary that `scripts/build-ollama` builds, or the one that SPAMOPS_OLLAMA names; skipped where there is none.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import tiny_model

from spamcheck.classify import answer, build
from spamcheck.classify.base import AnswerInvalid, ClassifierUnavailable
from spamcheck.classify.ollama import model_states
from spamcheck.items import Item, Verdict
from spamcheck.settings import Settings
from spamops.sandbox.ollama import SandboxOllama

START_SECONDS = 30
VERSION = "0.11.4"
# Read when this file is loaded: the tests' environment is cleared of SPAMOPS_ names.
_CACHE = os.environ.get("SPAMOPS_CACHE") or f"{os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'}/spamops"
BINARY = Path(os.environ.get("SPAMOPS_OLLAMA") or f"{_CACHE}/ollama-{VERSION}/ollama")

pytestmark = pytest.mark.skipif(
    not os.access(BINARY, os.X_OK), reason="no Ollama binary: run scripts/build-ollama, or set SPAMOPS_OLLAMA"
)


@pytest.fixture(scope="module")
def ollama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of its own on a free port, with its models in a temporary folder. Gives its address."""
    folder = tmp_path_factory.mktemp("ollama")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "OLLAMA_HOST": address,
        "OLLAMA_MODELS": str(folder / "models"),
        "OLLAMA_NUM_PARALLEL": "1",
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([BINARY, "serve"], env=environment, stdout=log, stderr=log)
    try:
        _wait_until_it_answers(f"http://{address}", process, folder / "log")
        yield f"http://{address}"
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_it_answers(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            httpx.get(f"{url}/api/version", trust_env=False, timeout=1)
        except httpx.TransportError:
            time.sleep(0.05)
        else:
            return
    pytest.fail(f"Ollama did not start:\n{log.read_text(errors='replace')[-2000:]}")


@pytest.fixture(scope="module")
def client(ollama: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=ollama, trust_env=False, timeout=120) as made:
        yield made


@pytest.fixture(scope="module")
def tiny(client: httpx.Client, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tiny model, loaded into the server's store. Gives its name."""
    path = tmp_path_factory.mktemp("model") / "tiny.gguf"
    tiny_model.write(path)
    data = path.read_bytes()
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    client.post(f"/api/blobs/{digest}", content=data).raise_for_status()
    created = client.post(
        "/api/create",
        json={"model": "tiny", "files": {path.name: digest}, "template": tiny_model.TEMPLATE, "stream": False},
    )
    assert created.json() == {"status": "success"}, created.text
    return "tiny"


def make_settings(url: str, **changes: object) -> Settings:
    values = {
        "api_key": "k" * 40,
        "payload_key": base64.b64encode(b"p" * 32).decode(),
        "classifier": "cascade",
        "ollama_url": url,
        "ollama_default_model": "tiny",
        "ollama_second_model": "",
        "ollama_timeout_seconds": 120,
        "site_description": "A site on models.",
        # The model reads bytes: some five thousand tokens for what is a thousand to others.
        "ollama_context_tokens": 8192,
        **changes,
    }
    return Settings(**values)  # type: ignore[arg-type]


async def _outcome(url: str, item: Item, **changes: object) -> Verdict | AnswerInvalid:
    classifier = build(make_settings(url, **changes))
    try:
        return await classifier.classify(item)
    except AnswerInvalid as refused:
        return refused
    finally:
        await classifier.aclose()


@pytest.mark.parametrize("number", range(2))
async def test_noise_from_a_model_is_a_valid_verdict_or_none(ollama: str, tiny: str, number: int) -> None:
    item = Item(str(number), "job", "hash", {"title": f"Job {number}", "description": "We model the sharing of water."})
    outcome = await _outcome(ollama, item)
    if isinstance(outcome, Verdict):
        assert outcome.by == f"ollama/{tiny}"
        assert 0 <= outcome.confidence <= 1
    else:
        assert "twice" in str(outcome)
        assert "water" not in str(outcome)


def test_the_server_keeps_to_the_schema_but_not_to_its_ranges(client: httpx.Client, tiny: str) -> None:
    """Why answers are checked here: were this no longer so, the check would still do no harm."""
    kept: list[dict[str, Any]] = []
    for number in range(12):
        reply = client.post(
            "/api/chat",
            json={
                "model": tiny,
                "messages": [{"role": "user", "content": f"hello {number}"}],
                "format": answer.SCHEMA,
                "stream": False,
                "options": {"temperature": 0, "num_ctx": 2048, "num_predict": answer.MAX_ANSWER_TOKENS},
            },
        ).json()
        if reply["done_reason"] == "stop":
            kept.append(json.loads(reply["message"]["content"]))
        if len(kept) == 3:
            break
    assert kept
    for each in kept:
        assert list(each) == answer.SCHEMA["required"]
        assert isinstance(each["is_spam"], bool)
        if 0 <= each["confidence"] <= 1:
            answer.parse(json.dumps(each))
        else:
            with pytest.raises(answer.NotAnAnswer, match="confidence"):
                answer.parse(json.dumps(each))


async def test_a_text_that_the_server_cuts_without_a_word_never_becomes_a_verdict(ollama: str, tiny: str) -> None:
    # The model reads bytes: the frame alone overflows this context, and nothing but the server's count tells.
    item = Item("9", "job", "hash", {"description": "We model the sharing of water. " * 40})
    outcome = await _outcome(ollama, item, ollama_context_tokens=3072)
    assert isinstance(outcome, AnswerInvalid)
    assert "OLLAMA_CONTEXT_TOKENS" in str(outcome)


async def test_a_model_that_was_never_pulled_is_named_with_the_command_that_pulls_it(ollama: str) -> None:
    classifier = build(make_settings(ollama, ollama_default_model="llama3.2"))
    with pytest.raises(ClassifierUnavailable, match=r"ollama pull llama3\.2"):
        await classifier.classify(Item("1", "job", "hash", {"title": "A job"}))
    assert (await classifier.readiness()).models == {"llama3.2": "missing"}
    await classifier.aclose()


async def test_readiness_tells_loaded_from_not_loaded(ollama: str, tiny: str) -> None:
    load = {"model": tiny, "messages": [], "stream": False}
    async with httpx.AsyncClient(base_url=ollama, trust_env=False, timeout=60) as looking:
        (await looking.post("/api/chat", json=load | {"keep_alive": 0})).raise_for_status()
        deadline = time.monotonic() + 20
        while (states := await model_states(looking, [tiny, f"{tiny}:latest"])) != {
            tiny: "not loaded",
            f"{tiny}:latest": "not loaded",
        }:
            assert time.monotonic() < deadline, states
        (await looking.post("/api/chat", json=load)).raise_for_status()
        assert set((await model_states(looking, [tiny])).values()) == {"loaded"}


@pytest.mark.parametrize("model", ["tiny", "never-pulled"])
def test_the_stand_in_answers_in_the_form_of_the_real_server(client: httpx.Client, tiny: str, model: str) -> None:
    chat = {
        "model": model,
        "messages": [{"role": "user", "content": "hello"}],
        "stream": False,
        "options": {"num_predict": 5, "num_ctx": 2048},
    }
    with SandboxOllama(models=[tiny]) as stand_in, httpx.Client(base_url=stand_in.url, trust_env=False) as sandbox:
        real, other = client.post("/api/chat", json=chat), sandbox.post("/api/chat", json=chat)
        assert other.status_code == real.status_code
        if "error" in real.json():
            assert other.json() == real.json()
        else:
            assert set(other.json()) == set(real.json())
            assert set(other.json()["message"]) == set(real.json()["message"])
        assert other.headers["content-type"].split(";")[0] == real.headers["content-type"].split(";")[0]
        for path in ("/api/tags", "/api/ps", "/api/version"):
            assert set(sandbox.get(path).json()) == set(client.get(path).json())
