"""The embedded cloud, as the real openstacksdk meets it over HTTP: what was observed on a real cloud must hold here."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import openstack
import pytest
import requests
from keystoneauth1 import exceptions as keystone_errors
from openstack import exceptions as sdk_errors

from spamops.sandbox import faults
from spamops.sandbox.cloud import (
    AccessRule,
    Credential,
    Delays,
    Failure,
    HttpFault,
    SandboxCloud,
    ServerFault,
    ServerSpec,
)

SLOW = Delays(
    shelve=1,
    shelve_pending=2,
    shelve_upload=3,
    shelve_offload=4,
    unshelve_schedule=5,
    unshelve_spawn=6,
    build=7,
    start=8,
    stop=9,
    reboot=10,
    pause=11,
    suspend=12,
)
UNSHELVING = ("SHELVED_OFFLOADED", "unshelving", "shelved_offloaded", 4)
SPAWNING = ("SHELVED_OFFLOADED", "spawning", "shelved_offloaded", 4)
OFFLOADED = ("SHELVED_OFFLOADED", None, "shelved_offloaded", 4)
ACTIVE = ("ACTIVE", None, "active", 1)


class FakeClock:
    """Time that moves when a test says so."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def monotonic(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return datetime(2030, 1, 1, tzinfo=UTC) + timedelta(seconds=self.seconds)

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def make_cloud(clock: FakeClock) -> Iterator[Callable[..., SandboxCloud]]:
    """Clouds with the fake clock, stopped at the end."""
    made: list[SandboxCloud] = []

    def make(status: str = "SHELVED_OFFLOADED", **kwargs: Any) -> SandboxCloud:
        names = ("name", "locked", "task_state", "stuck")
        spec = ServerSpec(status=status, **{key: kwargs.pop(key) for key in names if key in kwargs})
        cloud = SandboxCloud(kwargs.pop("servers", [spec]), **{"clock": clock, **kwargs})
        made.append(cloud)
        cloud.start()
        return cloud

    yield make
    for cloud in made:
        cloud.stop()


@pytest.fixture
def connect() -> Iterator[Callable[..., Any]]:
    """Connections of the real SDK, without anything from the machine's own configuration, closed at the end."""
    made: list[Any] = []

    def make(cloud: SandboxCloud, credential: Credential | None = None, **kwargs: Any) -> Any:
        entry = kwargs.pop("entry", None) or cloud.clouds_yaml(credential)
        conn = openstack.connect(load_yaml_config=False, load_envvars=False, **{"api_timeout": 10, **entry, **kwargs})
        made.append(conn)
        return conn

    yield make
    for conn in made:
        conn.close()


def only_id(cloud: SandboxCloud, conn: Any) -> str:
    return str(next(iter(conn.compute.servers())).id)


def log_in(conn: Any) -> Any:
    """The first call of a fresh connection, with the errors that a caller of the SDK meets then."""
    return conn.compute.get("/limits", connect_retries=0).json()


def seen(conn: Any, server_id: str) -> tuple[str, str | None, str, int]:
    server = conn.compute.get_server(server_id)
    return server.status, server.task_state, server.vm_state, server.power_state


def newest_action(conn: Any, server_id: str) -> Any:
    newest = next(iter(conn.compute.server_actions(server_id)))
    return conn.compute.get_server_action(newest.request_id, server_id)


def events(conn: Any, server_id: str) -> dict[str, str | None]:
    return {event["event"]: event["result"] for event in newest_action(conn, server_id).events}


# Logging in


def test_every_way_to_log_in_that_a_clouds_yaml_can_name_works(make_cloud: Any, connect: Any) -> None:
    cloud = make_cloud()
    entry = cloud.clouds_yaml()
    by_name = {
        **entry,
        "auth": {
            "auth_url": cloud.auth_url,
            "application_credential_name": cloud.credential.name,
            "application_credential_secret": cloud.application_credential_secret,
            "username": cloud.keystone.user_name,
            "user_domain_name": "Default",
        },
    }
    unversioned = {**entry, "auth": {**entry["auth"], "auth_url": f"{cloud.url}/identity"}}
    for way in (entry, by_name, unversioned, cloud.password_clouds_yaml()):
        conn = connect(cloud, entry=way)
        assert conn.compute.find_server("spamcheck", ignore_missing=False).status == "SHELVED_OFFLOADED"
        assert conn.current_project_id == cloud.keystone.project_id


def test_the_connection_class_serves_as_well_as_the_shortcut(make_cloud: Any) -> None:
    cloud = make_cloud()
    auth = {
        "auth_url": cloud.auth_url,
        "application_credential_id": cloud.application_credential_id,
        "application_credential_secret": cloud.application_credential_secret,
    }
    conn = openstack.connection.Connection(auth_type="v3applicationcredential", auth=auth, api_timeout=5)
    try:
        assert [server.name for server in conn.compute.servers()] == ["spamcheck"]
    finally:
        conn.close()


def test_a_wrong_secret_is_told_from_a_deleted_credential(make_cloud: Any, connect: Any) -> None:
    cloud = make_cloud()
    with pytest.raises(keystone_errors.Unauthorized, match="requires authentication"):
        log_in(connect(cloud, replace(cloud.credential, secret="wrong")))
    with pytest.raises(keystone_errors.NotFound, match="Could not find Application Credential"):
        log_in(connect(cloud, Credential()))
    cloud.remove_credential()
    with pytest.raises(keystone_errors.NotFound, match="Could not find Application Credential"):
        log_in(connect(cloud))


def test_an_expired_credential_is_refused_from_its_end_on(make_cloud: Any, connect: Any, clock: FakeClock) -> None:
    cloud = make_cloud()
    credential = cloud.add_credential(Credential(expires_at=clock.now() + timedelta(seconds=60)))
    assert log_in(connect(cloud, credential))
    clock.sleep(60)
    with pytest.raises(keystone_errors.Unauthorized):
        log_in(connect(cloud, credential))


def test_a_wrong_password_or_project_is_refused(make_cloud: Any, connect: Any) -> None:
    cloud = make_cloud()
    entry = cloud.password_clouds_yaml()
    for fault in ({"password": "wrong"}, {"project_name": "other"}, {"username": "nobody"}):
        with pytest.raises(keystone_errors.Unauthorized):
            log_in(connect(cloud, entry={**entry, "auth": {**entry["auth"], **fault}}))


def test_no_secret_shows_in_the_credentials_repr() -> None:
    credential = Credential()
    assert credential.secret not in repr(credential)


def test_a_token_that_expires_during_a_run_is_renewed_by_the_sdk(
    make_cloud: Any, connect: Any, clock: FakeClock
) -> None:
    cloud = make_cloud(token_seconds=600)
    conn = connect(cloud)
    server_id = only_id(cloud, conn)
    first = conn.auth_token
    clock.sleep(600)
    assert (
        httpx.get(f"{cloud.url}/compute/v2.1/servers/{server_id}", headers={"X-Auth-Token": first}).status_code == 401
    )
    assert seen(conn, server_id) == OFFLOADED
    assert cloud.requests.count(("POST", "/identity/v3/auth/tokens")) == 2


def test_a_token_revoked_after_a_while_is_renewed_by_the_sdk(make_cloud: Any, connect: Any) -> None:
    cloud = make_cloud()
    conn = connect(cloud)
    server_id = only_id(cloud, conn)
    cloud.order(faults.revoked_token(skip=1))
    logins = cloud.requests.count(("POST", "/identity/v3/auth/tokens"))
    for expected in (0, 1, 1):
        assert seen(conn, server_id) == OFFLOADED
        assert cloud.requests.count(("POST", "/identity/v3/auth/tokens")) - logins == expected


def test_a_call_without_a_valid_token_is_401_with_a_challenge(make_cloud: Any) -> None:
    cloud = make_cloud()
    for headers in ({}, {"X-Auth-Token": "nonsense"}):
        answer = httpx.get(f"{cloud.url}/compute/v2.1/servers", headers=headers)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"].startswith("Keystone uri=")
        assert answer.json()["error"]["title"] == "Unauthorized"


# Finding servers and reading them


def test_a_server_is_found_by_name_and_by_id_and_names_are_matched_whole(make_cloud: Any, connect: Any) -> None:
    servers = [ServerSpec(name="spamcheck"), ServerSpec(name="spamcheck-old"), ServerSpec(name="web", status="ACTIVE")]
    cloud = make_cloud(servers=servers)
    conn = connect(cloud)
    for wanted in ("spamcheck", servers[0].id):
        assert conn.compute.find_server(wanted, ignore_missing=False).id == servers[0].id
    assert {server.name for server in conn.compute.servers(name="spam")} == {"spamcheck", "spamcheck-old"}
    assert [server.name for server in conn.compute.servers(status="ACTIVE")] == ["web"]
    assert len(list(conn.compute.servers(details=False))) == 3
    assert len(list(conn.compute.servers(limit=1))) == 3, "pages must be followed to their end"
    assert conn.get_server("web").status == "ACTIVE"


def test_two_servers_of_one_name_are_reported_not_guessed(make_cloud: Any, connect: Any) -> None:
    cloud = make_cloud(servers=[ServerSpec(), ServerSpec()])
    with pytest.raises(sdk_errors.DuplicateResource):
        connect(cloud).compute.find_server("spamcheck", ignore_missing=False)


def test_unknown_malformed_and_deleted_servers_are_404(make_cloud: Any, connect: Any) -> None:
    gone = ServerSpec(status="DELETED")
    cloud = make_cloud(servers=[gone])
    conn = connect(cloud)
    for server_id in (gone.id, "not-a-uuid", ServerSpec().id):
        with pytest.raises(sdk_errors.NotFoundException, match="could not be found"):
            conn.compute.get_server(server_id)
        with pytest.raises(sdk_errors.NotFoundException):
            conn.compute.unshelve_server(server_id)
    with pytest.raises(sdk_errors.NotFoundException):
        conn.compute.find_server("spamcheck", ignore_missing=False)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("ACTIVE", ACTIVE),
        ("SHELVED", ("SHELVED", None, "shelved", 4)),
        ("SHELVED_OFFLOADED", OFFLOADED),
        ("BUILD", ("BUILD", "spawning", "building", 0)),
        ("SHUTOFF", ("SHUTOFF", None, "stopped", 4)),
        ("PAUSED", ("PAUSED", None, "paused", 3)),
        ("SUSPENDED", ("SUSPENDED", None, "suspended", 4)),
        ("REBOOT", ("REBOOT", "rebooting", "active", 1)),
        ("ERROR", ("ERROR", None, "error", 0)),
    ],
)
def test_a_server_can_begin_in_every_status(make_cloud: Any, connect: Any, status: str, expected: Any) -> None:
    cloud = make_cloud(status, delays=SLOW)
    conn = connect(cloud)
    assert seen(conn, only_id(cloud, conn)) == expected


@pytest.mark.parametrize(
    ("status", "task_state", "seconds", "end"),
    [
        ("BUILD", None, 7, "ACTIVE"),
        ("REBOOT", None, 10, "ACTIVE"),
        ("ACTIVE", "shelving", 10, "SHELVED_OFFLOADED"),
        ("ACTIVE", "shelving_image_pending_upload", 9, "SHELVED_OFFLOADED"),
        ("SHELVED", "shelving_offloading", 4, "SHELVED_OFFLOADED"),
        ("SHELVED_OFFLOADED", "unshelving", 11, "ACTIVE"),
        ("SHELVED_OFFLOADED", "spawning", 6, "ACTIVE"),
        ("SHELVED", "unshelving", 5, "ACTIVE"),
        ("SHUTOFF", "powering-on", 8, "ACTIVE"),
    ],
)
def test_a_server_found_halfway_goes_on_unless_it_is_stuck(
    make_cloud: Any, connect: Any, clock: FakeClock, status: str, task_state: str | None, seconds: float, end: str
) -> None:
    moving = ServerSpec(name="moving", status=status, task_state=task_state)
    stuck = ServerSpec(name="stuck", status=status, task_state=task_state, stuck=True)
    cloud = make_cloud(servers=[moving, stuck], delays=SLOW)
    conn = connect(cloud)
    before = seen(conn, stuck.id)
    clock.sleep(seconds - 0.5)
    assert seen(conn, moving.id)[:2] != (end, None)
    clock.sleep(0.5)
    assert seen(conn, moving.id)[:2] == (end, None)
    assert seen(conn, stuck.id) == before


# Transitions


def walk(conn: Any, clock: FakeClock, server_id: str, seconds: int) -> list[tuple[str, str | None, str, int]]:
    """The distinct states that a client sees which looks every second, a moment after the full one."""
    states = [seen(conn, server_id)]
    clock.sleep(0.1)
    for _ in range(seconds):
        clock.sleep(1)
        now = seen(conn, server_id)
        if now != states[-1]:
            states.append(now)
    return states


def test_unshelve_and_shelve_go_through_the_states_of_a_real_cloud(
    make_cloud: Any, connect: Any, clock: FakeClock
) -> None:
    cloud = make_cloud(delays=SLOW)
    conn = connect(cloud)
    server_id = only_id(cloud, conn)
    conn.compute.unshelve_server(server_id)
    assert walk(conn, clock, server_id, 20) == [UNSHELVING, SPAWNING, ACTIVE]
    assert events(conn, server_id) == dict.fromkeys(
        ("get_image_info", "schedule_instances", "compute_unshelve_instance"), "Success"
    )
    conn.compute.shelve_server(server_id)
    assert walk(conn, clock, server_id, 20) == [
        ("ACTIVE", "shelving", "active", 1),
        ("ACTIVE", "shelving_image_pending_upload", "active", 1),
        ("ACTIVE", "shelving_image_uploading", "active", 1),
        ("SHELVED", "shelving_offloading", "shelved", 4),
        OFFLOADED,
    ]
    assert newest_action(conn, server_id).message is None


def test_a_shut_off_server_can_be_shelved_and_comes_back_running(
    make_cloud: Any, connect: Any, clock: FakeClock
) -> None:
    cloud = make_cloud("SHUTOFF", delays=SLOW)
    conn = connect(cloud)
    server_id = only_id(cloud, conn)
    conn.compute.shelve_server(server_id)
    states = walk(conn, clock, server_id, 20)
    assert (states[0], states[-1]) == (("SHUTOFF", "shelving", "stopped", 4), OFFLOADED)
    conn.compute.unshelve_server(server_id)
    assert walk(conn, clock, server_id, 20)[-1] == ACTIVE


def test_a_cloud_that_never_offloads_ends_at_shelved(make_cloud: Any, connect: Any, clock: FakeClock) -> None:
    cloud = make_cloud("ACTIVE", delays=SLOW, shelved_offload=False)
    conn = connect(cloud)
    server_id = only_id(cloud, conn)
    conn.compute.shelve_server(server_id)
    assert walk(conn, clock, server_id, 20)[-1] == ("SHELVED", None, "shelved", 4)
    with pytest.raises(sdk_errors.ForbiddenException, match="os-shelve:shelve_offload"):
        conn.compute.shelve_offload_server(server_id)
    conn.compute.unshelve_server(server_id)
    assert walk(conn, clock, server_id, 20) == [("SHELVED", "unshelving", "shelved", 4), ACTIVE]


@pytest.mark.parametrize(
    ("status", "action", "states"),
    [
        ("SHUTOFF", "start_server", [("SHUTOFF", "powering-on"), ("ACTIVE", None)]),
        ("ACTIVE", "stop_server", [("ACTIVE", "powering-off"), ("SHUTOFF", None)]),
        ("ACTIVE", "pause_server", [("ACTIVE", "pausing"), ("PAUSED", None)]),
        ("PAUSED", "unpause_server", [("PAUSED", "unpausing"), ("ACTIVE", None)]),
        ("ACTIVE", "suspend_server", [("ACTIVE", "suspending"), ("SUSPENDED", None)]),
        ("SUSPENDED", "resume_server", [("SUSPENDED", "resuming"), ("ACTIVE", None)]),
    ],
)
def test_the_other_ways_to_and_from_active_work(
    make_cloud: Any, connect: Any, clock: FakeClock, status: str, action: str, states: Any
) -> None:
    cloud = make_cloud(status, delays=SLOW)
    conn = connect(cloud)
    server_id = only_id(cloud, conn)
    getattr(conn.compute, action)(server_id)
    assert [state[:2] for state in walk(conn, clock, server_id, 20)] == states


@pytest.mark.parametrize(("kind", "status"), [("SOFT", "REBOOT"), ("HARD", "HARD_REBOOT")])
def test_a_reboot_is_seen_and_ends_active(
    make_cloud: Any, connect: Any, clock: FakeClock, kind: str, status: str
) -> None:
    cloud = make_cloud("ACTIVE", delays=SLOW)
    conn = connect(cloud)
    server_id = only_id(cloud, conn)
    conn.compute.reboot_server(server_id, kind)
    assert [state[0] for state in walk(conn, clock, server_id, 20)] == [status, "ACTIVE"]
    assert newest_action(conn, server_id).action == "reboot"


def test_with_no_delays_a_server_is_where_it_goes_at_once(make_cloud: Any, connect: Any) -> None:
    cloud = make_cloud()
    conn = connect(cloud)
    server_id = only_id(cloud, conn)
    conn.compute.unshelve_server(server_id)
    assert seen(conn, server_id) == ACTIVE
    conn.compute.shelve_server(server_id)
    assert seen(conn, server_id) == OFFLOADED


# Refusals

REFUSED = [
    ("ACTIVE", None, "unshelve", "Cannot 'unshelve' instance ID while it is in vm_state active"),
    ("SHELVED_OFFLOADED", None, "shelve", "Cannot 'shelve' instance ID while it is in vm_state shelved_offloaded"),
    ("ACTIVE", "shelving", "shelve", "Cannot 'shelve' instance ID while it is in task_state shelving"),
    (
        "SHELVED_OFFLOADED",
        "unshelving",
        "unshelve",
        "Cannot 'unshelve' instance ID while it is in task_state unshelving",
    ),
    ("SHUTOFF", None, "unshelve", "Cannot 'unshelve' instance ID while it is in vm_state stopped"),
    ("SHELVED_OFFLOADED", None, "start", "Instance ID is not ready"),
    ("ERROR", None, "shelve", "Cannot 'shelve' instance ID while it is in vm_state error"),
    ("ERROR", None, "unshelve", "Cannot 'unshelve' instance ID while it is in vm_state error"),
    ("BUILD", None, "shelve", "Cannot 'shelve' instance ID while it is in vm_state building"),
]


@pytest.mark.parametrize(("status", "task_state", "action", "message"), REFUSED)
def test_an_action_at_the_wrong_time_is_409_in_nova_s_words(
    make_cloud: Any, connect: Any, status: str, task_state: str | None, action: str, message: str
) -> None:
    cloud = make_cloud(status, task_state=task_state, stuck=True)
    conn = connect(cloud)
    server_id = only_id(cloud, conn)
    before = seen(conn, server_id)
    with pytest.raises(sdk_errors.ConflictException) as caught:
        getattr(conn.compute, f"{action}_server")(server_id)
    body = caught.value.response.json()
    assert body == {"conflictingRequest": {"code": 409, "message": message.replace("ID", server_id, 1)}}
    assert seen(conn, server_id) == before
    assert newest_action(conn, server_id).action == "create", "a refused action leaves no entry in the action log"


def test_a_locked_server_refuses_its_owner_and_only_an_admins_lock_cannot_be_lifted(
    make_cloud: Any, connect: Any
) -> None:
    by_admin, free = ServerSpec(name="a", locked=True), ServerSpec(name="b")
    cloud = make_cloud(servers=[by_admin, free])
    conn = connect(cloud)
    with pytest.raises(sdk_errors.ConflictException, match=f"Instance {by_admin.id} is locked"):
        conn.compute.unshelve_server(by_admin.id)
    assert conn.compute.get_server(by_admin.id).is_locked
    with pytest.raises(sdk_errors.ForbiddenException):
        conn.compute.unlock_server(by_admin.id)
    conn.compute.lock_server(free.id)
    with pytest.raises(sdk_errors.ConflictException, match="is locked"):
        conn.compute.unshelve_server(free.id)
    conn.compute.unlock_server(free.id)
    conn.compute.unshelve_server(free.id)
    assert seen(conn, free.id) == ACTIVE


def test_missing_roles_are_403_and_name_the_rule(make_cloud: Any, connect: Any) -> None:
    cloud = make_cloud("ACTIVE")
    server_id = only_id(cloud, connect(cloud))
    reader = connect(cloud, cloud.add_credential(Credential(roles=("reader",))))
    assert seen(reader, server_id) == ACTIVE
    with pytest.raises(sdk_errors.ForbiddenException) as caught:
        reader.compute.shelve_server(server_id)
    message = "Policy doesn't allow os_compute_api:os-shelve:shelve to be performed."
    assert caught.value.response.json() == {"forbidden": {"code": 403, "message": message}}
    member = connect(cloud, cloud.add_credential(Credential(roles=("member",))))
    with pytest.raises(sdk_errors.ForbiddenException, match="os_compute_api:servers:show"):
        member.compute.get_server(server_id)
    member.compute.shelve_server(server_id)
    assert seen(reader, server_id) == OFFLOADED


def test_access_rules_for_one_server_suffice_and_everything_else_is_401(make_cloud: Any, connect: Any) -> None:
    mine, other = ServerSpec(name="mine"), ServerSpec(name="other")
    cloud = make_cloud(servers=[mine, other])
    base = f"/v2.1/servers/{mine.id}"
    rules = (
        AccessRule("GET", base),
        AccessRule("POST", f"{base}/action"),
        AccessRule("GET", f"{base}/os-instance-actions"),
        AccessRule("GET", f"{base}/os-instance-actions/{{request_id}}"),
    )
    conn = connect(cloud, cloud.add_credential(Credential(access_rules=rules)))
    conn.compute.unshelve_server(mine.id)
    assert seen(conn, mine.id) == ACTIVE
    assert newest_action(conn, mine.id).action == "unshelve"
    for refused in (
        lambda: conn.compute.get_server(other.id),
        lambda: conn.compute.unshelve_server(other.id),
        lambda: list(conn.compute.servers()),
    ):
        with pytest.raises((keystone_errors.Unauthorized, sdk_errors.HttpException)) as caught:
            refused()
        assert getattr(caught.value, "http_status", None) == 401 or getattr(caught.value, "status_code", None) == 401
    assert cloud.history(other.id)[-1][1:] == ("SHELVED_OFFLOADED", None)


def test_four_unshelves_at_once_have_one_winner(make_cloud: Any, connect: Any) -> None:
    cloud = make_cloud(delays=SLOW)
    connections = [connect(cloud) for _ in range(4)]
    server_id = only_id(cloud, connections[0])
    for conn in connections:
        log_in(conn)
    together = threading.Barrier(4)
    cloud.order(ServerFault(Failure.LOST_RACE))

    def unshelve(conn: Any) -> int:
        together.wait()
        answer = conn.compute.post(f"/servers/{server_id}/action", json={"unshelve": None})
        if answer.status_code == 500:
            assert "UnexpectedTaskStateError" in answer.json()["computeFault"]["message"]
        return int(answer.status_code)

    with ThreadPoolExecutor(4) as pool:
        statuses = sorted(pool.map(unshelve, connections))
    assert statuses == [202, 409, 409, 500]
    assert [entry[1:] for entry in cloud.history(server_id)] == [OFFLOADED[:2], UNSHELVING[:2]]
    assert cloud.action_requests == [(server_id, "unshelve")] * 4


# Actions that fail later


@pytest.mark.parametrize(
    ("failure", "states", "failed_event"),
    [
        (Failure.NO_CAPACITY, [UNSHELVING, OFFLOADED], "schedule_instances"),
        (Failure.SPAWN_FAILS, [UNSHELVING, SPAWNING, OFFLOADED], "compute_unshelve_instance"),
    ],
)
def test_an_unshelve_that_fails_falls_back_and_only_the_action_log_says_so(
    make_cloud: Any, connect: Any, clock: FakeClock, failure: Failure, states: Any, failed_event: str
) -> None:
    cloud = make_cloud(delays=SLOW)
    cloud.order(ServerFault(failure, times=2))
    conn = connect(cloud)
    server_id = only_id(cloud, conn)
    for _ in range(2):
        conn.compute.unshelve_server(server_id)
        assert newest_action(conn, server_id).message is None, "an action that still runs has not failed"
        assert walk(conn, clock, server_id, 20) == states
        assert conn.compute.get_server(server_id).fault is None
        assert newest_action(conn, server_id).message == "Error"
        assert events(conn, server_id)[failed_event] == "Error"
    assert cloud.faults == []
    conn.compute.unshelve_server(server_id)
    assert walk(conn, clock, server_id, 20)[-1] == ACTIVE


def test_a_shelved_image_that_is_gone_ends_in_error_with_a_fault(
    make_cloud: Any, connect: Any, clock: FakeClock
) -> None:
    cloud = make_cloud(delays=SLOW)
    cloud.order(ServerFault(Failure.IMAGE_GONE))
    conn = connect(cloud)
    server_id = only_id(cloud, conn)
    conn.compute.unshelve_server(server_id)
    assert walk(conn, clock, server_id, 20)[-1] == ("ERROR", "unshelving", "error", 4)
    fault = conn.compute.get_server(server_id).fault
    assert fault["code"] == 404
    assert fault["message"].startswith("Unshelve attempted but the image ")


def test_a_host_that_dies_while_spawning_leaves_error(make_cloud: Any, connect: Any, clock: FakeClock) -> None:
    cloud = make_cloud(delays=SLOW)
    cloud.order(ServerFault(Failure.HOST_DIES_SPAWNING))
    conn = connect(cloud)
    server_id = only_id(cloud, conn)
    conn.compute.unshelve_server(server_id)
    assert [state[:2] for state in walk(conn, clock, server_id, 20)][-1] == ("ERROR", None)
    assert events(conn, server_id)["compute_unshelve_instance"] is None


def test_a_host_that_comes_back_does_what_it_was_asked(make_cloud: Any, connect: Any, clock: FakeClock) -> None:
    cloud = make_cloud(delays=SLOW)
    cloud.order(ServerFault(Failure.HOST_AWAY, seconds=100))
    conn = connect(cloud)
    server_id = only_id(cloud, conn)
    conn.compute.unshelve_server(server_id)
    clock.sleep(110)
    assert seen(conn, server_id) == SPAWNING
    clock.sleep(1)
    assert seen(conn, server_id) == ACTIVE


def test_a_failed_snapshot_leaves_the_server_active_and_shelving_again_works(
    make_cloud: Any, connect: Any, clock: FakeClock
) -> None:
    cloud = make_cloud("ACTIVE", delays=SLOW)
    cloud.order(ServerFault(Failure.SNAPSHOT_FAILS))
    conn = connect(cloud)
    server_id = only_id(cloud, conn)
    conn.compute.shelve_server(server_id)
    assert walk(conn, clock, server_id, 20) == [("ACTIVE", "shelving", "active", 1), ACTIVE]
    assert (newest_action(conn, server_id).action, newest_action(conn, server_id).message) == ("shelve", "Error")
    conn.compute.shelve_server(server_id)
    assert walk(conn, clock, server_id, 20)[-1] == OFFLOADED


@pytest.mark.parametrize(
    ("status", "action", "task_state"),
    [
        ("ACTIVE", "shelve", "shelving_image_pending_upload"),
        ("ACTIVE", "shelve", "shelving_offloading"),
        ("SHELVED_OFFLOADED", "unshelve", "unshelving"),
        ("SHELVED_OFFLOADED", "unshelve", "spawning"),
        ("SHUTOFF", "start", "powering-on"),
    ],
)
def test_a_task_state_can_stick_for_good(
    make_cloud: Any, connect: Any, clock: FakeClock, status: str, action: str, task_state: str
) -> None:
    other, mine = ServerSpec(name="other", status=status), ServerSpec(name="mine", status=status)
    cloud = make_cloud(servers=[other, mine], delays=SLOW)
    cloud.order(ServerFault(Failure.STUCK, task_state=task_state, server_id=mine.id))
    conn = connect(cloud)
    for server in (other, mine):
        getattr(conn.compute, f"{action}_server")(server.id)
    clock.sleep(100_000)
    assert seen(conn, mine.id)[1] == task_state
    assert seen(conn, other.id)[1] is None
    cloud.force_state(mine.id, "ACTIVE")
    assert seen(conn, mine.id) == ACTIVE


def test_an_order_that_cannot_strike_is_refused(make_cloud: Any) -> None:
    with pytest.raises(ValueError, match="task_state"):
        make_cloud().order(ServerFault(Failure.STUCK))


# Calls that are answered badly


@pytest.mark.parametrize(
    ("fault", "status", "said"),
    [
        (faults.internal_error(), 500, "computeFault"),
        (faults.unavailable(), 503, "<h1>Service Unavailable</h1>"),
        (faults.too_many_requests(7), 429, "overLimit"),
        (HttpFault(status=502, path="/servers", body="<html>Bad Gateway</html>"), 502, "Bad Gateway"),
        (HttpFault(status=401, path="/servers", body="<html>Unauthorized</html>", times=2), 401, "Unauthorized"),
    ],
)
def test_bad_answers_reach_the_sdk_as_ordered_and_end(
    make_cloud: Any, connect: Any, fault: HttpFault, status: int, said: str
) -> None:
    cloud = make_cloud()
    conn = connect(cloud)
    server_id = only_id(cloud, conn)
    cloud.order(fault)
    with pytest.raises((sdk_errors.HttpException, keystone_errors.HttpError)) as caught:
        conn.compute.get_server(server_id)
    response = caught.value.response
    assert response.status_code == status
    assert said in response.text
    assert response.headers.get("Retry-After") == ("7" if status == 429 else None)
    assert seen(conn, server_id) == OFFLOADED
    assert cloud.faults == []


def test_a_cut_connection_is_a_connect_failure_and_the_action_was_not_taken(make_cloud: Any, connect: Any) -> None:
    cloud = make_cloud()
    conn = connect(cloud)
    server_id = only_id(cloud, conn)
    cloud.order(faults.cut())
    with pytest.raises(keystone_errors.ConnectFailure):
        conn.compute.post(f"/servers/{server_id}/action", json={"unshelve": None}, connect_retries=0)
    assert seen(conn, server_id) == OFFLOADED


@pytest.mark.parametrize("fault", [faults.cut(accepted=True), faults.internal_error(accepted=True)])
def test_an_action_whose_answer_is_lost_was_taken_all_the_same(make_cloud: Any, connect: Any, fault: HttpFault) -> None:
    cloud = make_cloud(delays=SLOW)
    conn = connect(cloud)
    server_id = only_id(cloud, conn)
    cloud.order(replace(fault, action="unshelve"))
    assert seen(conn, server_id) == OFFLOADED, "a fault for one action leaves the other calls alone"
    try:
        answer = conn.compute.post(f"/servers/{server_id}/action", json={"unshelve": None}, connect_retries=0)
        assert answer.status_code == 500
    except keystone_errors.ConnectFailure:
        pass
    assert seen(conn, server_id) == UNSHELVING


def test_a_silent_broker_lasts_until_the_clients_own_time_limit(make_cloud: Any, connect: Any) -> None:
    cloud = make_cloud(delays=SLOW)
    conn = connect(cloud)
    server_id = only_id(cloud, conn)
    cloud.order(faults.silent_broker(seconds=600))
    with pytest.raises(keystone_errors.ConnectTimeout):
        conn.compute.post(f"/servers/{server_id}/action", json={"unshelve": None}, timeout=0.2, connect_retries=0)
    assert seen(conn, server_id) == UNSHELVING


def test_a_call_that_hangs_and_is_given_up_is_not_carried_out_later(make_cloud: Any, connect: Any) -> None:
    cloud = make_cloud()
    conn = connect(cloud)
    server_id = only_id(cloud, conn)
    cloud.order(HttpFault(method="POST", path="/action$", hang_seconds=0.5))
    with pytest.raises(keystone_errors.ConnectTimeout):
        conn.compute.post(f"/servers/{server_id}/action", json={"unshelve": None}, timeout=0.1, connect_retries=0)
    time.sleep(0.6)
    assert seen(conn, server_id) == OFFLOADED


def test_garbage_in_place_of_json_leaves_the_sdk_without_a_status(make_cloud: Any, connect: Any) -> None:
    cloud = make_cloud()
    conn = connect(cloud)
    server_id = only_id(cloud, conn)
    cloud.order(faults.garbage(times=2))
    assert conn.compute.get_server(server_id).status is None, "openstacksdk swallows what it cannot parse"
    with pytest.raises(requests.exceptions.JSONDecodeError):
        conn.compute.get(f"/servers/{server_id}").json()


def test_keystone_can_fail_as_well(make_cloud: Any, connect: Any) -> None:
    cloud = make_cloud()
    cloud.order(HttpFault(method="POST", path="/auth/tokens$", status=503, body=faults.SERVICE_UNAVAILABLE_HTML))
    with pytest.raises(keystone_errors.ServiceUnavailable):
        log_in(connect(cloud))
    assert log_in(connect(cloud))


def test_faults_can_be_bounded_in_time_and_taken_back(make_cloud: Any, connect: Any, clock: FakeClock) -> None:
    cloud = make_cloud()
    conn = connect(cloud)
    server_id = only_id(cloud, conn)
    cloud.order(replace(faults.internal_error(times=None), after_seconds=10, for_seconds=5))
    statuses = []
    for _ in range(5):
        statuses.append(conn.compute.get(f"/servers/{server_id}").status_code)
        clock.sleep(4)
    assert statuses == [200, 200, 200, 500, 200]
    cloud.order(faults.internal_error(times=None), ServerFault(Failure.NO_CAPACITY, times=None))
    assert len(cloud.faults) == 2
    assert conn.compute.get(f"/servers/{server_id}").status_code == 500
    cloud.forget_faults()
    assert seen(conn, server_id) == OFFLOADED


def test_while_the_api_is_down_connections_fail_and_servers_live_on(
    make_cloud: Any, connect: Any, clock: FakeClock
) -> None:
    cloud = make_cloud(delays=SLOW)
    conn = connect(cloud)
    server_id = only_id(cloud, conn)
    conn.compute.unshelve_server(server_id)
    with cloud.outage():
        with pytest.raises(keystone_errors.ConnectFailure):
            conn.compute.get(f"/servers/{server_id}", connect_retries=0)
        clock.sleep(11)
    assert seen(conn, server_id) == ACTIVE
    cloud.stop()
    with pytest.raises(keystone_errors.ConnectFailure):
        conn.compute.get(f"/servers/{server_id}", connect_retries=0)
    cloud.start()
    assert seen(conn, server_id) == ACTIVE


# Microversions and what else the SDK asks for


def test_microversions_are_negotiated_as_nova_does(make_cloud: Any, connect: Any) -> None:
    cloud = make_cloud()
    conn = connect(cloud)
    assert conn.compute.get_endpoint_data().max_microversion == (2, 93)
    server_id = only_id(cloud, conn)
    old = conn.compute.get(f"/servers/{server_id}", microversion="2.1")
    assert "locked" not in old.json()["server"]
    assert old.headers["OpenStack-API-Version"] == "compute 2.1"
    new = conn.compute.get(f"/servers/{server_id}", microversion="2.93")
    assert new.json()["server"]["locked"] is False
    assert new.json()["server"]["flavor"]["original_name"]
    refused = conn.compute.get(f"/servers/{server_id}", microversion="2.94")
    assert (refused.status_code, refused.json()["computeFault"]["code"]) == (406, 406)


def test_events_of_the_action_log_need_microversion_2_51(make_cloud: Any, connect: Any) -> None:
    cloud = make_cloud()
    conn = connect(cloud)
    server_id = only_id(cloud, conn)
    answer = conn.compute.post(f"/servers/{server_id}/action", json={"unshelve": None})
    assert (answer.status_code, answer.content) == (202, b"")
    path = f"/servers/{server_id}/os-instance-actions/{answer.headers['x-openstack-request-id']}"
    assert "events" not in conn.compute.get(path, microversion="2.50").json()["instanceAction"]
    assert len(conn.compute.get(path, microversion="2.51").json()["instanceAction"]["events"]) == 3
    assert conn.compute.get(path[:-1] + "x").status_code == 404


def test_limits_and_quota_answer(make_cloud: Any, connect: Any) -> None:
    cloud = make_cloud()
    conn = connect(cloud)
    assert conn.compute.get_limits().absolute.instances > 0
    assert conn.compute.get_quota_set(cloud.keystone.project_id).instances > 0


def test_nonsense_is_refused_as_a_bad_request(make_cloud: Any, connect: Any) -> None:
    cloud = make_cloud()
    conn = connect(cloud)
    server_id = only_id(cloud, conn)
    for body in ({"explode": None}, {}, {"reboot": {"type": "SIDEWAYS"}}, []):
        assert conn.compute.post(f"/servers/{server_id}/action", json=body).status_code == 400
    bad_login = httpx.post(f"{cloud.auth_url}/auth/tokens", content=b"not json")
    assert (bad_login.status_code, bad_login.json()["error"]["code"]) == (400, 400)


# What the demo and other tests build on


def test_reading_changes_nothing_and_the_request_log_can_prove_it(make_cloud: Any, connect: Any) -> None:
    cloud = make_cloud()
    conn = connect(cloud)
    server_id = only_id(cloud, conn)
    seen(conn, server_id)
    newest_action(conn, server_id)
    assert {method for method, path in cloud.requests if path.startswith("/compute")} == {"GET"}
    assert cloud.action_requests == []
    conn.compute.unshelve_server(server_id)
    assert ("POST", f"/compute/v2.1/servers/{server_id}/action") in cloud.requests
    assert cloud.action_requests == [(server_id, "unshelve")]


def test_history_and_paid_seconds_are_exact_however_seldom_one_looks(
    make_cloud: Any, connect: Any, clock: FakeClock
) -> None:
    cloud = make_cloud(delays=SLOW)
    conn = connect(cloud)
    server_id = only_id(cloud, conn)
    start = clock.now().timestamp()
    conn.compute.unshelve_server(server_id)
    clock.sleep(100)
    assert cloud.active_seconds(server_id) == pytest.approx(89)
    conn.compute.shelve_server(server_id)
    clock.sleep(1000)
    history = [(at - start, status, task) for at, status, task in cloud.history(server_id)]
    assert history == [
        (0, "SHELVED_OFFLOADED", None),
        (0, "SHELVED_OFFLOADED", "unshelving"),
        (5, "SHELVED_OFFLOADED", "spawning"),
        (11, "ACTIVE", None),
        (100, "ACTIVE", "shelving"),
        (101, "ACTIVE", "shelving_image_pending_upload"),
        (103, "ACTIVE", "shelving_image_uploading"),
        (106, "SHELVED", "shelving_offloading"),
        (110, "SHELVED_OFFLOADED", None),
    ]
    assert cloud.active_seconds(server_id) == pytest.approx(95)


def test_the_hook_runs_before_active_is_seen_and_after_it_is_left(
    make_cloud: Any, connect: Any, clock: FakeClock
) -> None:
    calls: list[tuple[bool, str]] = []

    def hook(server_id: str, on: bool) -> None:
        calls.append((on, seen(conn, server_id)[0]))  # a client can look while the hook runs

    cloud = make_cloud(delays=SLOW, on_power=hook)
    conn = connect(cloud)
    server_id = only_id(cloud, conn)
    conn.compute.unshelve_server(server_id)
    clock.sleep(20)
    assert seen(conn, server_id) == ACTIVE
    assert calls == [(True, "SHELVED_OFFLOADED")]
    conn.compute.shelve_server(server_id)
    clock.sleep(5)
    assert seen(conn, server_id)[0] == "ACTIVE"
    assert len(calls) == 1
    clock.sleep(20)
    assert seen(conn, server_id) == OFFLOADED
    assert calls == [(True, "SHELVED_OFFLOADED"), (False, "SHELVED")]


def test_the_hook_hears_of_reboots_accidents_and_servers_that_were_on_before(make_cloud: Any) -> None:
    calls: list[tuple[str, bool]] = []
    spec, asleep = ServerSpec(status="ACTIVE"), ServerSpec()
    cloud = make_cloud(servers=[spec, asleep], on_power=lambda server_id, on: calls.append((server_id, on)))
    cloud.act(spec.id, "reboot")
    cloud.advance()
    cloud.force_state(spec.id, "ERROR")
    assert calls == [(spec.id, on) for on in (True, False, True, False)]
    assert cloud.history(spec.id)[-1][1] == "ERROR"


def test_a_hook_that_raises_does_not_break_the_cloud(
    make_cloud: Any, connect: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def hook(server_id: str, on: bool) -> None:
        raise OSError("no such program")

    cloud = make_cloud(on_power=hook)
    conn = connect(cloud)
    server_id = only_id(cloud, conn)
    conn.compute.unshelve_server(server_id)
    assert seen(conn, server_id) == ACTIVE
    assert "power hook failed" in caplog.text
    assert "no such program" in caplog.text


def test_with_the_real_clock_the_hook_fires_on_time_without_anybody_asking() -> None:
    spec = ServerSpec()
    delays = Delays(unshelve_schedule=0.02, unshelve_spawn=0.03, shelve=0.02, shelve_upload=0.02)
    on, off = threading.Event(), threading.Event()

    def hook(_: str, powered: bool) -> None:
        (on if powered else off).set()

    with SandboxCloud([spec], delays=delays, on_power=hook) as cloud:
        cloud.act(spec.id, "unshelve")
        assert on.wait(5)
        assert not off.is_set()
        deadline = time.monotonic() + 5
        while cloud.history(spec.id)[-1][1] != "ACTIVE" and time.monotonic() < deadline:
            time.sleep(0.005)
        cloud.act(spec.id, "shelve")
        assert off.wait(5)
    at = [entry[0] for entry in cloud.history(spec.id)]
    assert at == sorted(at)
    assert 0.04 <= cloud.active_seconds(spec.id) < 5


def test_a_slow_hook_does_not_hold_up_requests_and_is_never_called_twice(connect: Any) -> None:
    spec = ServerSpec()
    calls: list[bool] = []
    release = threading.Event()

    def hook(_: str, powered: bool) -> None:
        calls.append(powered)
        release.wait(5)

    with SandboxCloud([spec], on_power=hook) as cloud:
        conn = connect(cloud)
        conn.compute.unshelve_server(spec.id)
        with ThreadPoolExecutor(4) as pool:
            states = list(pool.map(lambda _: seen(conn, spec.id), range(8)))
        assert {state[0] for state in states} == {"SHELVED_OFFLOADED"}
        release.set()
        assert conn.compute.wait_for_server(conn.compute.get_server(spec.id), wait=5, interval=0.02).status == "ACTIVE"
    assert calls == [True]


def test_nothing_is_left_running_after_stop() -> None:
    cloud = SandboxCloud()
    cloud.start()
    cloud.stop()
    cloud.stop()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("sandbox-cloud", "loopback-"))]
    with pytest.raises(httpx.ConnectError):
        httpx.get(cloud.url)
