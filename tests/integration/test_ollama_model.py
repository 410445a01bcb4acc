"""The module ollama_model with a real Ollama: models made of files, and models pulled from a real registry on loopback.

Needs the binary that `scripts/build-ollama` builds, or the one that SPAMOPS_OLLAMA names; and, for what is pulled, Debian's
docker-registry, or the one that SPAMOPS_REGISTRY names. Skipped where there is none.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import loopback_registry
import pytest
import tiny_model
from ansible_module import COLLECTIONS, PACKAGE, Result, run_module

START_SECONDS = 30
VERSION = "0.11.4"
# Read when this file is loaded: the tests' environment is cleared of SPAMOPS_ names.
_CACHE = os.environ.get("SPAMOPS_CACHE") or f"{os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'}/spamops"
BINARY = Path(os.environ.get("SPAMOPS_OLLAMA") or f"{_CACHE}/ollama-{VERSION}/ollama")

pytestmark = pytest.mark.skipif(
    not os.access(BINARY, os.X_OK), reason="no Ollama binary: run scripts/build-ollama, or set SPAMOPS_OLLAMA"
)
needs_registry = pytest.mark.skipif(
    loopback_registry.PROGRAM is None, reason="no docker-registry: install Debian's package, or set SPAMOPS_REGISTRY"
)


@pytest.fixture
def ollama(tmp_path: Path) -> Iterator[str]:
    """A server of its own on a free port, with nothing in its store. Gives its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "OLLAMA_HOST": address,
        "OLLAMA_MODELS": str(tmp_path / "models"),
    }
    log = tmp_path / "ollama.log"
    with log.open("wb") as output:
        process = subprocess.Popen([BINARY, "serve"], env=environment, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not answers(f"http://{address}"):
            assert time.monotonic() < deadline, log.read_text(errors="replace")[-2000:]
            assert process.poll() is None, log.read_text(errors="replace")[-2000:]
            time.sleep(0.05)
        yield f"http://{address}"
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.gguf"
    tiny_model.write(path)
    return path


@pytest.fixture
def registry(tmp_path: Path, ollama: str, gguf: Path) -> Iterator[loopback_registry.Registry]:
    """A registry with one model, `llama3.1`. Ollama's store is empty again."""
    with loopback_registry.Registry(tmp_path / "registry") as made:
        push(made, ollama, gguf)
        yield made


def push(registry: loopback_registry.Registry, ollama: str, gguf: Path) -> None:
    name = f"{registry.address}/library/llama3.1"
    assert see_to(ollama, name, source="gguf", path=str(gguf))["changed"]
    with httpx.Client(base_url=ollama, trust_env=False, timeout=60) as client:
        pushed = client.post("/api/push", json={"model": name, "insecure": True, "stream": False})
        assert pushed.json() == {"status": "success"}, pushed.text
    assert see_to(ollama, name, state="absent")["changed"]


def answers(url: str) -> bool:
    try:
        httpx.get(f"{url}/api/version", trust_env=False, timeout=1)
    except httpx.TransportError:
        return False
    return True


def arguments(url: str, name: str, more: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "url": url, "timeout": 120, **more}


def see_to(url: str, name: str, /, *, check: bool = False, **more: Any) -> Result:
    result = run_module("ollama_model", arguments(url, name, more), check=check)
    assert not result.failed, result["msg"]
    return result


def refusal(url: str, name: str, /, **more: Any) -> str:
    result = run_module("ollama_model", arguments(url, name, more))
    assert result.failed, result
    return str(result["msg"])


def names(url: str) -> set[str]:
    return {model["name"] for model in httpx.get(f"{url}/api/tags", trust_env=False).json()["models"]}


def talks(url: str, model: str) -> bool:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "hello"}],
        "stream": False,
        "options": {"num_predict": 5, "num_ctx": 2048},
    }
    return bool(httpx.post(f"{url}/api/chat", json=body, trust_env=False, timeout=60).json()["done"])


def from_file(url: str, gguf: Path, /, *, check: bool = False, **more: Any) -> Result:
    return see_to(url, "llama3.1", check=check, source="gguf", path=str(gguf), **more)


def test_a_model_of_a_file_talks_and_is_made_once(ollama: str, gguf: Path) -> None:
    assert from_file(ollama, gguf, check=True)["changed"]
    assert names(ollama) == set(), "looking makes nothing"
    made = from_file(ollama, gguf)
    assert made["changed"]
    assert made["bytes"] == gguf.stat().st_size
    assert names(ollama) == {"llama3.1:latest"}
    assert talks(ollama, "llama3.1")
    again = from_file(ollama, gguf)
    assert not again["changed"]
    assert again["digest"] == made["digest"]


def test_a_model_that_is_there_needs_no_file_any_more(ollama: str, gguf: Path) -> None:
    from_file(ollama, gguf)
    gguf.unlink()
    assert not from_file(ollama, gguf)["changed"]
    assert "cannot be read" in refusal(ollama, "llama3.2", source="gguf", path=str(gguf))


def test_another_file_replaces_the_model_when_it_is_asked_for(ollama: str, gguf: Path) -> None:
    before = from_file(ollama, gguf)
    tiny_model.write(gguf, seed=2)
    checksum = "sha256:" + hashlib.sha256(gguf.read_bytes()).hexdigest()
    assert not from_file(ollama, gguf)["changed"]
    assert from_file(ollama, gguf, state="latest", check=True)["changed"]
    after = from_file(ollama, gguf, checksum=checksum)
    assert after["changed"]
    assert after["digest"] != before["digest"]
    assert not from_file(ollama, gguf, checksum=checksum)["changed"]
    assert not from_file(ollama, gguf, state="latest")["changed"]
    assert talks(ollama, "llama3.1")


def test_a_file_with_another_checksum_is_refused(ollama: str, gguf: Path) -> None:
    said = refusal(ollama, "llama3.1", source="gguf", path=str(gguf), checksum=f"sha256:{'0' * 64}")
    assert "nothing was changed" in said
    assert names(ollama) == set()


def test_a_file_that_is_no_model_is_refused(ollama: str, gguf: Path) -> None:
    whole = gguf.read_bytes()
    for content in (b"<html>not found</html>", b"", b"GGUF" + bytes(100)):
        gguf.write_bytes(content)
        assert "not a GGUF file" in refusal(ollama, "llama3.1", source="gguf", path=str(gguf))
    # Ollama itself finds out here, in the middle of an answer with HTTP 200.
    gguf.write_bytes(whole[:2000])
    assert "could not make llama3.1" in refusal(ollama, "llama3.1", source="gguf", path=str(gguf))
    assert names(ollama) == set()


def test_parameters_are_kept_and_a_change_of_them_is_seen(ollama: str, gguf: Path) -> None:
    given: dict[str, Any] = {
        "state": "latest",
        "template": "{{ .Prompt }}",
        "system": "Be brief.",
        "parameters": {"temperature": 0, "stop": ["<|x|>", "</s>"]},
    }
    assert from_file(ollama, gguf, **given)["changed"]
    assert not from_file(ollama, gguf, **given)["changed"]
    for change in ({"template": "{{ .Prompt }}!"}, {"system": "Be long."}, {"parameters": {"temperature": 0.5}}):
        assert from_file(ollama, gguf, check=True, **given | change)["changed"], change


def test_a_model_is_removed_with_its_layers(ollama: str, gguf: Path, tmp_path: Path) -> None:
    from_file(ollama, gguf)
    assert see_to(ollama, "library/llama3.1", state="absent")["changed"]
    assert not see_to(ollama, "llama3.1", state="absent")["changed"]
    assert names(ollama) == set()
    assert not list((tmp_path / "models/blobs").glob("sha256-*"))


@needs_registry
def test_a_pull_from_a_real_registry_ends_under_the_plain_name_and_is_done_once(
    ollama: str, registry: loopback_registry.Registry, tmp_path: Path
) -> None:
    mirrored = {
        "reference": f"{registry.front}/library/llama3.1",
        "insecure": True,
        "models_path": str(tmp_path / "models"),
    }
    predicted = see_to(ollama, "llama3.1", check=True, **mirrored)
    assert predicted["changed"]
    assert names(ollama) == set()
    pulled = see_to(ollama, "llama3.1", **mirrored)
    assert pulled["changed"]
    assert pulled["bytes"] == predicted["size"]
    assert names(ollama) == {"llama3.1:latest"}
    assert talks(ollama, "llama3.1")

    registry.requests.clear()
    assert not see_to(ollama, "llama3.1", **mirrored)["changed"]
    assert not registry.requests, "what is there is not asked for"
    assert not see_to(ollama, "llama3.1", digest=pulled["digest"][:20], **mirrored)["changed"]
    assert not see_to(ollama, "llama3.1", state="latest", check=True, **mirrored)["changed"]
    assert not see_to(ollama, "llama3.1", state="latest", **mirrored)["changed"]
    assert {request.split("/")[-2] for request in registry.requests} == {"manifests"}


@needs_registry
def test_a_newer_model_in_a_real_registry_is_seen_and_pulled(
    ollama: str, registry: loopback_registry.Registry, gguf: Path
) -> None:
    name = f"{registry.front}/library/llama3.1"
    old = see_to(ollama, name, insecure=True)
    tiny_model.write(gguf, seed=3)
    push(registry, ollama, gguf)
    assert not see_to(ollama, name, insecure=True)["changed"]
    assert see_to(ollama, name, insecure=True, state="latest", check=True)["changed"]
    assert "was not kept" in refusal(ollama, name, insecure=True, digest="0" * 12)
    assert not see_to(ollama, name, insecure=True, digest=old["digest"])["changed"], "the old one is in its place"
    new = see_to(ollama, name, insecure=True, state="latest")
    assert new["changed"]
    assert new["digest"] != old["digest"]
    assert names(ollama) == {f"{name}:latest"}


@needs_registry
def test_a_real_pull_that_stalls_goes_on_where_it_was(ollama: str, registry: loopback_registry.Registry) -> None:
    registry.stalls = 1
    result = see_to(ollama, f"{registry.front}/library/llama3.1", insecure=True, stall_timeout=1.5)
    assert result["changed"]
    assert result["attempts"] > 1
    assert went_on(registry)


@needs_registry
def test_a_pull_whose_task_was_killed_is_completed_by_the_next_one(
    ollama: str, registry: loopback_registry.Registry
) -> None:
    name = f"{registry.front}/library/llama3.1"
    registry.stalls = 1
    program = f"""
import json, sys
sys.path.insert(0, {str(COLLECTIONS)!r})
from ansible.module_utils.testing import patch_module_args
from {PACKAGE} import ollama_model
with patch_module_args(json.load(sys.stdin)):
    ollama_model.main()
"""
    task = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert task.stdin
    task.stdin.write(json.dumps(arguments(ollama, name, {"insecure": True})).encode())
    task.stdin.close()
    assert registry.stalled.wait(60), "the pull did not begin"
    time.sleep(0.5)
    task.send_signal(signal.SIGKILL)
    task.wait(10)
    assert names(ollama) == set()
    assert see_to(ollama, name, insecure=True)["changed"]
    assert went_on(registry)
    assert talks(ollama, name)


def went_on(registry: loopback_registry.Registry) -> bool:
    """Whether some layer was asked for from its middle on."""
    return any(each and not each.startswith("bytes=0-") for each in registry.ranges)


@needs_registry
@pytest.mark.parametrize(("name", "words"), [("llama9", "no such model"), ("llama3.1:70b", "no such model")])
def test_a_model_that_the_registry_lacks_is_named(
    ollama: str, registry: loopback_registry.Registry, name: str, words: str
) -> None:
    assert words in refusal(ollama, f"{registry.front}/library/{name}", insecure=True)


@needs_registry
def test_a_registry_without_tls_is_refused_until_it_is_said_to_be_one(
    ollama: str, registry: loopback_registry.Registry
) -> None:
    assert "insecure" in refusal(ollama, f"{registry.front}/library/llama3.1", retries=0)
