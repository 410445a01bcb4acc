"""The module server_reap, run in this process against a cloud and a checker on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_module import Result, run_module
from fake_checker import API_KEY, FakeChecker
from notice_board import SECRET, NoticeBoard
from scene import QUICK_DELAYS

from spamops.ledger import Ledger
from spamops.sandbox.cloud import SandboxCloud, ServerSpec

pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore:.*:PendingDeprecationWarning")


@pytest.fixture
def checker() -> Iterator[FakeChecker]:
    with FakeChecker() as made:
        yield made


@pytest.fixture
def cloud(checker: FakeChecker) -> Iterator[SandboxCloud]:
    with SandboxCloud([ServerSpec(name="gpu", status="ACTIVE")], delays=QUICK_DELAYS) as made:
        yield made


def reap(folder: Path, cloud: SandboxCloud, checker: FakeChecker, *, check: bool = False, **more: Any) -> Result:
    """One look."""
    entry = cloud.clouds_yaml()
    arguments = {
        "server": "gpu",
        "url": checker.url,
        "api_key": API_KEY,
        "state_dir": str(folder / "state"),
        "auth": entry["auth"],
        "auth_type": entry["auth_type"],
        "grace": 0,
        "service_units_per_hour": 16,
    }
    return run_module("server_reap", arguments | more, check=check)


def test_an_idle_server_is_shelved_once_and_told(tmp_path: Path, cloud: SandboxCloud, checker: FakeChecker) -> None:
    with NoticeBoard() as board:
        done = reap(tmp_path, cloud, checker, notify_urls=[board.url()])
        assert len(board.titles) == 1
    assert (done["action"], done["changed"], done["exit_code"]) == ("shelved", True, 0)
    assert (done["status_before"], done["status_after"], done["doing"]) == ("ACTIVE", "SHELVED_OFFLOADED", "idle")
    assert done["diff"] == {"before": "ACTIVE\n", "after": "SHELVED_OFFLOADED\n"}
    assert [row["started_by"] for row in Ledger(tmp_path / "state").runs()] == ["reap"]
    again = reap(tmp_path, cloud, checker)
    assert (again["action"], again["changed"]) == ("nothing", False)
    secrets = [SECRET, API_KEY, cloud.application_credential_secret]
    assert not [secret for secret in secrets if secret in done.text + done.logged]


def test_check_mode_predicts_and_changes_nothing(tmp_path: Path, cloud: SandboxCloud, checker: FakeChecker) -> None:
    told = reap(tmp_path, cloud, checker, check=True)
    assert (told["action"], told["changed"], told["status_after"]) == ("would_shelve", True, "SHELVED_OFFLOADED")
    assert cloud.action_requests == []
    assert not (tmp_path / "state").exists()


def test_a_server_that_works_is_left_alone(tmp_path: Path, cloud: SandboxCloud, checker: FakeChecker) -> None:
    checker.active = True
    told = reap(tmp_path, cloud, checker)
    assert (told["action"], told["changed"], told["doing"]) == ("left_alone", False, "working")
    assert cloud.action_requests == []


@pytest.mark.parametrize(
    ("more", "code", "says"),
    [
        ({"api_key": "short"}, 2, "api_key has 5 characters"),
        ({"url": "http://user:word@127.0.0.1/"}, 2, "url must hold no user"),
        ({"metrics_textfile": "/x"}, 2, "must end in .prom"),
        ({"server": "nobody"}, 4, "no server nobody in this project"),
    ],
)
def test_what_cannot_be_is_a_failure_in_words(
    tmp_path: Path, cloud: SandboxCloud, checker: FakeChecker, more: dict[str, Any], code: int, says: str
) -> None:
    told = reap(tmp_path, cloud, checker, **more)
    assert told.failed
    assert told["exit_code"] == code
    assert says in told["msg"]
