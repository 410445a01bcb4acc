"""`spamops doctor`: what it tells of each thing that a run needs, that one that hangs holds nothing up, and that it touches
nothing."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fake_checker import API_KEY, Answer, FakeChecker
from scene import write_settings
from some_history import some_history
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from spamops import cli, doctor
from spamops.doctor import cloud as cloud_examination
from spamops.doctor import controller, runner, schedule
from spamops.doctor.findings import Finding, Level, Tell, ok
from spamops.doctor.patient import Patient
from spamops.errors import ExitCode
from spamops.ledger import Ledger
from spamops.lock import ServerLock
from spamops.sandbox.cloud import SandboxCloud, ServerSpec
from spamops.sandbox.http import LoopbackServer
from spamops.sandbox.keystone import AccessRule, Credential
from spamops.summary import Summary, finish

pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore:.*:PendingDeprecationWarning")
LIMIT = 60.0
NAMES = {name for examination in runner.EXAMINATIONS for name in examination.names}
DETAIL = {
    "status": "ok", "classifier": "cascade", "models": {"llama3.2": "loaded", "llama3.1": "not loaded"},
    "journal": "ok", "temporal": "ok", "worker": "ok",
}  # fmt: skip


class World:
    """A controller, its cloud with one server, and its checker."""

    def __init__(self, folder: Path, cloud: SandboxCloud, spec: ServerSpec, checker: FakeChecker) -> None:
        self.folder, self.cloud, self.server, self.checker = folder, cloud, spec.id, checker

    def config(self, **more: Any) -> Path:
        """The settings file."""
        return write_settings(self.folder, self.cloud, more.pop("server", self.server), self.checker.url, **more)

    def examine(self, **more: Any) -> dict[str, Finding]:
        """What the doctor finds, by name."""
        found = doctor.examine(self.config(**more), LIMIT)
        assert [finding.name for finding in found] == [name for e in runner.EXAMINATIONS for name in e.names]
        for finding in found:
            assert API_KEY not in f"{finding.text} {finding.advice}"
            assert self.cloud.credential.secret not in f"{finding.text} {finding.advice}"
            assert finding.advice or finding.level in (Level.OK, Level.SKIPPED, Level.FAIL)
        return {finding.name: finding for finding in found}

    def rules(self, *left_out: str) -> Credential:
        """A credential with the access rules of docs/website.md, but for those whose path ends so."""
        path = f"/v2.1/servers/{self.server}"
        rules = [AccessRule("GET", path), AccessRule("POST", f"{path}/action"), AccessRule("GET", f"{path}/os-instance-actions"),
                 AccessRule("GET", f"{path}/os-instance-actions/*")]  # fmt: skip
        credential = Credential(
            name="restricted",
            access_rules=tuple(rule for rule in rules if not any(rule.path.endswith(end) for end in left_out)),
        )
        self.cloud.keystone.add(credential)
        return credential


def world_of(folder: Path, status: str) -> Iterator[World]:
    spec = ServerSpec(status=status)
    checker = FakeChecker(on=False)
    with SandboxCloud([spec], on_power=checker.power) as cloud, checker:
        yield World(folder, cloud, spec, checker)


@pytest.fixture
def asleep(tmp_path: Path) -> Iterator[World]:
    """The server is shelved."""
    yield from world_of(tmp_path, "SHELVED_OFFLOADED")


@pytest.fixture
def awake(tmp_path: Path) -> Iterator[World]:
    """The server is on."""
    yield from world_of(tmp_path, "ACTIVE")


def test_a_sleeping_server_is_neither_woken_nor_asked_and_all_is_well(asleep: World) -> None:
    found = asleep.examine(credential=asleep.rules(), budget_day_units=100.0)
    assert set(found) == NAMES
    assert {name for name, finding in found.items() if finding.level is Level.FAIL} == set()
    for name in ("settings", "secret files", "credential", "server", "access rules", "action log", "clock", "state folder",
                 "history", "alarms", "budget"):  # fmt: skip
        assert found[name].level is Level.OK, found[name]
    for name in ("checker", "worker", "temporal", "models"):
        assert found[name].text == "the server is SHELVED_OFFLOADED: asleep, not asked"
    assert found["quota"].level is Level.SKIPPED
    assert "may not read it (401)" in found["quota"].text
    assert asleep.checker.requests == []
    assert [status for _, status, *_ in asleep.cloud.history(asleep.server)] == ["SHELVED_OFFLOADED"]
    assert not list((asleep.folder / "state").glob("*")) or not (asleep.folder / "state" / "ledger.db").exists()


def test_a_server_that_is_on_is_asked_for_all_its_parts(awake: World) -> None:
    awake.checker.order("ok", Answer(200, DETAIL))
    found = awake.examine()
    assert found["checker"].level is Level.OK
    assert (found["worker"].text, found["temporal"].text) == ("answers", "answers")
    assert found["models"] == ok("models", "llama3.2: loaded, llama3.1: not loaded")
    assert awake.checker.requests == ["ok"]
    assert found["server"].level is Level.WARN
    assert "it costs money, and no run of this controller is active" in found["server"].text
    lock = ServerLock(awake.folder / "state", awake.server)
    lock.acquire()
    assert awake.examine()["server"].level is Level.OK
    lock.release()


@pytest.mark.parametrize(
    ("answer", "name", "level", "says"),
    [
        (Answer(401, {}), "checker", "fail", "refused the key (401)"),
        (Answer(200, "<p>nginx"), "checker", "fail", "not the checker's own answer"),
        (Answer(cut=True), "checker", "fail", "the connection broke"),
        (Answer(503, {"reasons": ["Temporal is away"]}), "checker", "fail", "is not ready: Temporal is away"),
        (Answer(503, DETAIL | {"temporal": "no\x1b[31m answer"}), "temporal", "fail", "no [31m answer"),
        (Answer(503, DETAIL | {"worker": "no worker has started"}), "worker", "fail", "no worker has started"),
        (Answer(200, DETAIL | {"models": {"llama3.2": "missing"}}), "models", "fail", "llama3.2: missing"),
        (Answer(200, DETAIL | {"models": {}}), "models", "warn", "has named none"),
        (Answer(200, DETAIL | {"classifier": "rules", "models": {}}), "models", "warn", "rules alone"),
        (Answer(200, {"status": "ok"}), "models", "skipped", "does not tell"),
    ],
)
def test_each_part_of_the_checker_that_is_not_well_is_told(
    awake: World, answer: Answer, name: str, level: str, says: str
) -> None:
    awake.checker.order("ok", answer)
    found = awake.examine()[name]
    assert found.level == level
    assert says in found.text
    assert level != "fail" or found.advice


@pytest.mark.parametrize(
    ("left_out", "name", "level"),
    [("/action", "access rules", "fail"), ("/os-instance-actions", "action log", "warn")],
)
def test_a_rule_that_a_run_would_miss_is_named_before_the_run(
    asleep: World, left_out: str, name: str, level: str
) -> None:
    found = asleep.examine(credential=asleep.rules(left_out))
    assert found[name].level == level
    assert left_out in found[name].text
    assert found["server"].level is Level.OK


def test_a_credential_that_cannot_even_look_is_told_with_its_rule(asleep: World) -> None:
    found = asleep.examine(credential=asleep.rules(asleep.server))
    assert found["credential"].level is Level.OK
    assert found["server"].level is Level.FAIL
    assert f"method GET, path /v2.1/servers/{asleep.server}" in found["server"].text
    assert found["access rules"].level is Level.SKIPPED


def test_a_credential_that_may_do_more_than_a_run_needs_is_told(asleep: World) -> None:
    found = asleep.examine()
    assert found["quota"].level is Level.WARN
    assert "1 of 10 instances" in found["quota"].text
    assert "no access rules restrict it" in found["quota"].text


@pytest.mark.parametrize("fault", ["wrong secret", "reader", "no cloud", "wrong server", "by name"])
def test_what_is_wrong_with_the_cloud_is_told_once_and_the_rest_is_skipped(asleep: World, fault: str) -> None:
    credential = asleep.cloud.credential
    more: dict[str, Any] = {}
    if fault == "wrong secret":
        more["credential"] = replace(credential, secret="x" * 40)
    elif fault == "reader":
        more["credential"] = Credential(name="reader", roles=("reader",))
        asleep.cloud.keystone.add(more["credential"])
    elif fault == "wrong server":
        more["server"] = "00000000-0000-4000-8000-000000000000"
    elif fault == "by name":
        more["server"] = ServerSpec().name
    else:
        more["auth_url"] = "http://127.0.0.1:9/identity/v3"
    found = asleep.examine(**more)
    bad = {name: f for name, f in found.items() if f.level is Level.FAIL}
    if fault == "reader":
        assert set(bad) == {"credential"}
        assert "roles reader" in bad["credential"].text
    elif fault == "by name":
        assert not bad
        assert found["server"].level is Level.WARN
        assert asleep.server in found["server"].text
    elif fault == "wrong server":
        assert set(bad) == {"server"}
        assert found["access rules"].level is Level.SKIPPED
    else:
        assert set(bad) == {"credential"}
        assert {found[name].level for name in ("server", "access rules", "action log", "quota", "checker")} == {
            "skipped"
        }


def test_a_server_that_no_run_can_use_is_told(tmp_path: Path) -> None:
    for world in world_of(tmp_path, "ERROR"):
        found = world.examine()
        assert found["server"].level is Level.FAIL
        assert "ERROR" in found["server"].text
        assert found["checker"].level is Level.SKIPPED


def test_faulty_settings_are_all_told_and_what_needs_none_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    some_history(tmp_path / "state")
    config = tmp_path / "spamops.toml"
    config.write_text('server = ""\nchecker_url = "nowhere"\nstate_dir = "state"\nnonsense = 1\n')
    found = {finding.name: finding for finding in doctor.examine(config, LIMIT)}
    assert found["settings"].level is Level.FAIL
    for word in ("server", "checker_url", "api_key is not set", "nonsense is not a setting"):
        assert word in found["settings"].text
    assert found["state folder"].level is Level.OK
    assert found["history"].level is Level.WARN
    assert found["credential"].level is Level.SKIPPED


@pytest.mark.parametrize(
    ("key", "level"),
    [("a" * 40, "warn"), ("0123456789abcdef" * 3, "warn"), ("changeme-changeme-changeme-12345678", "warn"),
     ("6f1d0c93b7a84e25f0c1d2e3a4b59687", "ok")],
)  # fmt: skip
def test_a_key_that_nobody_drew_is_told(asleep: World, key: str, level: str) -> None:
    found = {finding.name: finding for finding in doctor.examine(asleep.config(api_key=key), LIMIT)}
    assert found["key"].level == level
    assert all(key not in f"{f.text}{f.advice}" for f in found.values())


@pytest.mark.parametrize(
    ("mode", "level"), [(0o600, "ok"), (0o640, "ok"), (0o644, "warn"), (0o660, "warn"), (0o602, "fail")]
)
def test_a_secret_file_that_others_reach_is_told(asleep: World, mode: int, level: str) -> None:
    config = asleep.config()
    path = asleep.folder / "secrets" / "llm_spam_check_api_key"
    path.chmod(mode)
    patient = Patient(config, LIMIT)
    told: dict[str, Finding] = {}
    controller.settings_and_secrets(patient, lambda finding: told.update({finding.name: finding}))
    assert told["secret files"].level == level
    assert level == "ok" or str(path) in told["secret files"].text


def test_the_history_and_the_alarms_are_told(asleep: World) -> None:
    ledger = Ledger(asleep.folder / "state")
    now = datetime.now(UTC)

    def run(code: ExitCode, at: datetime) -> None:
        made = Summary(server=asleep.server)
        finish(made, code, "it went wrong" if code else None)
        ledger.end(ledger.begin(asleep.server, "command", at, 16.0), made, at)

    run(ExitCode.DONE, now - timedelta(days=9))
    assert "what was posted since then" in (asleep.examine()["history"].advice or "")
    run(ExitCode.CHECKER_FAILED, now)
    run(ExitCode.CHECKER_FAILED, now)
    ledger.raise_alarm(asleep.server, "check_failed", "t", 3, now, again=True)
    found = asleep.examine()
    assert "the last 2 runs failed" in found["history"].text
    assert "it went wrong" in found["history"].text
    assert (found["alarms"].level, found["history"].level) == (Level.WARN, Level.WARN)
    run(ExitCode.DONE, now)
    ledger.raise_alarm(asleep.server, "server_not_shelved", "t", 3, now, again=True)
    found = asleep.examine()
    assert (found["alarms"].level, found["history"].level) == (Level.FAIL, Level.OK)


def test_a_spent_budget_and_one_that_is_missing_are_told(asleep: World) -> None:
    assert "no limit is set" in asleep.examine()["budget"].text
    ledger, now = Ledger(asleep.folder / "state"), datetime.now(UTC)
    made = Summary(server=asleep.server, active_seconds=3600.0, service_units=16.0)
    made.server_timeline = [{"at": now.isoformat(), "status": "ACTIVE", "task_state": None, "seconds": 3600.0}]
    finish(made, ExitCode.DONE, None)
    ledger.end(ledger.begin(asleep.server, "command", now, 16.0), made, now)
    assert asleep.examine(budget_month_units=10.0)["budget"].level is Level.FAIL
    assert asleep.examine(budget_month_units=1000.0)["budget"].level is Level.OK


def test_a_history_that_cannot_be_read_is_told(asleep: World) -> None:
    (asleep.folder / "state").mkdir()
    (asleep.folder / "state" / "ledger.db").write_text("not a database" * 100)
    found = asleep.examine()
    assert {found[name].level for name in ("history", "alarms", "budget")} == {Level.FAIL}


SITE_KEY = "a-right-key"


def site_of(answers: dict[str | None, int], default: int) -> LoopbackServer:
    async def batch(request: Request) -> Response:
        status = answers.get(request.headers.get("x-api-key"), default)
        return JSONResponse([{"email": "somebody@example.org"}], status)

    return LoopbackServer(Starlette(routes=[Route("/api/spam/get-latest-batch/", batch)]))


@pytest.mark.parametrize(
    ("answers", "default", "level", "says"),
    [
        ({API_KEY: 200}, 401, "ok", "takes the key, and neither"),
        ({API_KEY: 200, "unconfigured": 200}, 401, "fail", "well-known key"),
        ({}, 200, "fail", "answers to no key"),
        ({}, 401, "fail", "answered 401 to the key"),
        ({}, 400, "fail", "answered 400"),
        ({}, 500, "fail", "answered 500"),
    ],
)
def test_the_site_is_asked_whether_it_takes_the_key_and_no_other(
    asleep: World, answers: dict[str | None, int], default: int, level: str, says: str
) -> None:
    site = site_of(answers, default)
    site.start()
    try:
        found = asleep.examine(site_url=site.url)["site"]
    finally:
        site.stop()
    assert found.level == level
    assert says in found.text
    assert "somebody" not in found.text
    assert default != 400 or "allowed hosts" in (found.advice or "")


def test_a_site_that_is_away_is_told(asleep: World) -> None:
    assert asleep.examine(site_url="http://127.0.0.1:9")["site"].level is Level.FAIL


@pytest.mark.parametrize(
    ("seconds", "level"),
    [(0, "ok"), (0.9, "ok"), (-0.9, "ok"), (30, "warn"), (-30, "warn"), (-4000, "fail"), (4000, "fail")],
)
def test_a_clock_that_is_wrong_is_told_and_a_rounded_date_is_not(seconds: float, level: str) -> None:
    asked = datetime(2026, 11, 21, 10, 0, 0, 500_000, tzinfo=UTC)
    theirs = (asked - timedelta(seconds=seconds)).replace(microsecond=0)
    found = cloud_examination._skew(theirs, asked, asked + timedelta(milliseconds=300))
    assert found.level == level


def test_notifiers_are_read_and_never_shown(asleep: World) -> None:
    found = asleep.examine(
        notify_urls=["json://user:planted-pass@127.0.0.1/planted-path", "nosuchscheme://planted-token"]
    )
    assert found["notifiers"].level is Level.WARN
    assert "nosuchscheme#" in found["notifiers"].text
    assert "planted" not in found["notifiers"].text
    found = asleep.examine(notify_urls=["json://user:planted-pass@127.0.0.1/planted-path"])
    assert found["notifiers"].level is Level.OK
    assert "planted" not in found["notifiers"].text
    assert asleep.examine()["notifiers"].level is Level.WARN


def test_ssh_is_looked_at_without_a_login(asleep: World, tmp_path: Path) -> None:
    key, hosts = tmp_path / "id", tmp_path / "hosts"
    more = {"ssh_host": "127.0.0.1", "ssh_key_file": str(key), "ssh_known_hosts": str(hosts)}
    assert asleep.examine()["ssh"].level is Level.SKIPPED
    assert "is not there" in asleep.examine(**more)["ssh"].text
    key.touch()
    key.chmod(0o644)
    assert "can be read by others" in asleep.examine(**more)["ssh"].text
    key.chmod(0o600)
    assert "the host key of 127.0.0.1 is not known" in asleep.examine(**more)["ssh"].text
    hosts.write_text("127.0.0.1 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl\n")
    assert asleep.examine(**more)["ssh"].level is Level.OK


SHOWN = "LoadState=loaded\nActiveState={active}\nUnitFileState={file}\nNextElapseUSecRealtime=tomorrow\nLastTriggerUSec=\nResult={result}\nExecMainStatus=4\n"


@pytest.mark.parametrize(
    ("active", "file", "result", "level"),
    [("active", "enabled", "success", "ok"), ("inactive", "enabled", "success", "warn"), ("active", "disabled", "success", "warn"),
     ("failed", "enabled", "exit-code", "warn")],
)  # fmt: skip
def test_the_timer_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, active: str, file: str, result: str, level: str
) -> None:
    text = SHOWN.format(active=active, file=file, result=result)
    (tmp_path / "systemctl").write_text(f"#!/bin/sh\ncat <<'END'\n{text}END\n")
    (tmp_path / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    found = schedule.by_systemd()
    assert found is not None
    assert found.level == level


def test_an_entry_of_cron_is_found_and_a_comment_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    (tmp_path / "cron.d").mkdir()
    entry = tmp_path / "cron.d" / "spamops"
    entry.write_text("# spamops run\n5 4 * * * root /bin/true\n")
    assert schedule.by_cron((tmp_path / "cron.d",)) is None
    entry.write_text("5 4 * * * spamops /opt/spamops/bin/spamops run --config /etc/spamops/spamops.toml\n")
    found = schedule.by_cron((tmp_path / "cron.d", tmp_path / "crontab"))
    assert found is not None
    assert str(entry) in found.text


def test_an_examination_that_hangs_or_breaks_holds_nothing_up(tmp_path: Path) -> None:
    def hangs(patient: Patient, tell: Tell) -> None:
        tell(ok("first", "told before it hung"))
        time.sleep(30)

    def breaks(patient: Patient, tell: Tell) -> None:
        raise RuntimeError("broken\x1b[31m")

    def quiet(patient: Patient, tell: Tell) -> None:
        """Tells nothing."""

    def well(patient: Patient, tell: Tell) -> None:
        tell(ok("well", "well"))

    began = time.monotonic()
    found = doctor.examine(
        tmp_path / "none",
        1.0,
        (
            runner.Examination(("first", "second"), hangs),
            runner.Examination(("third",), breaks),
            runner.Examination(("fourth",), quiet),
            runner.Examination(("well",), well),
        ),
    )
    assert time.monotonic() - began < 10
    assert [str(finding.level) for finding in found] == ["ok", "fail", "fail", "fail", "ok"]
    assert "no result within 1 s" in found[1].text
    assert "RuntimeError: broken" in found[2].text
    assert "\x1b" not in found[2].text


def test_the_command_tells_people_and_machines_and_ends_with_what_is_documented(
    asleep: World, capsys: pytest.CaptureFixture[str]
) -> None:
    def code_of(*arguments: str) -> Any:
        with pytest.raises(SystemExit) as ended:
            cli.main(["doctor", *arguments])
        return ended.value.code

    good = str(asleep.config())
    assert code_of("--config", good, "--json", "--seconds", "60") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["level"], told["exit_code"]) == ("warn", 0)
    assert {row["name"] for row in told["findings"]} == NAMES
    assert code_of("--config", good, "--seconds", "60") == 0
    out = capsys.readouterr().out
    assert "SHELVED_OFFLOADED" in out
    assert "→ " in out
    assert API_KEY not in out
    assert code_of("--config", str(asleep.config(server="nobody")), "--json", "--seconds", "60") == ExitCode.NOT_READY
    assert json.loads(capsys.readouterr().out)["level"] == "fail"
    assert code_of("--config", good, "--seconds", "0") == ExitCode.FAULTY_SETTINGS
