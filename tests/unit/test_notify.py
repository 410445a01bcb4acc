"""Notifiers: people are told, secrets are not, and a broken notifier costs no more than its time."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from notice_board import SECRET, NoticeBoard
from scene import write_settings

from spamops import cli, notify
from spamops.notify import Message
from spamops.sandbox.cloud import SandboxCloud

LIMIT = 20.0
MESSAGE = Message("spamops: gpu: a title", "a body", "failure")


@pytest.fixture
def board() -> Iterator[NoticeBoard]:
    with NoticeBoard() as made:
        yield made


def test_a_message_arrives_as_it_was_written(board: NoticeBoard) -> None:
    (delivery,) = notify.send([board.url()], [MESSAGE, Message("two", "more", "success")], LIMIT)
    assert delivery.delivered
    assert [(one["title"], one["message"], one["type"]) for one in board.received] == [
        ("spamops: gpu: a title", "a body", "failure"),
        ("two", "more", "success"),
    ]


@pytest.mark.parametrize("way", ["hang", "drip"])
def test_a_notifier_that_does_not_end_is_left_behind_and_holds_up_no_other(board: NoticeBoard, way: str) -> None:
    began = time.monotonic()
    deliveries = notify.send([board.url(way), board.url("take")], [MESSAGE], 4.0)
    assert time.monotonic() - began < 8.0
    assert [delivery.delivered for delivery in deliveries] == [False, True]
    assert len(board.received) == 1


def test_what_a_broken_notifier_says_is_not_shown_and_its_address_neither(
    board: NoticeBoard, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    urls = [board.url("fail"), f"nonsense://{SECRET}/x", f"json://127.0.0.1:9/{SECRET}", "mailto://", "json://[::bad/x"]
    with caplog.at_level(logging.DEBUG):
        deliveries = notify.send(urls, [MESSAGE], LIMIT)
    assert not any(delivery.delivered for delivery in deliveries)
    ours = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("spamops"))
    told = ours + "".join(capfd.readouterr()) + repr(deliveries)
    assert SECRET not in told
    assert "the notifier nonsense#" in told
    assert len({delivery.label for delivery in deliveries}) == len(urls)


def test_a_process_that_cannot_be_started_is_no_fault_of_the_run(
    board: NoticeBoard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify.sys, "executable", "/no/such/python")
    assert [delivery.delivered for delivery in notify.send([board.url()], [MESSAGE], LIMIT)] == [False]


def test_nothing_is_started_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify.sys, "executable", "/no/such/python")
    assert notify.send([], [MESSAGE], LIMIT) == []
    assert notify.send(["json://x"], [], LIMIT) == []


@pytest.mark.parametrize(
    "hostile",
    [
        "<!channel> <@U123> @everyone",
        "*bold* _x_ ~s~ `code` [click](http://evil.example/x)",
        "<script>alert(1)</script><img src=x onerror=y>",
        "line\r\nSubject: injected\x1b[31m\u202e",
        "https://evil.example/" + "a" * 5000,
        "{{ 7*7 }} ${HOME} $(id) | & ; !",
    ],
)
def test_hostile_text_does_nothing_in_a_message(hostile: str) -> None:
    text = notify.harmless(hostile)
    assert len(text) <= notify.TEXT_CHARACTERS
    assert not set(text) & set("<>@*`~[]{}|&!$\\\r\n\x1b\u202e")
    assert "://" not in text


def test_the_address_is_taken_from_the_secret_file_and_tested(
    board: NoticeBoard, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with SandboxCloud([]) as cloud:
        config = str(
            write_settings(
                tmp_path, cloud, "gpu", "http://127.0.0.1:9", notify_urls=["# mine", board.url(), board.url("fail")]
            )
        )
    assert code_of("notify", "--test", "--config", config) == 10
    out, err = capsys.readouterr()
    assert "This is a test" in board.texts
    assert sorted(line.split(": ")[-1] for line in out.splitlines()[2:]) == ["NOT delivered", "delivered"]
    assert SECRET not in out + err
    (tmp_path / "secrets" / "spamops_notify_urls").write_text(board.url() + "\n")
    assert code_of("notify", "--test", "--json", "--config", config) == 0
    (told,) = json.loads(capsys.readouterr().out)["deliveries"]
    assert told["delivered"]
    assert code_of("notify", "--digest", "7", "--config", config) == 0
    assert "0 runs, 0 of them failed" in board.texts


def test_without_a_notifier_the_test_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with SandboxCloud([]) as cloud:
        config = str(write_settings(tmp_path, cloud, "gpu", "http://127.0.0.1:9"))
    assert code_of("notify", "--test", "--config", config) == 10
    assert "spamops_notify_urls in secrets_dir" in capsys.readouterr().err


def test_a_faulty_address_is_refused_before_anything_is_touched_and_not_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with SandboxCloud([]) as cloud:
        config = str(
            write_settings(tmp_path, cloud, "gpu", "http://127.0.0.1:9", notify_urls=["json://fine", f"oh {SECRET}"])
        )
    assert code_of("run", "--config", config) == 2
    err = capsys.readouterr().err
    assert "notify_urls line 2 is no address of Apprise" in err
    assert SECRET not in err


def test_addresses_do_not_belong_in_the_settings_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with SandboxCloud([]) as cloud:
        config = write_settings(tmp_path, cloud, "gpu", "http://127.0.0.1:9")
    config.write_text(config.read_text() + f'notify_urls = ["json://x/{SECRET}"]\n')
    assert code_of("run", "--config", str(config)) == 2
    err = capsys.readouterr().err
    assert "put it in a file spamops_notify_urls" in err
    assert SECRET not in err


def code_of(*arguments: str) -> int:
    """What the command exits with."""
    with pytest.raises(SystemExit) as ended:
        cli.main(list(arguments))
    assert isinstance(ended.value.code, int)
    return ended.value.code
