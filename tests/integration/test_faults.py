"""Every way in which a check run is known to go wrong: what the operator sees, the exit code, and where the server ends.

Each row arranges one fault with a real cloud API, a real checker API and the real openstacksdk between them, on a clock that
nobody waits for. `docs/faults.md` is this table for people; write it anew with WRITE_FAULTS_PAGE=1.
"""

from __future__ import annotations

import logging
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fake_checker import API_KEY, Answer, report, status
from notice_board import SECRET, NoticeBoard
from scene import Records, Scene, Told

from spamops import cycle
from spamops.checker import Checker
from spamops.cloud import FREE_STATUSES
from spamops.errors import ExitCode
from spamops.ledger import Ledger
from spamops.lock import ServerLock, holder
from spamops.sandbox import faults
from spamops.sandbox.cloud import AccessRule, Credential, Failure, HttpFault, ServerFault, ServerSpec
from spamops.summary import Summary, finish

PAGE = Path(__file__).resolve().parents[2] / "docs" / "faults.md"
OFFLOADED = "SHELVED_OFFLOADED"
ACTIONS = "/action$"
CONFLICT = {
    "conflictingRequest": {"code": 409, "message": "Cannot 'unshelve' instance ID while it is in task_state unshelving"}
}
QUOTA = {
    "forbidden": {
        "code": 403,
        "message": "Quota exceeded for instances: Requested 1, but already used 10 of 10 instances",
    }
}
HTML = "<html><body>Welcome to nginx!</body></html>"

pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore:.*:PendingDeprecationWarning")

Arrange = Callable[[Scene], None]


@dataclass(frozen=True)
class Row:
    """One fault. `says` stands in the reason of a run that failed, and in the progress lines of one that did not.

    `touched` False: the run ended before it was in the history. `costs` True: the server is left as it is although it
    may cost, for a reason that the row names, and not with exit code 7.
    """

    what: str
    code: int
    says: tuple[str, ...]
    ends: str = OFFLOADED
    spec: ServerSpec = field(default_factory=ServerSpec)
    arrange: Arrange = lambda _: None
    cloud: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    recorded: bool = True
    costs: bool = False


ROWS: list[Row] = []


def row(what: str, code: int, *says: str, ends: str = OFFLOADED, at: str = OFFLOADED, **more: Any) -> None:
    """A row without anything to arrange: the server is found in the status `at`."""
    spec = ServerSpec(status=at, **{k: more.pop(k) for k in ("task_state", "stuck", "locked") if k in more})
    ROWS.append(Row(what, code, says, ends, spec, **more))


def arranged(what: str, code: int, *says: str, **more: Any) -> Callable[[Arrange], Arrange]:
    """A row whose fault is arranged by the function below."""

    def register(arrange: Arrange) -> Arrange:
        row(what, code, *says, arrange=arrange, **more)
        return arrange

    return register


def ordered(what: str, code: int, *says: str, fault: faults.Fault | list[faults.Fault], **more: Any) -> None:
    """A row whose faults are ordered from the cloud."""
    wanted = fault if isinstance(fault, list) else [fault]
    row(what, code, *says, arrange=lambda scene: scene.cloud.order(*wanted), **more)


def answered(what: str, code: int, *says: str, route: str, by: Answer | list[Answer], **more: Any) -> None:
    """A row whose checker gives other answers."""
    answers = by if isinstance(by, list) else [by]
    # Fresh copies: an answer counts how often it was given.
    row(what, code, *says, arrange=lambda scene: scene.checker.order(route, *map(replace, answers)), **more)


# The server's state when the run begins

row("nothing wrong: the server is SHELVED_OFFLOADED", 0, "server SHELVED_OFFLOADED (unshelving)")
row("the server is ACTIVE already", 0, "server ACTIVE (shelving)", at="ACTIVE")
row("the server is SHELVED, on its host", 0, "server SHELVED (unshelving)", at="SHELVED")
row("the server is being shelved (shelving)", 0, "server ACTIVE (shelving)", at="ACTIVE", task_state="shelving")
row(
    "the server is being shelved (shelving_image_uploading)",
    0,
    "server ACTIVE (shelving_image_uploading)",
    at="ACTIVE",
    task_state="shelving_image_uploading",
)
row(
    "the server is being shelved (shelving_offloading)",
    0,
    "server SHELVED (shelving_offloading)",
    at="SHELVED",
    task_state="shelving_offloading",
)
row("somebody unshelves the server already", 0, "server SHELVED_OFFLOADED (unshelving)", task_state="unshelving")
row("the server is being built", 0, "server BUILD (spawning)", at="BUILD")
row("the server is SHUTOFF", 0, "server SHUTOFF (powering-on)", at="SHUTOFF")
row("the server is PAUSED", 0, "server PAUSED (unpausing)", at="PAUSED")
row("the server is SUSPENDED", 0, "server SUSPENDED (resuming)", at="SUSPENDED")
row("the server reboots", 0, "server REBOOT (rebooting)", at="REBOOT")
row("the server is in ERROR", 4, "the server is in ERROR", "left alone", ends="ERROR", at="ERROR", costs=True)
row("the server was deleted", 4, "no server", "in this project", ends="DELETED", at="DELETED")
row("the server is locked by an admin while it is shelved", 4, "locked by an admin", locked=True)
row(
    "the server is locked by an admin while it is ACTIVE",
    7,
    "locked by an admin",
    "Shelve it now",
    ends="ACTIVE",
    at="ACTIVE",
    locked=True,
)
row(
    "the server is stuck with its snapshot half uploaded",
    7,
    "only an admin of the cloud can reset a stuck task_state (shelving_image_pending_upload)",
    ends="ACTIVE",
    at="ACTIVE",
    task_state="shelving_image_pending_upload",
    stuck=True,
)
row(
    "the server is stuck while somebody else wakes it",
    4,
    "only an admin of the cloud can reset a stuck task_state (spawning)",
    task_state="spawning",
    stuck=True,
)


@arranged("no server of this name", 4, "no server nobody in this project")
def _(scene: Scene) -> None:
    scene.settings["server"] = "nobody"


@arranged("the server is given by its name", 0, "server ACTIVE")
def _(scene: Scene) -> None:
    scene.settings["server"] = "spamcheck"


@arranged("two servers have this name", 4, "several servers are called spamcheck", "give the id")
def _(scene: Scene) -> None:
    scene.settings["server"] = "spamcheck"
    scene.cloud.add_server(ServerSpec())


# Nova accepts, and fails

ordered("no capacity, once", 0, "no host free", fault=ServerFault(Failure.NO_CAPACITY))
ordered("no capacity for ever", 4, "no host free for the server now", fault=ServerFault(Failure.NO_CAPACITY, None))
ordered("the host cannot spawn the server, once", 0, "(try 1)", fault=ServerFault(Failure.SPAWN_FAILS))
ordered(
    "the host can never spawn the server",
    4,
    "Nova accepted 'unshelve' and failed",
    "event compute_unshelve_instance",
    fault=ServerFault(Failure.SPAWN_FAILS, None),
)
ordered(
    "the server's shelved image is gone",
    7,
    "the image",
    "cannot be found",
    ends="ERROR",
    fault=ServerFault(Failure.IMAGE_GONE),
)
ordered(
    "the compute service dies while the server spawns",
    7,
    "the server is in ERROR",
    ends="ERROR",
    fault=ServerFault(Failure.HOST_DIES_SPAWNING),
)
ordered("the compute service is away for 100 s", 0, "server ACTIVE", fault=ServerFault(Failure.HOST_AWAY, seconds=100))
ordered(
    "the server wakes after the limit has passed",
    4,
    "still SHELVED_OFFLOADED (spawning) after 300 s",
    fault=ServerFault(Failure.HOST_AWAY, seconds=400),
)
ordered(
    "the server gets stuck while it wakes",
    7,
    "stuck task_state (spawning)",
    "Shelve it now",
    fault=ServerFault(Failure.STUCK, task_state="spawning"),
)
ordered("the snapshot fails, once", 0, "Nova accepted 'shelve' and failed", fault=ServerFault(Failure.SNAPSHOT_FAILS))
ordered(
    "the snapshot fails ten times",
    0,
    "(try 10)",
    fault=ServerFault(Failure.SNAPSHOT_FAILS, 10),
    settings={"shelve_seconds": 900},
)
ordered(
    "the snapshot fails always",
    7,
    "Nova accepted 'shelve' and failed",
    "event compute_shelve_instance",
    "openstack server shelve",
    ends="ACTIVE",
    fault=ServerFault(Failure.SNAPSHOT_FAILS, None),
)
ordered(
    "shelving gets stuck",
    7,
    "still ACTIVE (shelving_image_uploading) after 900 s",
    ends="ACTIVE",
    fault=ServerFault(Failure.STUCK, task_state="shelving_image_uploading"),
    settings={"shelve_seconds": 900},
)
row("a cloud that never offloads", 0, "server SHELVED", ends="SHELVED", at="SHELVED", cloud={"shelved_offload": False})


@arranged("somebody deletes the server during the check", 0, "somebody deleted it during the run", ends="DELETED")
def _(scene: Scene) -> None:
    scene.checker.before("report", lambda: scene.cloud.force_state(scene.server_id, "DELETED"))


@arranged("somebody shelves the server during the check", 5, "the status of check-1 could not be had")
def _(scene: Scene) -> None:
    def shelve() -> None:
        scene.clock.after(1, lambda: scene.cloud.act(scene.server_id, "shelve"))
        scene.clock.after(60, scene.cloud.advance)

    scene.checker.order("status", Answer(200, status("RUNNING"), seconds=300))
    scene.checker.before("status", shelve)


@arranged("somebody stops the server while it wakes", 0, "server SHUTOFF (powering-on)")
def _(scene: Scene) -> None:
    def stop() -> None:
        scene.cloud.force_state(scene.server_id, "SHUTOFF")

    scene.clock.at(4, stop)


@arranged("the server falls into ERROR while it is shelved", 7, "the server is in ERROR", ends="ERROR")
def _(scene: Scene) -> None:
    scene.checker.before(
        "report", lambda: scene.clock.after(5, lambda: scene.cloud.force_state(scene.server_id, "ERROR"))
    )


# The cloud's API

ordered(
    "somebody else unshelves at the same moment (409)",
    0,
    "Nova refuses to unshelve the server (409)",
    fault=HttpFault(path=ACTIONS, action="unshelve", accepted=True, status=409, body=CONFLICT),
)
ordered(
    "somebody else unshelves at the same moment (500, lost race)",
    0,
    "trying again",
    fault=HttpFault(
        path=ACTIONS, action="unshelve", accepted=True, status=500,
        body=faults.compute_fault("nova.exception.UnexpectedTaskStateError"),
    ),
)  # fmt: skip
ordered(
    "Nova refuses to unshelve for ever (409)",
    4,
    "Nova refuses to unshelve the server (409)",
    fault=HttpFault(path=ACTIONS, action="unshelve", times=None, status=409, body=CONFLICT),
)
ordered(
    "the project's quota is used up",
    4,
    "quota",
    "10 of 10 instances",
    fault=HttpFault(path=ACTIONS, action="unshelve", times=None, status=403, body=QUOTA),
)
ordered("500 at the first look", 0, "looking at the server", fault=faults.internal_error())
ordered("500 at every look", 4, "MessagingTimeout", "looking at the server", fault=faults.internal_error(None))
ordered("500 when unshelving is asked for", 0, "asking for unshelve", fault=faults.internal_error(path=ACTIONS))
ordered(
    "500 whenever unshelving is asked for",
    4,
    "asking for unshelve",
    fault=HttpFault(path=ACTIONS, action="unshelve", times=None, status=500, body=faults.compute_fault()),
)
ordered(
    "500, although unshelving was accepted",
    0,
    "asking for unshelve",
    fault=faults.internal_error(path=ACTIONS, accepted=True),
)
ordered(
    "500 when shelving is asked for, three times",
    0,
    "asking for shelve",
    fault=HttpFault(path=ACTIONS, action="shelve", times=3, status=500, body=faults.compute_fault()),
)
ordered(
    "500 whenever shelving is asked for",
    7,
    "asking for shelve",
    "Shelve it now",
    ends="ACTIVE",
    fault=HttpFault(path=ACTIONS, action="shelve", times=None, status=500, body=faults.compute_fault()),
)
ordered(
    "500, although shelving was accepted",
    0,
    "asking for shelve",
    fault=HttpFault(path=ACTIONS, action="shelve", accepted=True, status=500, body=faults.compute_fault()),
)
ordered("the connection is cut before unshelving is accepted", 0, "asking for unshelve", fault=faults.cut(path=ACTIONS))
ordered(
    "the connection is cut after unshelving was accepted",
    0,
    "asking for unshelve",
    fault=faults.cut(path=ACTIONS, accepted=True),
)
ordered("429 with Retry-After", 0, "rate-limited", fault=faults.too_many_requests(17, 2))
ordered("503 with a page of HTML", 0, "looking at the server", fault=faults.unavailable(4))
ordered("an answer that is not JSON", 0, "without a status", fault=faults.garbage(2))
ordered(
    "JSON without a server in it",
    0,
    "without a status",
    fault=HttpFault(path="/servers/", times=2, status=200, body="{}"),
)
ordered(
    "null for a server", 0, "looking at the server", fault=HttpFault(path="/servers/", times=2, status=200, body="null")
)
ordered(
    "a page of HTML with 200 for a server",
    0,
    "without a status",
    fault=HttpFault(path="/servers/", times=2, status=200, body=HTML),
)
ordered(
    "a proxy's 404 while the server is shelved",
    0,
    "not in Nova's words",
    at="ACTIVE",
    fault=HttpFault(path="/servers/[^/]+$", skip=8, times=3, status=404, body=HTML),
)
ordered("every token is revoked during the run", 0, "server ACTIVE", fault=faults.revoked_token(skip=6))
row("the token expires during the run", 0, "server ACTIVE", cloud={"token_seconds": 8.0})


@arranged("the cloud does not answer in time", 0, "looking at the server")
def _(scene: Scene) -> None:
    scene.settings["api_seconds"] = 0.4
    scene.cloud.order(HttpFault(path="/compute/v2.1/servers", hang_seconds=20))


@arranged("unshelving does not answer in time although it began", 0, "asking for unshelve")
def _(scene: Scene) -> None:
    scene.settings["api_seconds"] = 0.4
    scene.cloud.order(faults.silent_broker(20))


@arranged("unshelving is answered with 500, and begins when the run has given up", 4, "asking for unshelve")
def _(scene: Scene) -> None:
    scene.settings["unshelve_seconds"] = 16
    scene.cloud.order(
        HttpFault(path=ACTIONS, action="unshelve", times=None, for_seconds=60, status=500, body=faults.compute_fault())
    )
    scene.clock.at(18, lambda: scene.cloud.act(scene.server_id, "unshelve"))


@arranged("the cloud's API is down when the run begins, for a minute", 0, "looking at the server")
def _(scene: Scene) -> None:
    scene.cloud.api_down()
    scene.clock.at(60, scene.cloud.api_up)


@arranged("the cloud's API is down from the beginning", 4, "the cloud does not answer as it should")
def _(scene: Scene) -> None:
    scene.cloud.api_down()


def cloud_goes_down(scene: Scene) -> None:
    """The API is gone from the moment the check has ended."""
    scene.checker.before("report", scene.cloud.api_down)


@arranged("the cloud's API is down for ten minutes when the server is to be shelved", 0, "looking at the server")
def _(scene: Scene) -> None:
    scene.settings["shelve_seconds"] = 900
    cloud_goes_down(scene)
    scene.clock.at(700, scene.cloud.api_up)


@arranged(
    "the cloud's API is down for good when the server is to be shelved", 7, "the cloud does not answer", ends="ACTIVE"
)
def _(scene: Scene) -> None:
    cloud_goes_down(scene)


# The credential


@arranged("a wrong application credential secret", 4, "refused the credential", "(401)")
def _(scene: Scene) -> None:
    scene.settings["credential"] = Credential(id=scene.cloud.credential.id)


@arranged("an application credential that Keystone does not know", 4, "does not know the credential", "(404)")
def _(scene: Scene) -> None:
    scene.settings["credential"] = Credential()


@arranged("an expired application credential", 4, "refused the credential", "(401)")
def _(scene: Scene) -> None:
    expired = Credential(expires_at=scene.clock.now() - timedelta(days=1))
    scene.settings["credential"] = scene.cloud.add_credential(expired)


@arranged("the credential may only read", 4, "not allowed to do this", "(403)")
def _(scene: Scene) -> None:
    scene.settings["credential"] = scene.cloud.add_credential(Credential(roles=("reader",)))


@arranged("the credential may not read", 4, "not allowed to do this", "os_compute_api:servers")
def _(scene: Scene) -> None:
    scene.settings["credential"] = scene.cloud.add_credential(Credential(roles=("member",)))


@arranged("access rules that do not allow actions", 4, "its access rules do not allow this call", "asking for unshelve")
def _(scene: Scene) -> None:
    rules = (AccessRule("GET", "/v2.1/servers/*"),)
    scene.settings["credential"] = scene.cloud.add_credential(Credential(access_rules=rules))


@arranged("access rules that do not allow the action log, and no capacity once", 0, "the action log could not be read")
def _(scene: Scene) -> None:
    rules = (AccessRule("GET", "/v2.1/servers/*"), AccessRule("POST", "/v2.1/servers/*/action"))
    scene.settings["credential"] = scene.cloud.add_credential(Credential(access_rules=rules))
    scene.cloud.order(ServerFault(Failure.NO_CAPACITY))


@arranged(
    "the credential is deleted during the check", 7, "does not know the credential", "Shelve it now", ends="ACTIVE"
)
def _(scene: Scene) -> None:
    scene.checker.before("report", scene.cloud.remove_credential)


# The checker


@arranged("the checker never answers", 5, "not ready within 300 s", "no connection")
def _(scene: Scene) -> None:
    scene.checker_listens = False


answered(
    "the checker never gets ready",
    5,
    "not ready within 300 s",
    "Temporal does not answer",
    route="ok",
    by=Answer(503, {"status": "not ready", "reasons": ["Temporal does not answer"]}),
)
answered(
    "the checker gets ready after two minutes",
    0,
    "no worker",
    route="ok",
    by=Answer(503, {"status": "not ready", "reasons": ["no worker"]}, seconds=120),
)
answered(
    "another service answers on the checker's port",
    5,
    "/ok answered 200, not the checker's own answer",
    route="ok",
    by=Answer(200, HTML),
)


@arranged("the checker has another key", 5, "refused the key (401)")
def _(scene: Scene) -> None:
    scene.settings["api_key"] = "another-key-than-the-one-that-the-checker-has"


answered(
    "starting the check fails once (500)", 0, "starting the check: 500", route="start", by=Answer(500, "oops", times=1)
)
answered(
    "starting the check fails always (500)", 5, "did not start a check: 500", route="start", by=Answer(500, "oops")
)
answered(
    "starting the check is refused (401)",
    5,
    "did not start a check: 401",
    route="start",
    by=Answer(401, {"detail": "Invalid API key"}),
)
answered("starting the check gives no workflow id", 5, "did not start a check: 200", route="start", by=Answer(200, {}))
answered(
    "starting the check gives a page of HTML", 5, "did not start a check: 200", route="start", by=Answer(200, HTML)
)
answered(
    "starting the check breaks the connection, once",
    0,
    "the connection broke",
    route="start",
    by=Answer(cut=True, times=1),
)
answered(
    "a check is active already",
    0,
    "3 checked so far",
    route="start",
    by=Answer(200, {"workflow_id": "check-1", "already_running": True}),
)
answered("the status is garbled for 60 s", 0, "asking for the status", route="status", by=Answer(200, "<%", seconds=60))
answered(
    "the status fails for 60 s (503)", 0, "asking for the status: 503", route="status", by=Answer(503, HTML, seconds=60)
)
answered(
    "the status fails for ever (500)",
    5,
    "the status of check-1 could not be had for",
    route="status",
    by=Answer(500, HTML),
)
answered(
    "the checker goes away during the check",
    5,
    "could not be had",
    "the connection broke",
    route="status",
    by=Answer(cut=True),
)
answered(
    "the checker has forgotten the check (404)",
    5,
    "could not be had",
    "404",
    route="status",
    by=Answer(404, {"detail": "unknown"}),
)
answered(
    "a status that Temporal does not have",
    5,
    "a status that Temporal does not have",
    route="status",
    by=Answer(200, status("DONE")),
)
answered(
    "the check fails",
    5,
    "the check check-1 ended FAILED: the site does not answer",
    route="status",
    by=Answer(200, status("FAILED", "the site does not answer")),
)
for word in ("CANCELED", "TERMINATED", "TIMED_OUT"):
    answered(f"the check ends {word}", 5, f"ended {word}", route="status", by=Answer(200, status(word)))
answered(
    "the check continues as new", 0, "workflow", route="status", by=Answer(200, {"status": "CONTINUED_AS_NEW"}, times=3)
)
answered(
    "the status is in lower case", 0, "3 checked so far", route="status", by=Answer(200, status("completed", checked=3))
)
answered(
    "the check never ends",
    5,
    "the check check-1 did not end within 3600 s",
    route="status",
    by=Answer(200, status("RUNNING", checked=1)),
)
answered(
    "the report cannot be had (500)",
    0,
    "warning: the report of check-1 could not be fetched: 500",
    route="report",
    by=Answer(500, "oops"),
)
answered(
    "the checker has no reports (404)", 0, "3 checked so far", route="report", by=Answer(404, {"detail": "Not Found"})
)
answered(
    "the report has another form",
    0,
    "has not the form of a report",
    route="report",
    by=Answer(200, report() | {"verdicts": [{"x": 1}]}),
)
answered(
    "some items failed", 6, "2 items failed; see: spamops show 1", route="report", by=Answer(200, report(3, failed=2))
)


# The controller itself


@arranged("a key that is too short", 2, "api_key has 5 characters", recorded=False)
def _(scene: Scene) -> None:
    scene.settings["api_key"] = "short"


@arranged(
    "several faulty settings",
    2,
    "api_key is the word 'unconfigured'",
    "checker_url",
    "did you mean check_seconds",
    recorded=False,
)
def _(scene: Scene) -> None:
    scene.settings |= {"api_key": "unconfigured", "checker_url": "not an address", "check_second": 10}


@arranged("another run of the same server is active", 3, "another run of", "process 4711", recorded=False)
def _(scene: Scene) -> None:
    held = ServerLock(scene.state_dir, scene.server_id)
    held.acquire(pid=4711)
    scene.at_end.append(held.release)


@arranged(
    "the history cannot be written when the run begins",
    2,
    "ledger.db cannot be opened",
    "nothing was touched",
    recorded=False,
)
def _(scene: Scene) -> None:
    (scene.state_dir / "ledger.db").mkdir(parents=True)


@arranged("the history is not a database", 2, "file is not a database", "nothing was touched", recorded=False)
def _(scene: Scene) -> None:
    scene.state_dir.mkdir()
    (scene.state_dir / "ledger.db").write_text("what is this? " * 500)


@arranged("the history's disk is full at the end", 8, "cannot be read or written", recorded=False)
def _(scene: Scene) -> None:
    scene.checker.order("report", Answer(200, report(2000)))

    def fill() -> None:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        size = (scene.state_dir / "ledger.db").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        scene.at_end.insert(0, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, before))

    scene.checker.before("report", fill)


@arranged("the history is removed during the run", 8, "has lost run 1", recorded=False)
def _(scene: Scene) -> None:
    scene.checker.before("report", (scene.state_dir / "ledger.db").unlink)


@arranged(
    "the history's folder is removed during the run, and a file is in its place", 8, "cannot be opened", recorded=False
)
def _(scene: Scene) -> None:
    def replace_folder() -> None:
        shutil.rmtree(scene.state_dir)
        scene.state_dir.write_text("")

    scene.checker.before("report", replace_folder)


@arranged("a defect in a step", 1, "RuntimeError: a defect")
def _(scene: Scene) -> None:
    scene.patch.setattr(Checker, "start", defect)


@arranged("the terminal is gone", 0, "")
def _(scene: Scene) -> None:
    class Gone:
        """A watcher whose terminal is gone."""

        step = server = checking = note = defect

    scene.watcher = Gone()


@arranged("--skip-shelving-when-done", 0, "3 checked so far", ends="ACTIVE", costs=True)
def _(scene: Scene) -> None:
    scene.options = cycle.Options(skip_shelving_when_done=True)


@arranged(
    "--skip-changing-instance-state, with the server on", 0, "3 checked so far", ends="ACTIVE", at="ACTIVE", costs=True
)
def _(scene: Scene) -> None:
    scene.options = cycle.Options(skip_changing_instance_state=True)


@arranged("--skip-changing-instance-state, with the server shelved", 5, "not ready within 300 s")
def _(scene: Scene) -> None:
    scene.options = cycle.Options(skip_changing_instance_state=True)


# The budget

PAST = Summary(
    server="",
    server_timeline=[{"at": "2026-03-01T00:30:00+00:00", "status": "ACTIVE", "task_state": None, "seconds": 3600.0}],
)
"""A run that cost 16 service units on the day of the scene."""


def spent_before(scene: Scene) -> None:
    """A run of today is in the history; it failed, and counts all the same."""
    ledger = Ledger(scene.state_dir)
    finish(PAST, ExitCode.CHECKER_FAILED, "before")
    began = scene.clock.now() - timedelta(hours=2)
    ledger.end(ledger.begin(scene.server_id, "command", began, 16.0), PAST, began + timedelta(hours=1))


@arranged("the day's budget is spent", 9, "budget_day_units: 16 service units a day", "The server was not woken")
def _(scene: Scene) -> None:
    scene.settings["budget_day_units"] = 16.0
    spent_before(scene)


@arranged("the month's budget is spent", 9, "budget_month_units", "possible from 2026-04-01 00:00 UTC on")
def _(scene: Scene) -> None:
    scene.settings["budget_month_units"] = 10.0
    spent_before(scene)


@arranged("the budget is spent and the server is ACTIVE", 9, "budget_day_units", at="ACTIVE")
def _(scene: Scene) -> None:
    scene.settings["budget_day_units"] = 16.0
    spent_before(scene)


@arranged("the budget lasts for this run", 0, "3 checked so far")
def _(scene: Scene) -> None:
    scene.settings |= {"budget_day_units": 17.0, "budget_month_units": 100.0, "budget_run_seconds": 600.0}
    spent_before(scene)


@arranged(
    "the day's budget is reached during the check", 9, "was ended in time (budget_day_units", "did not end within"
)
def _(scene: Scene) -> None:
    scene.settings["budget_day_units"] = 17.0
    spent_before(scene)
    scene.checker.order("status", Answer(200, status("RUNNING", checked=1)))


@arranged("the run's time is up while the server wakes", 9, "was ended in time (budget_run_seconds: 60 s a run)")
def _(scene: Scene) -> None:
    scene.settings["budget_run_seconds"] = 60.0
    scene.cloud.order(ServerFault(Failure.HOST_AWAY, seconds=100))


@arranged("the run's time is up before the checker is ready", 9, "was ended in time", "not ready within")
def _(scene: Scene) -> None:
    scene.settings["budget_run_seconds"] = 60.0
    scene.checker_listens = False


@arranged("the run's time is up and shelving fails", 7, "Nova accepted 'shelve'", "ended in time", ends="ACTIVE")
def _(scene: Scene) -> None:
    scene.settings["budget_run_seconds"] = 60.0
    scene.checker.order("status", Answer(200, status("RUNNING", checked=1)))
    scene.cloud.order(ServerFault(Failure.SNAPSHOT_FAILS, None))


def died_an_hour_ago(scene: Scene) -> None:
    """A run began, and then nothing more was heard of it."""
    Ledger(scene.state_dir).begin(scene.server_id, "command", scene.clock.now(), 16.0)
    scene.clock.sleep(3600)


@arranged("the controller of the run before died, and its server is on", 0, "server ACTIVE", at="ACTIVE")
def _(scene: Scene) -> None:
    scene.settings["budget_day_units"] = 100.0
    died_an_hour_ago(scene)


@arranged("the controller of the run before died, and what it cost is more than the budget", 9, "spent", at="ACTIVE")
def _(scene: Scene) -> None:
    scene.settings["budget_day_units"] = 10.0
    died_an_hour_ago(scene)


# Notifiers


def noticed(what: str, *urls: str) -> None:
    """A row whose check fails, so that an alarm is sent."""

    def arrange(scene: Scene) -> None:
        board = NoticeBoard()
        board.__enter__()
        scene.at_end.append(board.__exit__)
        addresses = [board.url(url[1:]) if url.startswith("/") else url for url in urls]
        scene.settings |= {"notify_urls": addresses, "notify_seconds": 5.0}
        scene.checker.order("status", Answer(200, status("FAILED", "no site")))

    row(what, 5, "ended FAILED: no site", arrange=arrange)


noticed("the check fails, and the notifier answers 500", "/fail")
noticed("the check fails, and the notifier never answers", "/hang")
noticed("the check fails, and the notifier never ends its answer", "/drip")
noticed("the check fails, and nobody listens at the notifier", "json://127.0.0.1:9/x")
noticed("the check fails, and Apprise does not know the notifier", "nonsense://somewhere/at/all")


@arranged("the metrics cannot be written", 0, "3 checked so far")
def _(scene: Scene) -> None:
    scene.settings["metrics_textfile"] = str(scene.folder / "no" / "such" / "folder" / "spamops.prom")


# Two at once


@arranged("the check fails and shelving fails", 7, "Nova accepted 'shelve'", "ended FAILED: no site", ends="ACTIVE")
def _(scene: Scene) -> None:
    scene.checker.order("status", Answer(200, status("FAILED", "no site")))
    scene.cloud.order(ServerFault(Failure.SNAPSHOT_FAILS, None))


@arranged("a defect in a step and shelving fails", 7, "does not answer", "RuntimeError: a defect", ends="ACTIVE")
def _(scene: Scene) -> None:
    scene.patch.setattr(Checker, "report", defect)
    cloud_goes_down_at_status(scene)


@arranged(
    "the history's disk is full and shelving fails", 7, "the cloud does not answer", ends="ACTIVE", recorded=False
)
def _(scene: Scene) -> None:
    cloud_goes_down_at_status(scene)
    scene.checker.before("report", (scene.state_dir / "ledger.db").unlink)


@arranged("the check fails and the history is gone", 5, "ended FAILED", recorded=False)
def _(scene: Scene) -> None:
    scene.checker.order("status", Answer(200, status("FAILED")))
    scene.checker.before("report", (scene.state_dir / "ledger.db").unlink)


@arranged(
    "the server wakes too late and the cloud's API goes down", 7, "the cloud does not answer", "300 s", ends="ACTIVE"
)
def _(scene: Scene) -> None:
    scene.cloud.order(ServerFault(Failure.HOST_AWAY, seconds=400))
    scene.clock.at(305, scene.cloud.api_down)


def cloud_goes_down_at_status(scene: Scene) -> None:
    """The API is gone from the middle of the check."""
    scene.checker.before("status", scene.cloud.api_down)


def defect(*_: Any, **__: Any) -> None:
    """What no code should do."""
    raise RuntimeError("a defect")


# The tests


@contextmanager
def everything_logged() -> Iterator[Records]:
    """What the controller and its libraries log, debugging included."""
    records = Records()
    loggers = [
        logging.getLogger(name) for name in ("spamops", "openstack", "keystoneauth", "urllib3", "httpx", "httpcore")
    ]
    before = [(logger, logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.addHandler(records)
        logger.setLevel(logging.DEBUG)
        logger.propagate = False
    try:
        yield records
    finally:
        for logger, level, propagate in before:
            logger.removeHandler(records)
            logger.setLevel(level)
            logger.propagate = propagate


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.what)
def test_a_fault_is_named_and_the_server_is_seen_to(row: Row, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with everything_logged() as logged, Scene(tmp_path, row.spec, monkeypatch, **row.cloud) as scene:
        scene.settings |= row.settings
        row.arrange(scene)
        told = scene.run()
        scene.undo()
        scene.clock.sleep(3600)  # what was on its way has come
        ended_as = scene.ends
        secrets = [scene.cloud.application_credential_secret, scene.settings.get("api_key", API_KEY), SECRET]
        if "credential" in scene.settings:
            secrets.append(scene.settings["credential"].secret)
        expect_told(row, told)
        assert ended_as == row.ends
        expect_alarm(row, told, logged)
        expect_recorded(row, told, scene)
        for secret in secrets:
            if secret not in ("short", "unconfigured"):
                assert secret not in told.message + told.lines + "\n".join(logged.lines)
                assert not any(secret.encode() in path.read_bytes() for path in written(scene))
        assert row.code == 3 or holder(scene.state_dir, scene.server_id) is None


def expect_told(row: Row, told: Told) -> None:
    """The exit code, and the words for the operator."""
    assert told.code == row.code, f"{told.message}\n{told.lines}"
    shown = told.message if row.code else told.lines
    for words in row.says:
        assert words in shown


def expect_alarm(row: Row, told: Told, logged: Records) -> None:
    """An alarm for all that a person has to see to; a server that costs money always ends with 7."""
    touched = row.code not in (2, 3)
    assert bool(logged.alarms) == (touched and row.code not in (0, 6))
    if row.ends not in FREE_STATUSES and not row.costs:
        assert told.code == 7
        assert "not_shelved" in logged.alarms[-1]


def expect_recorded(row: Row, told: Told, scene: Scene) -> None:
    """The history tells the same."""
    if not row.recorded:
        return
    (recorded,) = Ledger(scene.state_dir).runs(limit=1)
    assert recorded["exit_code"] == row.code
    assert recorded["ended_at"] is not None
    assert (recorded["reason"] or "") == told.message or row.code == 1
    if told.summary and recorded["server_status_after"] is not None and "API" not in row.what:
        assert recorded["server_status_after"] == row.ends


def written(scene: Scene) -> list[Path]:
    """What the controller wrote."""
    return [path for path in scene.state_dir.rglob("*") if path.is_file()] if scene.state_dir.is_dir() else []


def test_the_table_is_as_long_as_promised_and_no_fault_is_in_it_twice() -> None:
    assert len({row.what for row in ROWS}) == len(ROWS) >= 45


def test_an_administrator_finds_every_fault_on_the_page_about_faults() -> None:
    page = page_of(ROWS)
    if os.environ.get("WRITE_FAULTS_PAGE"):
        PAGE.write_text(page, encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == page, (
        "write it anew: WRITE_FAULTS_PAGE=1 pytest tests/integration/test_faults.py"
    )


def page_of(rows: list[Row]) -> str:
    """The table for people."""
    lines = [
        "# What can go wrong, and what then",
        "",
        "Every row is a test: the fault is arranged with a cloud and a checker on loopback, and what stands here is what came",
        "of it. The words are a part of the last line that `spamops run` prints on stderr; where the exit code is 0 they are a",
        "part of the progress lines. Exit codes are explained by `spamops run --help`. Every code but 0 and 6 raises the alarm",
        "in the log, except 2 and 3, where nothing was touched.",
        "",
        "| fault | exit code | what the operator sees | where the server ends |",
        "|---|---|---|---|",
    ]
    for row in rows:
        words = " … ".join(f"`{words}`" for words in row.says if words) or "(nothing: nobody looks)"
        lines.append(f"| {row.what} | {row.code} | {words} | {row.ends} |")
    return "\n".join(lines) + "\n"
