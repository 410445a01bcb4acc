"""What is kept of a check that was cut off, and one run a server however the server is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_checker import Answer, report, status
from scene import Scene

from spamops.ledger import Ledger
from spamops.lock import ServerLock
from spamops.sandbox.cloud import ServerSpec

pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore:.*:PendingDeprecationWarning")


def test_verdicts_given_until_a_check_is_cut_off_are_in_the_history(tmp_path: Path) -> None:
    with Scene(tmp_path) as scene:
        scene.checker.order("status", Answer(body=status("RUNNING", found=9, checked=3, spam=1), times=None))
        scene.checker.order("report", Answer(body=report(3) | {"status": "RUNNING"}, times=None))
        told = scene.run()
        assert told.code == 5
        assert scene.ends == "SHELVED_OFFLOADED"
        row = Ledger(scene.state_dir).run(1)
    assert row is not None
    assert (row["workflow_status"], row["checked"], len(row["verdicts"])) == ("RUNNING", 3, 3)


def test_counts_are_kept_where_there_is_no_report(tmp_path: Path) -> None:
    with Scene(tmp_path) as scene:
        scene.checker.order("status", Answer(body=status("RUNNING", found=9, checked=4, spam=1), times=None))
        scene.checker.order("report", Answer(500, times=None))
        assert scene.run().code == 5
        row = Ledger(scene.state_dir).run(1)
    assert row is not None
    assert (row["checked"], row["spam"]) == (4, 1)


def test_a_run_by_name_and_one_by_id_exclude_each_other(tmp_path: Path) -> None:
    spec = ServerSpec(name="gpu", status="ACTIVE")
    with Scene(tmp_path, spec) as scene:
        other = ServerLock(scene.state_dir, spec.id)
        other.acquire()
        scene.settings["server"] = "gpu"
        told = scene.run()
        assert told.code == 3
        assert scene.ends == "ACTIVE", "the server of the other run was shelved"
        assert scene.cloud.action_requests == []
        other.release()
        scene.checker_listens = False  # it listens already
        assert scene.run().code == 0
        assert scene.ends == "SHELVED_OFFLOADED"
