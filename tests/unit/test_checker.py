"""The client of the checker: real HTTP, and a clock that nobody waits for."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import pytest
from fake_checker import API_KEY, Answer, FakeChecker, report, status
from fake_clock import FakeClock

from spamops.checker import GOING_ON, TERMINAL, Checker, WorkflowStatus
from spamops.errors import CheckerError


@dataclass
class Pair:
    """A checker, its client, and what the client told."""

    server: FakeChecker
    client: Checker
    clock: FakeClock
    notes: list[str] = field(default_factory=list)


@pytest.fixture
def pair() -> Iterator[Pair]:
    clock = FakeClock()
    notes: list[str] = []
    with FakeChecker(clock=clock) as server:
        client = Checker(server.url + "/", API_KEY, clock=clock, on_note=notes.append)
        yield Pair(server, client, clock, notes)
        client.close()


def test_a_whole_check(pair: Pair) -> None:
    seen: list[WorkflowStatus] = []
    pair.client.wait_until_ready()
    workflow_id = pair.client.start()
    last = pair.client.wait_for_end(workflow_id, on_progress=seen.append)
    assert last.status == "COMPLETED"
    assert last.ended
    assert [one.progress["checked"] for one in seen] == [1, 3]
    fetched = pair.client.report(workflow_id)
    assert fetched is not None
    assert (fetched["checked"], len(fetched["verdicts"])) == (3, 3)
    assert pair.server.requests == ["ok", "start", "status", "status", "report"]
    assert pair.notes == []


def test_the_end_is_waited_for_at_the_checker_and_not_slept_through(pair: Pair) -> None:
    began = pair.clock.monotonic()
    pair.server.order("status", Answer(200, status("COMPLETED")))
    pair.client.wait_for_end("check-1")
    assert pair.clock.monotonic() == began


@pytest.mark.parametrize("word", sorted(TERMINAL))
def test_every_terminal_status_ends_the_waiting(pair: Pair, word: str) -> None:
    pair.server.order("status", Answer(200, status(word, "a reason")))
    last = pair.client.wait_for_end("check-1", limit=10)
    assert (last.status, last.reason, last.ended) == (word, "a reason", True)


@pytest.mark.parametrize("word", sorted(GOING_ON))
def test_no_other_status_does(pair: Pair, word: str) -> None:
    pair.server.order("status", Answer(200, status(word)))
    with pytest.raises(CheckerError, match="did not end within 10 s"):
        pair.client.wait_for_end("check-1", limit=10)
    assert pair.clock.monotonic() <= 10


@pytest.mark.parametrize(
    "body",
    ["", "null", "[]", "{", "<html></html>", {}, {"status": None}, {"status": 7}, {"status": "DONE"}, {"detail": "x"}],
)
def test_a_garbled_status_answer_does_not_end_a_check(pair: Pair, body: str) -> None:
    pair.server.order("status", Answer(200, body, seconds=100))
    assert pair.client.wait_for_end("check-1").status == "COMPLETED"
    assert len(pair.notes) == 1


def test_failing_answers_count_in_a_row_only(pair: Pair) -> None:
    for _ in range(4):
        pair.server.order("status", Answer(500, "", seconds=100), Answer(200, status("RUNNING"), times=1))
    assert pair.client.wait_for_end("check-1").status == "COMPLETED"
    assert pair.clock.monotonic() > 400


def test_failing_answers_are_not_put_up_with_for_ever(pair: Pair) -> None:
    pair.server.order("status", Answer(502, "<html>Bad Gateway</html>"))
    with pytest.raises(CheckerError, match=r"could not be had for 1\d\d s; at last: 502"):
        pair.client.wait_for_end("check-1")
    assert 120 <= pair.clock.monotonic() <= 125


def test_the_limit_holds_while_answers_fail(pair: Pair) -> None:
    pair.server.order("status", Answer(500, ""))
    with pytest.raises(CheckerError, match="did not end within 30 s"):
        pair.client.wait_for_end("check-1", limit=30)


def test_a_checker_that_is_not_there_is_waited_for_and_named() -> None:
    clock, server = FakeClock(), FakeChecker()
    client = Checker(server.url, API_KEY, clock=clock)
    with pytest.raises(CheckerError, match=r"not ready within 300 s; at last: no connection"):
        client.wait_until_ready()
    client.close()
    server.stop()
    assert 300 <= clock.monotonic() <= 301


def test_a_wrong_key_is_told_at_once(pair: Pair) -> None:
    client = Checker(pair.server.url, "another key" * 4, clock=pair.clock)
    with pytest.raises(CheckerError, match=r"refused the key \(401\)"):
        client.wait_until_ready()
    client.close()
    assert pair.clock.slept == []


def test_no_message_holds_the_key(pair: Pair) -> None:
    pair.server.order("start", Answer(cut=True))
    with pytest.raises(CheckerError) as told:
        pair.client.start()
    assert API_KEY not in str(told.value) + repr(told.value.__cause__) + "".join(pair.notes)


def test_a_hostile_answer_stays_on_one_line(pair: Pair) -> None:
    pair.server.order("start", Answer(400, "\x1b[2J\nrm -rf\r" + "x" * 5000))
    with pytest.raises(CheckerError) as told:
        pair.client.start()
    assert str(told.value).isprintable()
    assert len(str(told.value)) < 400


@pytest.mark.parametrize("answer", [Answer(401, "{}"), Answer(403, "{}"), Answer(404, "{}"), Answer(422, "{}")])
def test_a_refused_start_is_not_repeated(pair: Pair, answer: Answer) -> None:
    pair.server.order("start", answer)
    with pytest.raises(CheckerError, match=f"did not start a check: {answer.status}"):
        pair.client.start()
    assert pair.server.requests == ["start"]


@pytest.mark.parametrize(
    "answer", [Answer(500, ""), Answer(429, ""), Answer(200, "{}"), Answer(307, ""), Answer(cut=True)]
)
def test_a_start_that_failed_is_tried_again(pair: Pair, answer: Answer) -> None:
    pair.server.order("start", Answer(answer.status, answer.body, times=2, cut=answer.cut))
    assert pair.client.start() == "check-1"
    assert len(pair.server.requests) == 3
    assert len(pair.notes) == 2


@pytest.mark.parametrize(
    "broken",
    [
        {"verdicts": "all of them"},
        {"verdicts": [{"item_id": "1"}]},
        {"verdicts": [None]},
        {"failures": [{}]},
        {"by_type": ["jobs"]},
        {"checked": "many"},
    ],
)
def test_a_report_of_another_form_is_refused_before_it_reaches_the_history(
    pair: Pair, broken: dict[str, object]
) -> None:
    pair.server.order("report", Answer(200, report() | broken))
    with pytest.raises(CheckerError, match="has not the form of a report"):
        pair.client.report("check-1")


def test_a_report_keeps_only_what_the_history_may_hold(pair: Pair) -> None:
    told = report(1)
    told["verdicts"][0] |= {"text": "a person's text", "item_id": 12, "is_spam": "false"}
    pair.server.order("report", Answer(200, told))
    fetched = pair.client.report("check-1")
    assert fetched is not None
    (verdict,) = fetched["verdicts"]
    assert "text" not in verdict
    assert (verdict["item_id"], verdict["is_spam"]) == ("12", False)


def test_a_checker_without_reports_is_no_fault(pair: Pair) -> None:
    pair.server.order("report", Answer(404, {"detail": "Not Found"}))
    assert pair.client.report("check-1") is None


def test_a_report_that_fails_is_tried_again_and_then_given_up(pair: Pair) -> None:
    pair.server.order("report", Answer(500, "", times=3))
    assert pair.client.report("check-1") is not None
    pair.server.order("report", Answer(500, ""))
    with pytest.raises(CheckerError, match="could not be fetched: 500"):
        pair.client.report("check-1")


def test_readiness_needs_the_checkers_own_words(pair: Pair) -> None:
    pair.server.order(
        "ok", Answer(200, {"status": "fine"}, times=1), Answer(200, "ok", times=1), Answer(503, "", times=1)
    )
    for _ in range(3):
        assert pair.client.readiness() is not None
    assert pair.client.readiness() is None


class Raw:
    """Something that listens where the checker should, and sends what it likes."""

    def __init__(self, send: Callable[[socket.socket], None]) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._send = send
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            connection.recv(65536)
            self._send(connection)

    def close(self) -> None:
        self._listener.close()


@contextmanager
def raw(send: Callable[[socket.socket], None]) -> Iterator[str]:
    server = Raw(send)
    try:
        yield server.url
    finally:
        server.close()


def drip(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n")
    for _ in range(600):
        connection.sendall(b" ")
        threading.Event().wait(0.1)


def test_a_checker_that_drips_bytes_does_not_keep_the_server_on() -> None:
    with raw(drip) as url:
        checker = Checker(url, API_KEY, call_seconds=0.6)
        with pytest.raises(CheckerError, match="no answer in time"):
            checker.status("check-1")
        with pytest.raises(CheckerError, match="no answer in time"):
            checker.wait_until_ready(1)


def test_a_report_without_end_is_not_read_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def flood(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            connection.sendall(b"10000\r\n" + b" " * 0x10000 + b"\r\n")

    monkeypatch.setattr("spamops.checker.REPORT_BYTES", 1024 * 1024)
    with raw(flood) as url, pytest.raises(CheckerError, match="more than 1024 KiB"):
        Checker(url, API_KEY, clock=FakeClock()).report("check-1")


@pytest.mark.parametrize(
    "body",
    [b'{"status": ' + b"[" * 100_000, b'{"status": ' + b"9" * 5000 + b"}", b"\xff\xfe", b"[]", b""],
    ids=["deep", "digits", "not UTF-8", "a list", "empty"],
)
def test_a_garbled_answer_is_one_that_is_asked_again(body: bytes) -> None:
    def answer(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body)

    with raw(answer) as url, pytest.raises(CheckerError):
        Checker(url, API_KEY).status("check-1")


def test_what_a_report_says_cannot_drive_the_terminal_or_make_numbers_up() -> None:
    with FakeChecker() as fake:
        hostile = report(1)
        hostile["by_type"] = {"\x1b]0;PWN\x07jobs": {"spam": 1}}
        hostile["verdicts"][0]["item_id"] = "7\x1b[2J"
        fake.order("report", Answer(body=hostile))
        told = Checker(fake.url, API_KEY).report("check-1")
        assert told is not None
        assert "\x1b" not in str(told)
    for nonsense in ({"checked": -5}, {"checked": 7}, {"classify_seconds": float("inf")}, {"checked": 10**30}):
        with FakeChecker() as fake:
            fake.order("report", Answer(body=json.dumps(report(1) | nonsense)))
            with pytest.raises(CheckerError, match="form of a report"):
                Checker(fake.url, API_KEY, clock=FakeClock()).report("check-1")


def test_a_worker_that_died_ends_the_wait_long_before_the_limit() -> None:
    with FakeChecker() as fake:
        silent = status("RUNNING") | {"worker_silent_seconds": 131.0}
        fake.order("status", Answer(body=silent))
        with pytest.raises(CheckerError, match="no sign of life for 131 s"):
            Checker(fake.url, API_KEY, clock=FakeClock()).wait_for_end("check-1", limit=3600, grace=120)
