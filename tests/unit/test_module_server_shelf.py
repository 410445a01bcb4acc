"""The module server_shelf, run in this process against the embedded cloud with the real SDK, on a clock nobody waits for."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_module import Result, run_module, run_without_spamops, use_clock
from fake_clock import FakeClock

from spamops.ledger import Ledger
from spamops.sandbox.cloud import Credential, Delays, Failure, SandboxCloud, ServerFault, ServerSpec
from spamops.summary import Summary

OpenCloud = Callable[..., SandboxCloud]

DELAYS = Delays(
    shelve=4, shelve_pending=4, shelve_upload=20, shelve_offload=4, unshelve_schedule=5, unshelve_spawn=15,
    build=10, start=5, stop=5, reboot=5, pause=2, suspend=5,
)  # fmt: skip
"""Seconds, which pass at once."""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    fake = FakeClock()
    use_clock(monkeypatch, fake)
    return fake


@pytest.fixture
def open_cloud(clock: FakeClock) -> Iterator[OpenCloud]:
    """Start a cloud with one server called `spamcheck`, in the status asked for."""
    clouds: list[SandboxCloud] = []

    def start(status: str = "SHELVED_OFFLOADED", *, server: dict[str, Any] | None = None, **more: Any) -> SandboxCloud:
        spec = ServerSpec(name="spamcheck", status=status, **server or {})
        cloud = SandboxCloud([spec], **{"clock": clock, "delays": DELAYS} | more)
        cloud.start()
        clouds.append(cloud)
        return cloud

    yield start
    for cloud in clouds:
        cloud.stop()


def shelf(cloud: SandboxCloud, state: str, /, *, check: bool = False, **more: Any) -> Result:
    arguments = {
        "server": "spamcheck",
        "state": state,
        "auth_type": "v3applicationcredential",
        "auth": cloud.clouds_yaml()["auth"],
    }
    return run_module("server_shelf", arguments | more, check=check)


def asked(cloud: SandboxCloud) -> list[str]:
    return [action.removeprefix("os-") for _, action in cloud.action_requests]


def changing(cloud: SandboxCloud) -> list[tuple[str, str]]:
    """Requests that change something; logging in is a POST and changes nothing."""
    return [(m, path) for m, path in cloud.requests if m != "GET" and not path.endswith("/auth/tokens")]


@pytest.mark.parametrize(
    ("status", "state", "actions", "ends"),
    [
        ("ACTIVE", "active", [], "ACTIVE"),
        ("SHELVED_OFFLOADED", "active", ["unshelve"], "ACTIVE"),
        ("SHELVED", "active", ["unshelve"], "ACTIVE"),
        ("SHUTOFF", "active", ["start"], "ACTIVE"),
        ("PAUSED", "active", ["unpause"], "ACTIVE"),
        ("SUSPENDED", "active", ["resume"], "ACTIVE"),
        ("BUILD", "active", [], "ACTIVE"),
        ("REBOOT", "active", [], "ACTIVE"),
        ("SHELVED_OFFLOADED", "shelved", [], "SHELVED_OFFLOADED"),
        ("SHELVED", "shelved", [], "SHELVED"),
        ("ACTIVE", "shelved", ["shelve"], "SHELVED_OFFLOADED"),
        ("SHUTOFF", "shelved", ["shelve"], "SHELVED_OFFLOADED"),
        ("PAUSED", "shelved", ["shelve"], "SHELVED_OFFLOADED"),
        ("SUSPENDED", "shelved", ["shelve"], "SHELVED_OFFLOADED"),
        ("REBOOT", "shelved", ["shelve"], "SHELVED_OFFLOADED"),
    ],
)
def test_check_mode_tells_what_the_run_then_does_and_a_second_run_does_nothing(
    open_cloud: OpenCloud, status: str, state: str, actions: list[str], ends: str
) -> None:
    cloud = open_cloud(status, shelved_offload=status != "SHELVED")

    predicted = shelf(cloud, state, check=True)
    assert changing(cloud) == []
    assert not predicted.failed

    done = shelf(cloud, state)
    assert asked(cloud) == actions
    assert not done.failed
    assert done["changed"] is bool(actions)
    assert (done["status_before"], done["status_after"]) == (status, ends)
    assert done["diff"] == {"before": f"{status}\n", "after": f"{ends}\n"}
    assert done["states"][0] | {"at": ""} == {
        "at": "",
        "status": status,
        "task_state": done["states"][0]["task_state"],
    }
    assert done["states"][-1]["status"] == ends
    assert done["states"][-1]["task_state"] is None
    for name in ("changed", "status_before", "status_after", "server_id", "diff"):
        assert predicted[name] == done[name], name

    again = shelf(cloud, state)
    assert again["changed"] is False
    assert asked(cloud) == actions


@pytest.mark.parametrize(
    ("status", "task_state", "state", "actions", "ends"),
    [
        ("SHELVED_OFFLOADED", "unshelving", "active", [], "ACTIVE"),
        ("SHELVED_OFFLOADED", "unshelving", "shelved", ["shelve"], "SHELVED_OFFLOADED"),
        ("ACTIVE", "shelving", "shelved", [], "SHELVED_OFFLOADED"),
        ("ACTIVE", "shelving", "active", ["unshelve"], "ACTIVE"),
        ("SHELVED", "shelving_offloading", "shelved", [], "SHELVED_OFFLOADED"),
    ],
)
def test_a_server_on_its_way_is_waited_for_and_then_brought_to_where_it_was_asked_to_be(
    open_cloud: OpenCloud, status: str, task_state: str, state: str, actions: list[str], ends: str
) -> None:
    cloud = open_cloud(status, server={"task_state": task_state})
    predicted = shelf(cloud, state, check=True)
    assert changing(cloud) == []
    done = shelf(cloud, state)
    assert asked(cloud) == actions
    assert done["status_after"] == predicted["status_after"] == ends
    assert done["changed"] is predicted["changed"] is bool(actions)
    assert done["diff"] == predicted["diff"]


def test_every_state_is_returned_with_its_time_in_utc(open_cloud: OpenCloud) -> None:
    done = shelf(open_cloud(), "active")
    states = done["states"]
    assert [(state["status"], state["task_state"]) for state in states] == [
        ("SHELVED_OFFLOADED", None),
        ("SHELVED_OFFLOADED", "unshelving"),
        ("SHELVED_OFFLOADED", "spawning"),
        ("ACTIVE", None),
    ]
    times = [datetime.fromisoformat(state["at"]) for state in states]
    assert times == sorted(times)
    assert all(time.utcoffset() is not None for time in times)
    assert (times[-1] - times[0]).total_seconds() >= 20  # what this cloud takes
    assert done["steps"]["wake"] >= 20


def test_without_waiting_the_action_is_asked_for_once_and_the_task_goes_on(open_cloud: OpenCloud) -> None:
    cloud = open_cloud()
    predicted = shelf(cloud, "active", wait=False, check=True)
    done = shelf(cloud, "active", wait=False)
    assert asked(cloud) == ["unshelve"]
    assert done["changed"] is predicted["changed"] is True
    assert done["status_after"] == predicted["status_after"] == "SHELVED_OFFLOADED"
    assert done["states"][-1]["task_state"] == "unshelving"
    assert done["may_cost"] is True

    again = shelf(cloud, "active", wait=False)
    assert again["changed"] is False
    assert asked(cloud) == ["unshelve"]


def test_a_refused_action_without_waiting_is_told_with_the_clouds_own_words(open_cloud: OpenCloud) -> None:
    told = shelf(open_cloud("ACTIVE", server={"locked": True}), "shelved", wait=False)
    assert told.failed
    assert "locked" in told["msg"]
    assert told["exit_code"] == 4


@pytest.mark.parametrize(
    ("state", "status", "limit"), [("active", "SHELVED_OFFLOADED", 300), ("shelved", "ACTIVE", 900)]
)
def test_the_limits_without_a_timeout_are_those_of_the_command(
    open_cloud: OpenCloud, clock: FakeClock, state: str, status: str, limit: int
) -> None:
    cloud = open_cloud(status)
    cloud.order(ServerFault(Failure.STUCK, task_state="spawning" if state == "active" else "shelving_image_uploading"))
    told = shelf(cloud, state)
    assert told.failed
    assert f"after {limit} s" in told["msg"]
    assert limit <= clock.monotonic() < limit + 20


def test_a_server_that_gets_stuck_is_told_with_its_state_and_may_cost_money(open_cloud: OpenCloud) -> None:
    cloud = open_cloud("ACTIVE")
    cloud.order(ServerFault(Failure.STUCK, task_state="shelving_image_uploading"))
    told = shelf(cloud, "shelved", timeout=120)
    assert told.failed
    assert "ACTIVE (shelving_image_uploading) after 120 s" in told["msg"]
    assert told["exit_code"] == 4
    assert (told["status_before"], told["status_after"]) == ("ACTIVE", "ACTIVE")
    assert told["states"][-1]["task_state"] == "shelving_image_uploading"
    assert told["may_cost"] is True
    assert told["missing"] is False


def test_lack_of_capacity_is_named_and_retried_within_the_timeout(open_cloud: OpenCloud) -> None:
    cloud = open_cloud()
    cloud.order(ServerFault(Failure.NO_CAPACITY, times=None))
    told = shelf(cloud, "active", timeout=60)
    assert told.failed
    assert "no host free" in told["msg"]
    assert len(asked(cloud)) > 1
    assert any("trying again" in note for note in told["notes"])


def test_a_passing_lack_of_capacity_ends_well_and_is_noted(open_cloud: OpenCloud) -> None:
    cloud = open_cloud()
    cloud.order(ServerFault(Failure.NO_CAPACITY, times=1))
    done = shelf(cloud, "active")
    assert done["status_after"] == "ACTIVE"
    assert any("no host free" in note for note in done["notes"])


@pytest.mark.parametrize("check", [False, True])
@pytest.mark.parametrize("state", ["active", "shelved"])
def test_a_server_in_error_is_reported_and_left_alone(open_cloud: OpenCloud, state: str, check: bool) -> None:
    cloud = open_cloud("ERROR")
    told = shelf(cloud, state, check=check)
    assert told.failed
    assert "ERROR" in told["msg"]
    assert told["status_before"] == "ERROR"
    assert changing(cloud) == []


@pytest.mark.parametrize("check", [False, True])
def test_a_server_that_is_not_there_is_told_apart_because_it_costs_nothing(open_cloud: OpenCloud, check: bool) -> None:
    told = shelf(open_cloud(), "shelved", server="another", check=check)
    assert told.failed
    assert "no server another in this project" in told["msg"]
    assert (told["missing"], told["may_cost"], told["states"]) == (True, False, [])


def test_a_wrong_secret_is_told_and_neither_it_nor_the_id_is_shown(open_cloud: OpenCloud) -> None:
    cloud = open_cloud()
    auth = cloud.clouds_yaml()["auth"] | {"application_credential_secret": "not-the-secret-of-this-cloud"}
    told = shelf(cloud, "active", auth=auth)
    assert told.failed
    assert "refused the credential" in told["msg"]
    assert "401" in told["msg"]
    assert told["exit_code"] == 4
    assert changing(cloud) == []
    for value in auth.values():
        assert value not in told.text
        assert value not in told.logged


def test_a_deleted_credential_is_told(open_cloud: OpenCloud) -> None:
    cloud = open_cloud()
    cloud.remove_credential()
    told = shelf(cloud, "active")
    assert told.failed
    assert "application credential" in told["msg"]


def test_a_credential_that_may_only_read_is_told_and_names_the_role(open_cloud: OpenCloud) -> None:
    cloud = open_cloud()
    reader = cloud.add_credential(Credential(roles=("reader",)))
    told = shelf(cloud, "active", auth=cloud.clouds_yaml(reader)["auth"])
    assert told.failed
    assert "403" in told["msg"]
    assert "member" in told["msg"]


def test_a_cloud_that_does_not_answer_is_told_and_nothing_is_known_of_the_server(open_cloud: OpenCloud) -> None:
    cloud = open_cloud()
    cloud.api_down()
    told = shelf(cloud, "active")
    assert told.failed
    assert "does not answer" in told["msg"]
    assert told["states"] == []


def test_without_any_cloud_the_message_names_the_three_ways(clock: FakeClock) -> None:
    told = run_module("server_shelf", {"server": "spamcheck", "state": "active"})
    assert told.failed
    for way in ("clouds.yaml", "OS_*", "application credential"):
        assert way in told["msg"]


# Where the credential comes from


def test_a_cloud_by_its_name_in_clouds_yaml_and_the_name_is_not_masked(
    open_cloud: OpenCloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cloud = open_cloud("ACTIVE")
    (tmp_path / "clouds.yaml").write_text(yaml.safe_dump({"clouds": {"jetstream2": cloud.clouds_yaml()}}))
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(tmp_path / "clouds.yaml"))
    done = shelf(cloud, "active", cloud="jetstream2", auth=None, auth_type=None)
    assert done["status_after"] == "ACTIVE"
    assert done["invocation"]["module_args"]["cloud"] == "jetstream2"


def test_a_cloud_from_the_environment(open_cloud: OpenCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    cloud = open_cloud("ACTIVE")
    monkeypatch.setenv("OS_AUTH_TYPE", "v3applicationcredential")
    for name, value in cloud.clouds_yaml()["auth"].items():
        monkeypatch.setenv(f"OS_{name.upper()}", value)
    assert shelf(cloud, "active", auth=None, auth_type=None)["status_after"] == "ACTIVE"


def test_a_cloud_as_a_dictionary_works_and_its_credential_is_shown_nowhere(open_cloud: OpenCloud) -> None:
    cloud = open_cloud()
    entry = cloud.clouds_yaml()
    done = shelf(cloud, "active", cloud=entry, auth=None, auth_type=None)
    assert done["status_after"] == "ACTIVE"
    assert entry["region_name"] in done.text
    for value in entry["auth"].values():
        assert value not in done.text
        assert value not in done.logged
    assert "server=spamcheck" in done.logged


def test_the_names_that_openstack_cloud_has_for_its_arguments_are_understood(
    open_cloud: OpenCloud, tmp_path: Path
) -> None:
    paths = {name: tmp_path / f"{name}.pem" for name in ("cacert", "cert", "key")}
    for path in paths.values():
        path.touch()
    names = {name: str(path) for name, path in paths.items()}
    done = shelf(open_cloud("ACTIVE"), "active", verify=False, endpoint_type="public", **names)
    assert done["status_after"] == "ACTIVE"
    arguments = done["invocation"]["module_args"]
    assert (arguments["validate_certs"], arguments["interface"]) == (False, "public")
    assert [arguments[name] for name in ("ca_cert", "client_cert", "client_key")] == list(names.values())


def test_neither_output_nor_log_shows_the_credential_of_a_run_that_goes_well(open_cloud: OpenCloud) -> None:
    cloud = open_cloud()
    done = shelf(cloud, "active")
    for name in ("application_credential_id", "application_credential_secret"):
        assert cloud.clouds_yaml()["auth"][name] not in done.text
        assert cloud.clouds_yaml()["auth"][name] not in done.logged


# The run that the task belongs to


@pytest.fixture
def ended_run(tmp_path: Path) -> dict[str, Any]:
    """Arguments that name a run which was ended elsewhere."""
    return {"state_dir": str(tmp_path), "run": end_run(tmp_path, begin_run(tmp_path))}


def begin_run(state_dir: Path) -> int:
    return Ledger(state_dir).begin("spamcheck", "playbook", datetime.now(UTC), None)


def end_run(state_dir: Path, run: int) -> int:
    Ledger(state_dir).end(run, Summary(server="spamcheck"), datetime.now(UTC))
    return run


@pytest.mark.parametrize("wait", [True, False])
def test_a_task_that_outlived_its_run_asks_nothing_of_the_cloud(
    open_cloud: OpenCloud, ended_run: dict[str, Any], wait: bool
) -> None:
    cloud = open_cloud()
    told = shelf(cloud, "active", wait=wait, **ended_run)
    assert told.failed
    assert "was ended elsewhere" in told["msg"]
    assert changing(cloud) == []


def test_a_task_stops_waiting_when_its_run_is_ended(open_cloud: OpenCloud, clock: FakeClock, tmp_path: Path) -> None:
    cloud = open_cloud()
    cloud.order(ServerFault(Failure.STUCK, task_state="spawning"))
    run = begin_run(tmp_path)
    clock.at(30, lambda: end_run(tmp_path, run))
    told = shelf(cloud, "active", state_dir=str(tmp_path), run=run)
    assert "was ended elsewhere" in told["msg"]
    assert clock.monotonic() < 40


def test_a_task_of_an_open_run_does_its_work(open_cloud: OpenCloud, tmp_path: Path) -> None:
    done = shelf(open_cloud(), "active", state_dir=str(tmp_path), run=begin_run(tmp_path))
    assert done["status_after"] == "ACTIVE"


def test_check_mode_has_no_run_and_makes_no_folder(open_cloud: OpenCloud, tmp_path: Path) -> None:
    folder = tmp_path / "state"
    assert shelf(open_cloud(), "active", check=True, state_dir=str(folder), run=0)["changed"] is True
    assert not folder.exists()


@pytest.mark.parametrize("name", ["server_shelf", "spamcheck_run", "run_record"])
def test_where_the_package_is_missing_the_message_says_what_to_install(name: str) -> None:
    arguments = {
        "server_shelf": {"server": "spamcheck", "state": "active"},
        "spamcheck_run": {"url": "http://127.0.0.1:1", "api_key": "k" * 32},
        "run_record": {"state": "begun", "server": "spamcheck"},
    }[name]
    process = subprocess.run(
        [sys.executable, "-c", run_without_spamops(name)],
        input=json.dumps(arguments), capture_output=True, text=True, check=False,
    )  # fmt: skip
    told = json.loads(process.stdout)
    assert told["failed"] is True
    assert "Failed to import the required Python library (spamops)" in told["msg"]
