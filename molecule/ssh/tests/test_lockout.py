"""Attempts to lock oneself out of a host, and what the role makes of them. What the host is like is looked at past SSH."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

FOLDER = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
SNAPSHOT = (
    "for f in $(find /etc/ssh /etc/systemd/system /var/lib/spamops-ssh ! -type d 2>/dev/null | sort); do "
    "echo $f $(stat -c '%a %U %G' $f) $(sha256sum <$f); done"
)
# The files, and what the server makes of them: it must have taken up again what was put back.
LOOK = f"{SNAPSHOT}; ss -Hltn | awk '{{print $4}}' | sort"
BLOCK = (
    "nft add table inet lockout && nft add chain inet lockout in '{ type filter hook input priority 0; }' && "
    "nft add rule inet lockout in tcp dport 2222 drop"
)
UNBLOCK = "nft delete table inet lockout"
# Has a restoration killed in the middle, the first time: the drop-in is gone by then, the moduli are not.
KILL_ONCE = (
    "sed -i '/00-spamops.conf$/a [ -e /run/killed ] || { touch /run/killed; kill -KILL $$; }' "
    "/var/lib/spamops-ssh/pending/restore.sh"
)
OTHER_KEY = (
    "install -d -m 755 /etc/ssh/keys && rm -f /tmp/other /tmp/other.pub && ssh-keygen -q -t ed25519 -N '' -f /tmp/other && "
    "install -m 644 /tmp/other.pub /etc/ssh/keys/debian"
)
pytestmark = pytest.mark.timeout(600)  # the stories are told by one run of Ansible
NO_NEW_KEY = {"ssh_host_key_rsa_bits": 3072}  # what the package makes is long enough then: a longer one takes seconds
LOCKOUT = {"ssh_extra_options": ["Match User debian", "ForceCommand /bin/false"]}


@dataclass
class Story:
    """One application of the role that must not cut the user off."""

    settings: dict[str, Any]
    before: str = "true"
    after: str = "true"
    connection: dict[str, Any] = field(default_factory=dict)


# Refused before anything is touched.
FORESEEN = {
    "a user list without the connecting user": (
        Story({"ssh_allow_users": ["somebody", "debian@192.0.2.7"]}),
        "AllowUsers (somebody debian@192.0.2.7) does not let debian",
    ),
    "a group list without the connecting user": (
        Story({"ssh_allow_groups": ["operators"]}),
        "AllowGroups (operators) holds none",
    ),
    "the connecting user denied": (Story({"ssh_deny_users": ["deb*"]}), "DenyUsers (deb*) names debian"),
    "a group of the connecting user denied": (
        Story({"ssh_deny_groups": ["debian"]}),
        "DenyGroups (debian) names a group of debian",
    ),
    "no keys for this user": (
        Story({"ssh_extra_options": ["Match User debian", "PubkeyAuthentication no"]}),
        "PubkeyAuthentication is off",
    ),
    "key files that are not there": (
        Story({"ssh_authorized_keys_files": ["/etc/ssh/none/%u"]}),
        "no key of debian in /etc/ssh/none/debian",
    ),
    "a kind of key that the user has not": (
        Story({"ssh_user_key_algorithms": ["rsa-sha2-512"]}),
        "none of the keys of debian (ssh-ed25519)",
    ),
    "an option that is not valid": (
        Story({"ssh_extra_options": ["PermitRootLogn no"]}),
        "Bad configuration option: PermitRootLogn",
    ),
    "a second factor for this user": (
        Story({"ssh_extra_options": ["Match User debian", "AuthenticationMethods publickey,password"]}),
        "AuthenticationMethods (publickey,password) asks for more",
    ),
    "an earlier drop-in that undoes this one": (
        Story(
            {},
            "echo PasswordAuthentication yes >/etc/ssh/sshd_config.d/00-early.conf",
            "rm /etc/ssh/sshd_config.d/00-early.conf",
        ),
        "passwordauthentication would be 'yes' because of /etc/ssh/sshd_config.d/00-early.conf:1",
    ),
    "a main file that includes no drop-ins": (
        Story(
            {},
            "cp -p /etc/ssh/sshd_config /root/kept && sed -i /^Include/d /etc/ssh/sshd_config",
            "mv /root/kept /etc/ssh/sshd_config",
        ),
        "does not include the drop-ins",
    ),
    "a login by password": (
        Story({}, connection={"ansible_password": "correct horse"}),
        "Ansible logs in with a password",
    ),
    "a host that would not wait for the proof": (
        Story({"ssh_rollback_seconds": 20}, connection={"ansible_timeout": 30}),
        "the host would undo the change after 20 seconds, before the proof has had its time",
    ),
}
# Not to be foreseen, and seen by the host as soon as the server is started anew: nothing would answer any more.
NOT_TAKEN_UP = {
    "an address that the host has not": (
        Story({"ssh_extra_options": ["ListenAddress 192.0.2.1"]}),
        "the server does not take it up",
    ),
}
# Seen by the new login alone, and undone.
PROVEN = {
    "key files that hold somebody else's key": (
        Story(
            {"ssh_authorized_keys_files": ["/etc/ssh/keys/%u"], "ssh_host_key_rsa_bits": 4096},
            OTHER_KEY,
            "rm -r /etc/ssh/keys",
        ),
        "Permission denied (publickey)",
    ),
    "a command in the place of a shell": (Story(LOCKOUT), "the login gives no shell"),
    "a port that nobody reaches": (Story({"ssh_ports": [2222]}, BLOCK, UNBLOCK), "the server did listen at port 2222"),
}


def play(name: str, story: Story) -> dict[str, Any]:
    """The play of a story, with a look at the host before and afterwards."""

    def shell(script: str, **more: Any) -> dict[str, Any]:
        return {"ansible.builtin.shell": {"_raw_params": script}, "changed_when": False, **more}

    why = "{{ {'msg': ansible_failed_result.msg, 'journal': ansible_failed_result.journal | default([])} }}"
    role = {"name": "comses.spamops.ssh"}
    came_of_it = {"outcome": "{{ outcome }}", "before": "{{ before.stdout }}", "after": "{{ after.stdout }}"}
    told = "{{ told | default({}) | combine({story: came_of_it}) }}"
    return {
        "name": name,
        "hosts": "spamops-ssh-4",
        "gather_facts": False,
        "become": True,
        "tasks": [
            shell(f"{{ {story.before}; }} >/dev/null && {LOOK}", register="before"),
            {
                "block": [
                    {"ansible.builtin.set_fact": {"outcome": {"msg": ""}}},
                    {
                        "ansible.builtin.include_role": role,
                        "vars": {**NO_NEW_KEY, **story.settings, **story.connection},
                    },
                ],
                "rescue": [{"ansible.builtin.set_fact": {"outcome": why}}],
            },
            shell(f"{LOOK}; {story.after}", register="after"),
            {"ansible.builtin.set_fact": {"told": told}, "vars": {"story": name, "came_of_it": came_of_it}},
        ],
    }


def playbook(name: str, plays: list[dict[str, Any]], *arguments: str) -> list[str]:
    """The command that runs these plays."""
    path = FOLDER / f"{name}.yml"
    path.write_text(yaml.safe_dump(plays, sort_keys=False, width=1000))
    return ["ansible-playbook", "-i", str(FOLDER / "inventory"), str(path), *arguments]


def run(argv: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a playbook to its end."""
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=500)


@pytest.fixture(scope="module")
def bare(machine: Callable[[str], Any]) -> Any:
    """The host that the role was not applied to."""
    return machine("spamops-ssh-4")


@pytest.fixture(scope="module")
def told(bare: Any) -> Callable[[str], dict[str, Any]]:
    """What came of each story: all are told by one run of Ansible."""
    results = FOLDER / "stories.json"
    results.unlink(missing_ok=True)
    # Written here: a host that cannot be reached any more has no further plays.
    told = f"{{{{ hostvars['{bare.name}'].told | default({{}}) | to_json }}}}"
    write = {"ansible.builtin.copy": {"dest": str(results), "content": told, "mode": "0600"}}
    last = {"hosts": "localhost", "gather_facts": False, "tasks": [write]}
    stories = {**FORESEEN, **NOT_TAKEN_UP, **PROVEN}
    done = run(playbook("stories", [*(play(name, story) for name, (story, said) in stories.items()), last]))
    assert results.exists(), f"{done.stdout[-6000:]}{done.stderr[-2000:]}"
    outcomes: dict[str, Any] = json.loads(results.read_text())

    def of(name: str) -> dict[str, Any]:
        assert name in outcomes, f"nobody came through to see what became of it: {done.stdout[-6000:]}"
        found: dict[str, Any] = outcomes[name]
        return found

    return of


@pytest.mark.parametrize("name", FORESEEN)
def test_what_can_be_foreseen_is_refused_and_nothing_is_touched(told: Callable[[str], Any], name: str) -> None:
    story = told(name)
    assert FORESEEN[name][1] in story["outcome"]["msg"]
    assert "Nothing was touched" in story["outcome"]["msg"]
    assert story["before"] == story["after"]


@pytest.mark.parametrize("name", NOT_TAKEN_UP)
def test_what_the_server_does_not_take_up_is_undone_and_it_answers_again(told: Callable[[str], Any], name: str) -> None:
    story = told(name)
    assert NOT_TAKEN_UP[name][1] in story["outcome"]["msg"]
    assert "the previous configuration is back" in story["outcome"]["msg"]
    assert story["before"] == story["after"]


@pytest.mark.parametrize("name", PROVEN)
def test_what_only_a_new_login_shows_is_undone_to_the_byte(told: Callable[[str], Any], name: str) -> None:
    story = told(name)
    assert PROVEN[name][1] in story["outcome"]["msg"]
    assert "the previous configuration is back, byte for byte" in story["outcome"]["msg"]
    assert story["before"] == story["after"]


def test_the_server_s_own_words_are_in_the_failure(told: Callable[[str], Any]) -> None:
    assert any("publickey" in line for line in told("key files that hold somebody else's key")["outcome"]["journal"])


def test_the_old_port_answers_after_a_new_one_was_tried(told: Callable[[str], Any], bare: Any) -> None:
    told("a port that nobody reaches")
    assert bare.ssh().stdout == "in\n"
    assert "2222" not in bare.inside("ss -ltn")


class Cut:
    """A run that is killed while its change waits for the proof, and what a login at the old port came to until then."""

    def __init__(self, bare: Any, seconds: int) -> None:
        self.bare = bare
        bare.inside(BLOCK)
        self.before = bare.snapshot()
        settings = {
            "ssh_ports": [2222],
            "ssh_rollback_seconds": seconds,
            **NO_NEW_KEY,
            **LOCKOUT,
        }
        cut = {
            "hosts": bare.name,
            "gather_facts": False,
            "become": True,
            "vars": {"ansible_timeout": min(60, seconds // 2)},
        }
        argv = playbook("cut", [{**cut, "roles": [{"role": "comses.spamops.ssh", **settings}]}])
        with (FOLDER / "cut.log").open("w") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=log)
        try:
            self.wait(
                lambda: "ForceCommand" in bare.inside("cat /etc/ssh/sshd_config.d/*.conf 2>/dev/null || true"), 120
            )
            # The server listens at the new port too, so the proof is under way: it waits, as that port is blocked.
            self.wait(lambda: ":2222 " in bare.inside("ss -ltn"), 15)
            self.at_old_port = bare.ssh()
        finally:
            # Ansible's workers are in sessions of their own, and would see to the end of the task.
            everyone = [*psutil.Process(self.process.pid).children(recursive=True), self.process]
            for one in everyone:
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()
            self.process.wait()
        # From here on only the host can help itself.
        assert "ForceCommand" in bare.inside("cat /etc/ssh/sshd_config.d/*.conf")

    @staticmethod
    def wait(until: Callable[[], bool], seconds: float) -> None:
        end = time.monotonic() + seconds
        while not until():
            assert time.monotonic() < end, (FOLDER / "cut.log").read_text()[-4000:]
            time.sleep(0.2)


class TestWithoutItsController:
    @pytest.fixture(scope="class")
    def cut(self, bare: Any) -> Iterator[Cut]:
        """A host that is on its own, with time enough to look at it; as it was before when the tests are over."""
        cut = Cut(bare, seconds=40)
        yield cut
        cut.wait(lambda: not bare.inside("ls /var/lib/spamops-ssh"), 90)
        bare.inside(f"{UNBLOCK} 2>/dev/null || true")

    def test_the_old_port_answers_while_a_new_one_is_tried(self, cut: Cut) -> None:
        # The change turns every shell into false: that command runs behind the login.
        assert cut.at_old_port.returncode == 1, f"nobody gets in by the old port: {cut.at_old_port.stderr}"

    def test_a_host_whose_controller_was_killed_restores_itself(self, cut: Cut, bare: Any) -> None:
        assert bare.ssh().returncode == 1, "the change is in force and locks out: without the timer it would stay so"
        cut.wait(lambda: not bare.inside("ls /var/lib/spamops-ssh"), 90)
        cut.wait(lambda: bare.ssh().stdout == "in\n", 20)
        bare.inside(UNBLOCK)
        assert bare.snapshot() == cut.before


class TestARestorationThatIsKilled:
    @pytest.fixture
    def cut(self, bare: Any) -> Iterator[Cut]:
        """A host that is on its own, and whose restoration will be killed once."""
        cut = Cut(bare, seconds=3600)
        bare.inside(KILL_ONCE)
        yield cut
        bare.inside(f"{UNBLOCK} 2>/dev/null || true; rm -f /run/killed")

    @pytest.fixture
    def half(self, cut: Cut, bare: Any) -> Cut:
        """The same one afterwards, without the timer's service."""
        bare.inside("systemctl stop spamops-ssh-restore-timer.timer; ! sh /var/lib/spamops-ssh/pending/restore.sh")
        assert bare.inside("ls /var/lib/spamops-ssh") == "restoring\n"
        assert bare.snapshot() != cut.before
        assert bare.ssh().returncode == 1, "the server has not taken anything up again"
        return cut

    def test_is_taken_up_by_the_host_itself(self, cut: Cut, bare: Any) -> None:
        bare.inside("systemctl start spamops-ssh-restore-timer.service")  # the timer's, before its time
        cut.wait(lambda: not bare.inside("ls /var/lib/spamops-ssh"), 30)
        bare.inside("rm /run/killed")
        assert bare.snapshot() == cut.before
        assert bare.ssh().stdout == "in\n"

    def test_is_finished_at_the_next_boot(self, half: Cut, bare: Any) -> None:
        bare.inside("systemctl daemon-reload && systemctl start spamops-ssh-restore.service && systemctl restart ssh")
        assert bare.snapshot() == half.before
        assert bare.ssh().stdout == "in\n"

    def test_is_finished_by_the_next_run_and_later_changes_are_restored_as_ever(self, half: Cut, bare: Any) -> None:
        refused = {"ssh_prove_login": False, "ssh_extra_options": ["PermitRootLogn no"], **NO_NEW_KEY}
        plays = [{"hosts": bare.name, "gather_facts": False, "roles": [{"role": "comses.spamops.ssh", **refused}]}]
        by_engine = {"ansible_connection": "community.docker.docker", "ansible_host": bare.name, "ansible_user": "root"}
        done = run(playbook("next", plays, "-e", json.dumps(by_engine)))
        assert "Bad configuration option: PermitRootLogn" in done.stdout + done.stderr
        assert bare.snapshot() == half.before
        assert bare.ssh().stdout == "in\n"
        done = run(playbook("later", [play("later", Story(LOCKOUT))]))
        assert done.returncode == 0, done.stdout
        assert bare.snapshot() == half.before
        assert bare.ssh().stdout == "in\n"


def test_over_a_connection_that_proves_nothing_the_role_refuses(bare: Any) -> None:
    before = bare.snapshot()
    plays = [{"hosts": bare.name, "gather_facts": False, "roles": ["comses.spamops.ssh"]}]
    by_engine = {"ansible_connection": "community.docker.docker", "ansible_host": bare.name, "ansible_user": "root"}
    done = run(playbook("engine", plays, "-e", json.dumps(by_engine)))
    assert done.returncode == 2
    assert "set ssh_prove_login to false" in " ".join((done.stdout + done.stderr).split())
    assert bare.snapshot() == before


def test_without_the_proof_the_same_user_list_locks_out(bare: Any) -> None:
    """What the other stories would come to, if it were not for the guard."""
    roles = [{"role": "comses.spamops.ssh", "ssh_prove_login": False, "ssh_allow_users": ["somebody"], **NO_NEW_KEY}]
    by_engine = {"ansible_connection": "community.docker.docker", "ansible_host": bare.name, "ansible_user": "root"}
    plays = [{"hosts": bare.name, "gather_facts": False, "roles": roles}]
    done = run(playbook("unproven", plays, "-e", json.dumps(by_engine)))
    assert done.returncode == 0, done.stdout
    assert "Permission denied" in bare.ssh().stderr
    bare.inside("rm /etc/ssh/sshd_config.d/00-spamops.conf && systemctl restart ssh")
    assert bare.ssh().stdout == "in\n"


def test_a_host_that_is_rebooted_before_the_proof_comes_back_as_it_was(bare: Any) -> None:
    """The last one, as the container's address may be another one afterwards."""
    cut = Cut(bare, seconds=3600)
    subprocess.run(["docker", "restart", "--time", "3", bare.name], check=True, capture_output=True, timeout=60)
    cut.wait(lambda: bare.inside("systemctl is-system-running || true").strip() in {"running", "degraded"}, 40)
    address = json.loads(subprocess.check_output(["docker", "inspect", bare.name]))[0]["NetworkSettings"]["Networks"]
    known_as = bare.address
    bare.address = next(iter(address.values()))["IPAddress"]
    assert bare.ssh("-o", f"HostKeyAlias={known_as}").stdout == "in\n"
    assert bare.snapshot() == cut.before
