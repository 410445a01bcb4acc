"""The module ollama_model against a stand-in with the faults of networks, registries and disks.

What it does with a real Ollama and a real registry is in tests/integration/test_ollama_model.py.
"""

from __future__ import annotations

import importlib
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_module import COLLECTIONS, Result, run_module
from faulty_ollama import CUT, HOLD, SUCCESS, WHOLE, FaultyOllama, layer, quiet

UTILS = "ansible_collections.comses.spamops.plugins.module_utils"
OLD = "0" * 64
PULLED = f"sha256:{'d' * 64}"
STALL_SECONDS = 0.3


@pytest.fixture(autouse=True)
def no_long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(COLLECTIONS))
    monkeypatch.setattr(importlib.import_module(f"{UTILS}.ollama_pull"), "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(importlib.import_module(f"{UTILS}.ollama_api"), "BUSY_SECONDS", 0.01)


@pytest.fixture
def ollama() -> Iterator[FaultyOllama]:
    with FaultyOllama() as server:
        yield server


def see_to(server: FaultyOllama, name: str = "llama3.1", /, *, check: bool = False, **more: Any) -> Result:
    arguments = {"name": name, "url": server.url, "stall_timeout": STALL_SECONDS, "retries": 2, "call_timeout": 5}
    return run_module("ollama_model", arguments | more, check=check)


def see_to_mirrored(server: FaultyOllama, name: str = "llama3.1", /, *, check: bool = False, **more: Any) -> Result:
    """From the stand-in's own registry, as from a mirror: nothing beyond this machine is asked."""
    reference = f"{server.address}/library/{name}"
    return see_to(server, name, check=check, reference=reference, insecure=True, **more)


@pytest.mark.parametrize(
    "name",
    ["llama3.1", "llama3.1:latest", "library/llama3.1", "registry.ollama.ai/library/llama3.1:latest", "LLAMA3.1"],
)
def test_a_model_that_is_there_costs_no_question_to_the_registry(ollama: FaultyOllama, name: str) -> None:
    ollama.models["llama3.1:latest"] = OLD
    result = see_to(ollama, name)
    assert not result.failed
    assert not result["changed"]
    assert result["digest"] == f"sha256:{OLD}"
    assert ollama.requests == ["GET /api/tags"]


def test_another_tag_is_another_model(ollama: FaultyOllama) -> None:
    ollama.models["llama3.1:70b"] = OLD
    assert see_to_mirrored(ollama)["changed"]


def test_a_missing_model_is_pulled_and_the_result_tells_what_came_in(ollama: FaultyOllama) -> None:
    ollama.offer("llama3.1")
    ollama.pulls = [({"status": "pulling manifest"}, layer(0), layer(60), layer(100), *SUCCESS)]
    result = see_to_mirrored(ollama)
    assert result["changed"]
    assert (result["name"], result["digest"], result["bytes"], result["attempts"]) == (
        "llama3.1:latest",
        PULLED,
        100,
        1,
    )
    assert result["layers"] == [{"digest": "sha256:" + "a" * 64, "total": 100, "completed": 100}]
    assert result["statuses"][-1] == "success"
    assert result["diff"] == {"before": "", "after": f"llama3.1:latest {PULLED}\n"}
    assert set(ollama.models) == {"llama3.1:latest"}, "the mirror's name does not stay"
    assert not see_to_mirrored(ollama)["changed"]


def test_an_error_in_the_middle_of_a_good_answer_is_an_error(ollama: FaultyOllama) -> None:
    ollama.pulls = [({"status": "pulling manifest"}, {"error": "pull model manifest: file does not exist"})]
    result = see_to_mirrored(ollama)
    assert result.failed
    assert "the registry has no such model" in result["msg"]
    assert ollama.asked("/api/pull") == 1, "what another try does not mend is not tried again"


def test_an_error_that_may_pass_is_tried_again(ollama: FaultyOllama) -> None:
    ollama.pulls = [(layer(10), {"error": "max retries exceeded: unexpected EOF"}), WHOLE]
    result = see_to_mirrored(ollama)
    assert result["changed"]
    assert result["attempts"] == 2


@pytest.mark.parametrize("broken", [(layer(40), HOLD), (layer(40), CUT), (layer(40), quiet(STALL_SECONDS * 4))])
def test_a_pull_that_stalls_is_taken_up_again(ollama: FaultyOllama, broken: tuple[dict[str, Any], ...]) -> None:
    ollama.pulls = [broken, (layer(40), layer(100), *SUCCESS)]
    result = see_to_mirrored(ollama)
    assert result["changed"], result
    assert (result["attempts"], result["bytes"]) == (2, 60), "the 40 were there when the layer was first named"


def test_a_pull_that_stalls_for_ever_ends_and_says_how_far_it_came(ollama: FaultyOllama) -> None:
    ollama.pulls = [(layer(40), HOLD)]
    result = see_to_mirrored(ollama)
    assert result.failed
    assert "no byte came in for 0.3 s" in result["msg"]
    assert "40 of 100 bytes" in result["msg"]
    assert result["attempts"] == 1 + 1 + 2, "one that brought bytes, then 1 + retries that brought none"
    assert ollama.gone.wait(5), "the broken-off pull does not go on in the background"


def test_a_pull_ends_when_its_time_is_up(ollama: FaultyOllama) -> None:
    ollama.pulls = [(*(line for done in range(1000) for line in (layer(done, 1000), quiet(0.05))),)]
    result = see_to_mirrored(ollama, timeout=1)
    assert result.failed
    assert "the time is up" in result["msg"]


def test_hashing_on_a_slow_disk_is_no_stall(ollama: FaultyOllama) -> None:
    verifying, *rest = SUCCESS
    ollama.pulls = [(layer(100), verifying, quiet(STALL_SECONDS * 3), *rest)]
    result = see_to_mirrored(ollama)
    assert result["changed"]
    assert result["attempts"] == 1


def test_too_little_room_is_said_before_anything_is_pulled(ollama: FaultyOllama, tmp_path: Path) -> None:
    ollama.offer("llama3.1", size=10**18)
    for check in (True, False):
        result = see_to_mirrored(ollama, check=check, models_path=str(tmp_path / "not" / "yet"))
        assert result.failed
        assert "MiB are free" in result["msg"]
    assert ollama.asked("/api/pull") == 0


def test_what_must_stay_free_counts(ollama: FaultyOllama, tmp_path: Path) -> None:
    ollama.offer("llama3.1", size=1)
    assert see_to_mirrored(ollama, models_path=str(tmp_path), min_free_mb=10**9).failed
    assert not see_to_mirrored(ollama, models_path=str(tmp_path), min_free_mb=1).failed


def test_layers_that_are_there_need_no_room(ollama: FaultyOllama, tmp_path: Path) -> None:
    ollama.offer("llama3.1", size=10**18)
    ollama.blobs = {"sha256:" + "a" * 64, "sha256:" + "c" * 64}
    assert see_to_mirrored(ollama, models_path=str(tmp_path))["changed"]


def test_without_a_manifest_the_room_is_checked_as_soon_as_the_size_is_known(
    ollama: FaultyOllama, tmp_path: Path
) -> None:
    ollama.pulls = [(layer(1, total=10**18), HOLD)]
    result = see_to_mirrored(ollama, models_path=str(tmp_path))
    assert result.failed
    assert "MiB are free" in result["msg"]
    assert ollama.gone.wait(5), "the pull is broken off"


def test_a_full_queue_is_waited_for(ollama: FaultyOllama) -> None:
    ollama.models["llama3.1:latest"] = OLD
    ollama.busy = 3
    assert not see_to(ollama).failed


def test_a_queue_that_stays_full_is_named(ollama: FaultyOllama) -> None:
    ollama.busy = 1000
    result = see_to(ollama)
    assert result.failed
    assert "busy (HTTP 503" in result["msg"]


def test_an_ollama_that_does_not_run_is_named_with_what_to_do() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    result = run_module("ollama_model", {"name": "llama3.1", "url": url})
    assert result.failed
    assert f"Ollama at {url} does not answer" in result["msg"]
    assert "systemctl start ollama" in result["msg"]


def test_another_server_at_the_address_is_not_taken_for_ollama(ollama: FaultyOllama) -> None:
    ollama.html = True
    result = see_to(ollama)
    assert result.failed
    assert "not Ollama's" in result["msg"]


def test_a_model_is_removed_once(ollama: FaultyOllama) -> None:
    ollama.models["llama2:latest"] = OLD
    assert see_to(ollama, "llama2", check=True, state="absent")["changed"]
    assert ollama.models, "looking removes nothing"
    assert see_to(ollama, "llama2", state="absent")["changed"]
    assert not ollama.models
    assert not see_to(ollama, "llama2", state="absent")["changed"]


def test_check_mode_predicts_a_pull_and_does_none(ollama: FaultyOllama) -> None:
    ollama.offer("llama3.1")
    result = see_to_mirrored(ollama, check=True)
    assert result["changed"]
    assert result["size"] == 101
    assert not any(request.startswith(("POST", "DELETE")) for request in ollama.requests)


@pytest.mark.parametrize("check", [True, False])
def test_latest_pulls_nothing_when_the_registry_has_the_same(ollama: FaultyOllama, check: bool) -> None:
    ollama.models["llama3.1:latest"] = ollama.offer("llama3.1")
    result = see_to_mirrored(ollama, check=check, state="latest")
    assert not result["changed"]
    assert ollama.asked("/api/pull") == 0


def test_latest_pulls_what_is_newer_and_check_mode_says_so_before(ollama: FaultyOllama) -> None:
    ollama.models["llama3.1:latest"] = OLD
    ollama.pulled_digest = ollama.offer("llama3.1")
    assert see_to_mirrored(ollama, check=True, state="latest")["changed"]
    assert ollama.models["llama3.1:latest"] == OLD
    assert see_to_mirrored(ollama, state="latest")["changed"]
    assert not see_to_mirrored(ollama, state="latest")["changed"]


def test_latest_changes_nothing_when_the_pull_brought_the_same(ollama: FaultyOllama) -> None:
    """The registry's manifest cannot be read, so only the pull can tell."""
    ollama.models["llama3.1:latest"] = ollama.pulled_digest
    result = see_to_mirrored(ollama, state="latest")
    assert not result["changed"]
    assert ollama.asked("/api/pull") == 1
    assert "was not known" in result["notes"][0]


@pytest.mark.parametrize("pin", [PULLED, "d" * 64, "d" * 12])
def test_a_pinned_model_is_pulled_once(ollama: FaultyOllama, pin: str) -> None:
    ollama.models["llama3.1:latest"] = OLD
    assert see_to_mirrored(ollama, digest=pin)["changed"]
    assert not see_to_mirrored(ollama, digest=pin, state="latest")["changed"]
    assert ollama.asked("/api/pull") == 1


def test_a_model_with_another_digest_than_the_pinned_one_is_never_used(ollama: FaultyOllama) -> None:
    for reference in (None, f"{ollama.address}/library/llama3.1"):
        name = "llama3.1" if reference else f"{ollama.address}/library/llama3.1"
        full = f"{name}:latest"
        for before in ({}, {full: OLD}):
            ollama.models = dict(before)
            result = see_to(ollama, name, reference=reference, insecure=True, digest="e" * 12)
            assert result.failed
            assert PULLED in result["msg"]
            assert ollama.models == before, "what was there stays, and nothing else does"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "llama 3"}, "not the name of a model"),
        ({"name": "-x"}, "not the name of a model"),
        ({"url": "127.0.0.1:11434"}, "url must be an address"),
        ({"url": "http://user:secret@127.0.0.1:11434"}, "without a user name"),
        ({"digest": "latest"}, "digest must be"),
        ({"source": "gguf"}, "path is missing"),
        ({"source": "gguf", "path": "/x", "checksum": "md5:1"}, "checksum must be"),
        ({"source": "gguf", "path": "/x", "reference": "y"}, "reference cannot be given"),
        ({"path": "/x"}, "path cannot be given"),
        ({"timeout": 0}, "more than 0"),
    ],
)
def test_a_faulty_argument_is_named_before_anything_is_asked(
    ollama: FaultyOllama, arguments: dict[str, Any], words: str
) -> None:
    result = run_module("ollama_model", {"name": "llama3.1", "url": ollama.url, **arguments})
    assert result.failed
    assert words in result["msg"]
    assert "secret" not in result["msg"]
    assert not ollama.requests


def test_it_runs_where_nothing_but_python_is_installed() -> None:
    """The host of the models has no package of ours."""
    folder = COLLECTIONS / "ansible_collections/comses/spamops/plugins"
    for path in [*folder.glob("module_utils/ollama*.py"), folder / "modules/ollama_model.py"]:
        for line in path.read_text().splitlines():
            if line.startswith(("import ", "from ")):
                package = line.split()[1].split(".")[0]
                assert package in sys.stdlib_module_names | {"ansible", "ansible_collections", "__future__"}, line
