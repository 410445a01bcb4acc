"""Alarms: told once, repeated while they cost money, taken back when over, whichever process saw it."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fake_clock import BEGINNING
from notice_board import SECRET, NoticeBoard

from spamops import followup, notify
from spamops.alarms import TITLES, Desk, Kind
from spamops.budget import Budget
from spamops.errors import ExitCode
from spamops.ledger import Ledger
from spamops.notify import Delivery, Message
from spamops.summary import Summary, finish
from spamops.telling import Telling

AN_HOUR = timedelta(hours=1)


class Sent(list[Message]):
    """Messages."""

    refuse = False


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Sent:
    """What would be sent, and is taken unless `refuse` is set on the list."""
    messages = Sent()

    def send(urls: Any, batch: Any, _seconds: float) -> list[Delivery]:
        if messages.refuse:
            return [Delivery("x", False) for _ in urls]
        messages.extend(batch)
        return [Delivery("x", True) for _ in urls]

    monkeypatch.setattr(notify, "send", send)
    return messages


def desk(folder: Path, **more: Any) -> Desk:
    """A desk of its own, as each process has one."""
    return Desk(Ledger(folder), "gpu", Telling(urls=("json://x",), repeat_seconds=3600.0, **more))


def ended(code: ExitCode, status: str = "SHELVED_OFFLOADED", run: int = 1) -> dict[str, Any]:
    """How a run ended."""
    summary = Summary(server="gpu", run=run, server_status_after=status)
    finish(summary, code, "why <b>it</b> did")
    return summary.as_dict()


def after(folder: Path, code: ExitCode, hours: float = 0, **more: Any) -> None:
    """A run in a process of its own ended so long after the beginning."""
    at = BEGINNING + AN_HOUR * hours
    mine = desk(folder)
    mine.after_run(ended(code, **more), at)
    mine.tell(at)


def test_each_failure_is_told_and_the_first_success_after_them_once(tmp_path: Path, sent: Sent) -> None:
    after(tmp_path, ExitCode.DONE)
    assert sent == []
    after(tmp_path, ExitCode.CHECKER_FAILED, 1)
    after(tmp_path, ExitCode.SERVER_NOT_WOKEN, 2)
    assert ["the check failed" in message.title for message in sent] == [True, True]
    assert "server_not_woken" in sent[1].body
    after(tmp_path, ExitCode.ITEMS_FAILED, 3)
    assert "all clear: check_failed" in sent[2].title
    assert "raised 2 times" in sent[2].body
    after(tmp_path, ExitCode.DONE, 4)
    assert len(sent) == 3


def test_a_server_left_on_is_told_again_until_it_sleeps(tmp_path: Path, sent: Sent) -> None:
    after(tmp_path, ExitCode.SERVER_NOT_SHELVED, status="ACTIVE")
    desk(tmp_path).tell(BEGINNING + AN_HOUR / 2)
    assert len(sent) == 1
    desk(tmp_path).tell(BEGINNING + AN_HOUR)
    desk(tmp_path).tell(BEGINNING + AN_HOUR * 1.5)
    assert len(sent) == 2
    desk(tmp_path).saw("SHUTOFF", BEGINNING + AN_HOUR * 2)  # it costs money still
    desk(tmp_path).tell(BEGINNING + AN_HOUR * 2)
    assert len(sent) == 3
    desk(tmp_path).saw("SHELVED_OFFLOADED", BEGINNING + AN_HOUR * 3)
    desk(tmp_path).tell(BEGINNING + AN_HOUR * 3)
    desk(tmp_path).tell(BEGINNING + AN_HOUR * 9)
    assert [message.kind for message in sent] == ["failure"] * 3 + ["success"]


def test_what_nobody_took_is_told_by_the_next_who_comes(tmp_path: Path, sent: Sent) -> None:
    sent.refuse = True
    after(tmp_path, ExitCode.SERVER_NOT_SHELVED, status="ACTIVE")
    sent.refuse = False
    desk(tmp_path).tell(BEGINNING + timedelta(seconds=5))
    assert len(sent) == 1
    sent.refuse = True
    desk(tmp_path).saw("SHELVED", BEGINNING + AN_HOUR)
    desk(tmp_path).tell(BEGINNING + AN_HOUR)
    sent.refuse = False
    desk(tmp_path).tell(BEGINNING + AN_HOUR)
    assert "all clear" in sent[1].title
    assert len(sent) == 2


def test_what_was_over_before_anybody_could_be_told_is_not_told(tmp_path: Path, sent: Sent) -> None:
    mine = desk(tmp_path)
    mine.open(Kind.NOT_SHELVED, "x", BEGINNING)
    mine.saw("SHELVED", BEGINNING)
    mine.tell(BEGINNING)
    assert sent == []


def test_what_happened_once_is_told_once(tmp_path: Path, sent: Sent) -> None:
    mine = desk(tmp_path)
    sent.refuse = True
    mine.open(Kind.REAPED, "idle", BEGINNING)
    mine.tell(BEGINNING)
    sent.refuse = False
    for hours in (1, 2, 3):
        desk(tmp_path).tell(BEGINNING + AN_HOUR * hours)
    assert len(sent) == 1
    assert Ledger(tmp_path).open_alarms("gpu") == []


def test_two_processes_that_tell_at_once_tell_once(tmp_path: Path, sent: Sent) -> None:
    desk(tmp_path).open(Kind.NOT_SHELVED, "x", BEGINNING)
    threads = [threading.Thread(target=desk(tmp_path).tell, args=(BEGINNING,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(sent) == 1


def test_an_alarm_is_told_although_the_history_is_broken(tmp_path: Path, sent: Sent) -> None:
    (tmp_path / "ledger.db").write_text("not a database" * 100)
    after(tmp_path, ExitCode.SERVER_NOT_SHELVED, status="ACTIVE")
    assert len(sent) == 1
    assert "NOT SHELVED" in sent[0].title


def test_a_message_holds_nothing_that_acts(tmp_path: Path, sent: Sent) -> None:
    after(tmp_path, ExitCode.CHECKER_FAILED)
    assert "why ?b?it?/b? did" in sent[0].body
    assert "docs/alarms.md, check_failed" in sent[0].body


def test_a_digest_comes_every_so_many_days_and_not_at_once(tmp_path: Path, sent: Sent) -> None:
    ledger = Ledger(tmp_path)
    summary = Summary(server="gpu", checked=7, spam=3, not_spam=4, service_units=1.5)
    finish(summary, ExitCode.DONE, None)
    for day in range(15):
        at = BEGINNING + timedelta(days=day)
        ledger.end(ledger.begin("gpu", "command", at, 16.0), summary, at)
        desk(tmp_path, digest_days=7).tell(at)
    assert len(sent) == 2
    assert "from 2026-03-01 to 2026-03-08" in sent[0].title
    assert "8 runs, 0 of them failed. 56 items checked: 24 spam, 32 not spam" in sent[0].body


def test_what_follows_a_run_breaks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(Desk, "after_run", broken)
    followup.after_run(Ledger(tmp_path), "gpu", Telling(), Budget(), ended(ExitCode.DONE), BEGINNING)


def test_every_alarm_arrives_over_http_with_where_to_read_on(tmp_path: Path) -> None:
    with NoticeBoard() as board:
        mine = Desk(Ledger(tmp_path), "gpu", Telling(urls=(board.url(),)))
        for kind in Kind:
            mine.open(kind, "text", BEGINNING)
        mine.tell(BEGINNING)
        assert sorted(board.titles) == sorted(f"spamops: gpu: {TITLES[kind]}" for kind in Kind)
        assert SECRET not in board.texts


def test_every_alarm_is_explained() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "alarms.md").read_text()
    for kind in Kind:
        section = page.split(f"\n## `{kind}`", 1)[1].split("\n## ")[0]
        assert "What it means" in section
        assert "What to do" in section
