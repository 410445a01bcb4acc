"""The server's life by itself: what the modules and `spamops status` rely on beside a whole run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fake_clock import FakeClock
from scene import USUAL_DELAYS

from spamops.cloud import ACTIVE, GOALS, SHELVED, Goal, Observed, Server, connect
from spamops.errors import (
    CloudRefused,
    CloudUnavailable,
    ServerInError,
    ServerMissing,
    SpamopsError,
    TooSlow,
    UnsuitableState,
)
from spamops.sandbox import faults
from spamops.sandbox.cloud import Failure, HttpFault, SandboxCloud, ServerFault, ServerSpec

pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore:.*:PendingDeprecationWarning")

Make = Callable[..., Server]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def cloud(clock: FakeClock) -> Iterator[SandboxCloud]:
    with SandboxCloud([], clock=clock, delays=USUAL_DELAYS) as cloud:
        yield cloud


@pytest.fixture
def make(cloud: SandboxCloud, clock: FakeClock) -> Make:
    """Makes a server in the cloud and looks at it by the library."""

    def make(status: str = "SHELVED_OFFLOADED", task_state: str | None = None, **more: Any) -> Server:
        spec = ServerSpec(status=status, task_state=task_state, stuck=more.pop("stuck", False))
        cloud.add_server(spec)
        return Server(connect(**cloud.clouds_yaml()), spec.id, clock=clock, **more)

    return make


PLANS = [
    ("SHELVED_OFFLOADED", None, ACTIVE, "unshelve"),
    ("SHELVED", None, ACTIVE, "unshelve"),
    ("SHUTOFF", None, ACTIVE, "start"),
    ("PAUSED", None, ACTIVE, "unpause"),
    ("SUSPENDED", None, ACTIVE, "resume"),
    ("ACTIVE", None, ACTIVE, None),
    ("SHELVED_OFFLOADED", "spawning", ACTIVE, None),
    ("ACTIVE", "shelving", ACTIVE, "unshelve"),
    ("ACTIVE", None, SHELVED, "shelve"),
    ("SHUTOFF", None, SHELVED, "shelve"),
    ("SHELVED_OFFLOADED", None, SHELVED, None),
    ("SHELVED", "shelving_offloading", SHELVED, None),
    ("SHELVED_OFFLOADED", "unshelving", SHELVED, "shelve"),
    ("REBOOT", None, SHELVED, "shelve"),
]


@pytest.mark.parametrize(("status", "task_state", "goal", "action"), PLANS)
def test_a_prediction_is_true_and_changes_nothing(
    cloud: SandboxCloud, make: Make, status: str, task_state: str | None, goal: Goal, action: str | None
) -> None:
    server = make(status, task_state)
    server.look()
    assert server.planned(goal) == action
    assert cloud.action_requests == []
    assert not server.asked
    server.bring_to(goal, 900)
    asked = [asked for _, asked in cloud.action_requests]
    names = {"start": "os-start", "unpause": "unpause", "resume": "resume"}
    assert asked == ([names.get(action, action)] if action else [])
    assert server.asked == (action is not None)


@pytest.mark.parametrize("goal", GOALS.values(), ids=GOALS)
def test_a_goal_that_is_reached_is_reached_again_without_a_call(cloud: SandboxCloud, make: Make, goal: Goal) -> None:
    server = make(goal.end)
    server.bring_to(goal, 60)
    server.bring_to(goal, 60)
    assert {method for method, path in cloud.requests if "/compute/" in path} == {"GET"}
    assert [str(seen) for seen in server.seen] == [goal.end]


def test_every_state_is_seen_and_told_in_order(make: Make) -> None:
    told: list[Observed] = []
    server = make(on_change=told.append)
    server.bring_to(ACTIVE, 300)
    server.bring_to(SHELVED, 900)
    assert told == server.seen
    assert [str(seen) for seen in told] == [
        "SHELVED_OFFLOADED",
        "SHELVED_OFFLOADED (unshelving)",
        "SHELVED_OFFLOADED (spawning)",
        "ACTIVE",
        "ACTIVE (shelving)",
        "ACTIVE (shelving_image_pending_upload)",
        "ACTIVE (shelving_image_uploading)",
        "SHELVED (shelving_offloading)",
        "SHELVED_OFFLOADED",
    ]
    assert [seen.at for seen in told] == sorted(seen.at for seen in told)


def test_an_action_is_stopped_before_it_is_asked_for(cloud: SandboxCloud, make: Make) -> None:
    def stop() -> None:
        raise SpamopsError("the run is over")

    server = make(before_action=stop)
    with pytest.raises(SpamopsError, match="the run is over"):
        server.bring_to(ACTIVE, 300)
    assert cloud.action_requests == []
    assert not server.may_cost


def test_one_action_is_asked_for_once(cloud: SandboxCloud, make: Make) -> None:
    server = make()
    server.look()
    assert str(server.ask("unshelve")) == "SHELVED_OFFLOADED (unshelving)"
    cloud.order(HttpFault(path="/action$", status=403, body={"forbidden": {"code": 403, "message": "no"}}))
    with pytest.raises(CloudRefused, match="asking for shelve"):
        server.ask("shelve")
    assert [action for _, action in cloud.action_requests] == ["unshelve", "shelve"]


@pytest.mark.parametrize("goal", GOALS.values(), ids=GOALS)
def test_a_server_in_error_is_left_alone_and_its_fault_is_told(cloud: SandboxCloud, make: Make, goal: Goal) -> None:
    server = make("ERROR")
    with pytest.raises(ServerInError, match="Build of instance aborted"):
        server.bring_to(goal, 300)
    assert cloud.action_requests == []
    assert not server.may_cost


def test_no_capacity_is_not_asked_about_every_second(cloud: SandboxCloud, clock: FakeClock, make: Make) -> None:
    cloud.order(ServerFault(Failure.NO_CAPACITY, None))
    with pytest.raises(SpamopsError, match="no host free"):
        make().bring_to(ACTIVE, 300)
    assert 5 < len(cloud.action_requests) < 20
    assert 300 <= clock.monotonic() < 305


def test_a_call_whose_answer_was_lost_is_not_repeated_blindly(cloud: SandboxCloud, make: Make) -> None:
    cloud.order(faults.cut(path="/action$", accepted=True))
    make().bring_to(ACTIVE, 300)
    assert len(cloud.action_requests) == 1


def test_a_server_that_may_still_wake_is_not_believed_to_be_shelved(
    cloud: SandboxCloud, clock: FakeClock, make: Make
) -> None:
    server = make()
    server.look()
    cloud.order(faults.cut(path="/action$"))
    with pytest.raises(CloudUnavailable):
        server.ask("unshelve")
    clock.after(3, lambda: cloud.act(str(server.id), "unshelve"))
    server.bring_to(SHELVED, 900)
    assert [status for _, status, _ in cloud.history(str(server.id))].count("ACTIVE") > 0
    assert cloud.history(str(server.id))[-1][1:] == ("SHELVED_OFFLOADED", None)


def test_a_proxys_404_does_not_make_a_server_disappear(cloud: SandboxCloud, make: Make) -> None:
    server = make("ACTIVE")
    server.look()
    cloud.order(HttpFault(path="/servers/", times=3, status=404, body="<html>Not Found</html>"))
    assert server.bring_to(SHELVED, 900).status == "SHELVED_OFFLOADED"


def test_a_deleted_server_is_gone_for_good(cloud: SandboxCloud, make: Make) -> None:
    server = make("ACTIVE")
    server.look()
    cloud.force_state(str(server.id), "DELETED")
    with pytest.raises(ServerMissing, match="no longer exists"):
        server.bring_to(SHELVED, 900)
    assert server.seen[-1].status == "DELETED"


def test_shelving_is_tried_until_its_limit(cloud: SandboxCloud, clock: FakeClock, make: Make) -> None:
    cloud.order(ServerFault(Failure.SNAPSHOT_FAILS, None))
    with pytest.raises(SpamopsError, match="compute_shelve_instance"):
        make("ACTIVE").bring_to(SHELVED, 900)
    assert clock.monotonic() >= 900
    assert len(cloud.action_requests) > 20


def test_a_limit_is_kept_to_the_poll(clock: FakeClock, make: Make) -> None:
    with pytest.raises(TooSlow, match="after 60 s"):
        make(task_state="spawning", stuck=True).bring_to(ACTIVE, 60)
    assert 60 <= clock.monotonic() <= 63


@pytest.mark.parametrize("status", ["VERIFY_RESIZE", "RESCUE"])
def test_what_a_person_began_is_left_to_that_person(cloud: SandboxCloud, make: Make, status: str) -> None:
    server = make("ACTIVE")
    body = {"server": {"id": "x", "status": status, "OS-EXT-STS:task_state": None}}
    cloud.order(HttpFault(path="/servers/", times=None, status=200, body=body))
    with pytest.raises(UnsuitableState, match=f"the server is {status}"):
        server.bring_to(ACTIVE, 300)
    assert cloud.action_requests == []


def test_nothing_to_log_in_with_is_said_in_plain_words() -> None:
    with pytest.raises(CloudRefused, match="no way to log in to the cloud"):
        connect(cloud="nowhere")


def test_a_credential_given_here_is_not_mixed_with_another_cloud_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with SandboxCloud() as cloud:
        monkeypatch.setenv("OS_CLOUD", "no-such-cloud")
        monkeypatch.setenv("OS_PROJECT_NAME", "somebody-elses")
        monkeypatch.setenv("OS_USERNAME", "somebody")
        auth = {
            "auth_url": cloud.auth_url,
            "application_credential_id": cloud.application_credential_id,
            "application_credential_secret": cloud.application_credential_secret,
        }
        connection = connect(auth_type="v3applicationcredential", auth=auth)
        assert Server(connection, "spamcheck").look().status == "SHELVED_OFFLOADED"
