"""The role website, the playbooks around it, and a rotation that is killed at each step, on a real Django site over SSH.

The tests build on each other, in their order: what a person does one after the other.
"""

from __future__ import annotations

import json
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from person import CHECKER, FIRST_KEY, KEY_FILE, SITE, Operator, changes, on

from spamops import lock
from spamops.sandbox.cloud import SandboxCloud, ServerSpec
from spamops.sandbox.transitions import Delays

SETTINGS = "/srv/site/core/settings/production.py"
OTHERS_SECRETS = {"pa|ss&wo$rd-of-the-database", "s3cret-of-the-settings"}
QUICK = {"website_proof_seconds": 6, "rotate_key_wake": False, "rotate_key_proof_seconds": 6}


def address(host: str) -> str:
    return subprocess.run(
        ["docker", "inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", host],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()


def asked(url: str, key: str = "", host: str = "") -> int:
    """Status with which an outsider is answered; 0 for none."""
    request = urllib.request.Request(url, headers={"X-API-Key": key} if key else {})
    if host:
        request.add_header("Host", host)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=10) as answer:
            status: int = answer.status
            return status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def site(key: str = "", host: str = "www.example.org") -> int:
    return asked(f"http://{address(SITE)}:8000/api/spam/get-latest-batch/", key, host)


def checker(key: str = "") -> int:
    return asked(f"http://{address(CHECKER)}:8001/ok", key)


def about() -> dict[str, object]:
    request = urllib.request.Request(f"http://{address(SITE)}:8000/about/", headers={"Host": "www.example.org"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        found: dict[str, object] = json.load(answer)
    return found


def inode(path: str) -> str:
    return on(SITE, f"stat -c %i {path}").strip()


# What converge did


def test_the_site_takes_the_key_and_no_other() -> None:
    assert site(FIRST_KEY) == 200
    assert [site(), site("wrong"), site("unconfigured")] == [401, 401, 401]


def test_the_checkers_address_is_let_in_and_others_are_not() -> None:
    assert site(FIRST_KEY, address(CHECKER)) == 200
    assert site(FIRST_KEY, "192.0.2.77") == 200
    assert site(FIRST_KEY, "disallowed.invalid") == 400


def test_secrets_are_the_applications_alone_and_the_rest_of_the_files_is_as_it_was() -> None:
    assert on(SITE, "stat -c '%a %U' /srv/site/build/secrets/*").split("\n")[:3] == ["600 site"] * 3
    env = on(SITE, "cat /srv/site/.env")
    assert env.startswith("# made from a template\nDB_USER=comses\nDB_PASSWORD='pa|ss&wo$rd-of-the-database'\n")
    assert 'COMPOSE_PROJECT_NAME="site" # keep\n' in env
    assert f"LLM_SPAM_CHECK_API_URL=http://{address(CHECKER)}:8001\nLAST=without a line end\n" in env
    settings = on(SITE, f"cat {SETTINGS}")
    assert '    "192.0.2.77",  # the load balancer, asked for by the hosting team\n' in settings
    assert f'    "{address(CHECKER)}",\n' in settings
    assert "# security settings\nSECURE" in settings


def test_no_copy_and_no_note_stay_behind() -> None:
    assert (
        on(SITE, "find /srv/site /var/lib/spamops-website -name '*~' -o -name website-pending -o -name '.*.py.*'") == ""
    )


def test_the_application_knows_the_new_environment() -> None:
    assert about()["checker"] == f"http://{address(CHECKER)}:8001"


# A person's own inventory, with secrets in a vault


def test_strong_secrets_are_made_once_and_never_again(operator: Operator) -> None:
    operator.run("init_secrets")
    made = operator.vaulted()
    assert len(made["vault_spamops_api_key"]) == 64
    assert operator.vault.read_text().startswith("$ANSIBLE_VAULT")
    assert operator.vault.stat().st_mode & 0o077 == 0
    operator.run("init_secrets")
    assert operator.vaulted() == made


def test_the_new_key_comes_in_place_by_a_reload_alone(operator: Operator) -> None:
    before, file = about(), inode(KEY_FILE)
    key = operator.vaulted()["vault_spamops_api_key"]
    told = operator.run("website", "--check")
    assert site(FIRST_KEY) == 200, "check mode changes nothing"
    assert "fingerprint" in told
    operator.run("website", **QUICK)
    assert [site(key), site(FIRST_KEY)] == [200, 401]
    assert inode(KEY_FILE) == file, "a running container sees the file that was mounted into it, not another one"
    assert about()["parent"] == before["parent"], "a reload was enough"


def test_a_second_run_and_a_check_find_nothing_to_change(operator: Operator) -> None:
    assert set(changes(operator.run("website", **QUICK)).values()) == {0}
    assert set(changes(operator.run("website", "--check")).values()) == {0}


def test_validate_names_every_fault_at_once_and_compares_fingerprints(operator: Operator) -> None:
    told = operator.run(
        "validate", fails=True, spamops_checker_url="http://203.0.113.9:1/", spamops_auth={"auth_url": ""}
    )
    assert "spamops_checker_url is not an address" in told
    assert "the cloud:" in told
    cloud = SandboxCloud([ServerSpec(id="00000000-0000-4000-8000-000000000000", status="ACTIVE")])
    with cloud:
        told = operator.run(
            "validate",
            fails=True,
            spamops_auth=cloud.clouds_yaml()["auth"],
            spamops_auth_type="v3applicationcredential",
        )
    assert "the key on spamops-website-checker (fingerprint" in told
    assert "the key on spamops-website (" not in told


# Refusals and repairs


@pytest.mark.parametrize("key", ["", "short", "unconfigured", "change-me-" * 5])
def test_a_key_that_is_none_is_refused_and_nothing_is_touched(operator: Operator, key: str) -> None:
    before = on(SITE, f"cat {KEY_FILE} {SETTINGS} /srv/site/.env")
    told = operator.run("website", fails=True, website_api_key=key)
    assert "nothing was changed" in told
    assert on(SITE, f"cat {KEY_FILE} {SETTINGS} /srv/site/.env") == before


def test_a_failed_proof_puts_everything_back(operator: Operator) -> None:
    key = operator.vaulted()["vault_spamops_api_key"]
    # As the site's own tooling may have left it: readable by others, and the application relies on that.
    on(SITE, f"chown root:root {KEY_FILE} && chmod 0644 {KEY_FILE}")
    state = f"cat {KEY_FILE} {SETTINGS} /srv/site/.env; stat -c '%a %U %G %n' {KEY_FILE} {SETTINGS} /srv/site/.env"
    before = on(SITE, state)
    other = "another-key-that-the-site-never-reads-0123456789"
    operator.secrets.add(other)
    told = operator.run(
        "website", fails=True, website_api_key=other, website_allowed_hosts=["203.0.113.50"], website_secrets_effect="none",
        website_hosts_effect="none", website_checker_url="http://203.0.113.50:8001", website_env_effect="none",
        website_proof_seconds=2,
    )  # fmt: skip
    assert "is not as it should be" in told, told[-6000:]
    assert "The previous state was put back" in told
    assert on(SITE, state) == before
    assert site(key) == 200
    operator.run("website", **QUICK)
    assert on(SITE, f"stat -c '%a %U' {KEY_FILE}") == "600 site\n"


def test_a_change_that_was_cut_off_takes_effect_in_the_next_run(operator: Operator) -> None:
    moved = {"website_allowed_hosts": ["203.0.113.60"], **QUICK}
    operator.run_killed_at("website", "Let it take effect", **moved)
    key = operator.vaulted()["vault_spamops_api_key"]
    assert site(key, "203.0.113.60") == 400, "the file is changed, the application has not read it"
    operator.run("website", **moved)
    assert site(key, "203.0.113.60") == 200
    assert site(key, address(CHECKER)) == 400, "the old address of ours is gone"
    operator.run("website", **QUICK)
    assert [site(key, address(CHECKER)), site(key, "203.0.113.60")] == [200, 400]
    assert set(changes(operator.run("website", **QUICK)).values()) == {0}


def test_a_change_that_was_cut_off_and_proves_wrong_is_put_back_by_the_next_run(operator: Operator) -> None:
    before = on(SITE, f"cat {SETTINGS} /srv/site/.env")
    wrong = {
        "website_checker_url": "http://203.0.113.70:8001", "website_env_effect": "none", "website_hosts_effect": "none",
        "website_secrets_effect": "none", "website_proof_seconds": 2,
    }  # fmt: skip
    operator.run_killed_at("website", "Let it take effect", **wrong)
    assert "203.0.113.70" in on(SITE, f"cat {SETTINGS} /srv/site/.env")
    told = operator.run("website", fails=True, **wrong)
    assert "The previous state was put back, but for secrets that an earlier run changed" in told
    assert on(SITE, f"cat {SETTINGS} /srv/site/.env") == before
    assert on(SITE, "ls /var/lib/spamops-website") == ""
    assert set(changes(operator.run("website", **QUICK)).values()) == {0}


def test_files_that_the_application_has_not_read_are_noticed(operator: Operator) -> None:
    """Somebody wrote the right key back by hand, and reloaded nothing."""
    key = operator.vaulted()["vault_spamops_api_key"]
    on(
        SITE,
        f"printf wrong-key-wrong-key-wrong-key-wrong >{KEY_FILE}; systemctl restart site; sleep 2; printf {key} >{KEY_FILE}",
    )
    assert site(key) == 401
    operator.run("website", **QUICK)
    assert site(key) == 200


# Rotation


def give_checker(key: str) -> None:
    on(CHECKER, f"printf {key} >/etc/spamcheck/api_key; systemctl restart spamcheck-api spamcheck-worker")


def wait_for_the_lock(operator: Operator) -> None:
    """The guard of the dead playbook sees its death and gives back the lock."""
    for _ in range(100):
        if lock.holder(operator.folder / "state", "00000000-0000-4000-8000-000000000000") is None:
            return
        time.sleep(0.1)
    raise AssertionError("the guard did not give back the lock")


def test_a_rotation_is_refused_while_a_check_runs_or_waits(operator: Operator) -> None:
    key = operator.vaulted()["vault_spamops_api_key"]
    give_checker(key)
    on(CHECKER, "touch /run/a-check-runs")
    told = operator.run("rotate_key", fails=True, **QUICK)
    on(CHECKER, "rm /run/a-check-runs")
    assert "a check is running on the checker" in told
    assert "Nothing had been changed" in told
    assert set(operator.vaulted()) == {"vault_spamops_api_key", "vault_spamcheck_payload_key"}
    assert [site(key), checker(key)] == [200, 200]


KILLED_AT = [
    "Read it",  # the new key is made, and is nowhere yet
    "Restart what reads it",  # the checker's file is new, the checker is not
    "Note that the checker has it",  # the checker is new
    "Let it take effect",  # the site's file is new, the site is not
    "Prove it from outside",  # the site is new, and unproven
    "Note that it can",  # both are new and proven, the vault does not know yet
]


@pytest.mark.timeout(1200)
def test_a_rotation_that_is_killed_at_each_step_ends_well_when_repeated(operator: Operator) -> None:
    old = operator.vaulted()["vault_spamops_api_key"]
    new = ""
    with Watched() as processes:
        for task in KILLED_AT:
            operator.run_killed_at("rotate_key", task, **QUICK)
            kept = operator.vaulted()
            assert kept["vault_spamops_api_key"] == old, "until it is in force everywhere the old key is the key"
            new = new or kept["vault_spamops_api_key_next"]
            assert kept["vault_spamops_api_key_next"] == new, "one new key, however often it is cut off"
            wait_for_the_lock(operator)
        operator.run("rotate_key", **QUICK)
    assert operator.vaulted()["vault_spamops_api_key"] == new
    assert "vault_spamops_api_key_next" not in operator.vaulted()
    assert [site(new), checker(new), site(old), checker(old)] == [200, 200, 401, 401]
    assert set(changes(operator.run("website", **QUICK)).values()) == {0}
    assert processes.lines, "the process lists were watched"
    assert not [line for line in processes.lines if old in line or new in line]


def test_a_rotation_that_fails_on_one_end_is_undone_on_both(operator: Operator) -> None:
    key = operator.vaulted()["vault_spamops_api_key"]
    # The site stops reloading: its files change, the process keeps the old key.
    on(SITE, "mkdir -p /run/systemd/system/site.service.d; printf '[Service]\\nExecReload=\\nExecReload=/bin/true\\n'"
       " >/run/systemd/system/site.service.d/dead.conf; systemctl daemon-reload")  # fmt: skip
    told = operator.run("rotate_key", fails=True, **QUICK)
    on(SITE, "rm -r /run/systemd/system/site.service.d; systemctl daemon-reload")
    assert "the website:" in told
    assert "The old key is back in force on both ends" in told
    assert set(operator.vaulted()) == {"vault_spamops_api_key", "vault_spamcheck_payload_key"}
    assert [site(key), checker(key)] == [200, 200]
    assert on(SITE, f"cat {KEY_FILE}") == on(CHECKER, "cat /etc/spamcheck/api_key") == key


def test_a_shelved_server_is_woken_for_the_rotation_and_shelved_again(operator: Operator) -> None:
    old = operator.vaulted()["vault_spamops_api_key"]

    def power(_server: str, is_on: bool) -> None:
        subprocess.Popen(["docker", "unpause" if is_on else "pause", CHECKER])

    server = ServerSpec(id="00000000-0000-4000-8000-000000000000", status="SHELVED_OFFLOADED")
    subprocess.run(["docker", "pause", CHECKER], check=True)
    try:
        with SandboxCloud([server], delays=Delays(), on_power=power) as cloud:
            variables = QUICK | {
                "rotate_key_wake": True,
                "spamops_auth": cloud.clouds_yaml()["auth"],
                "spamops_auth_type": "v3applicationcredential",
            }
            operator.run("rotate_key", **variables)
            assert [action for _, action in cloud.action_requests] == ["unshelve", "shelve"]
            assert cloud.history(server.id)[-1][1] == "SHELVED_OFFLOADED"
    finally:
        time.sleep(1)
        subprocess.run(["docker", "unpause", CHECKER], check=False, capture_output=True)
    new = operator.vaulted()["vault_spamops_api_key"]
    assert new != old
    assert [site(new), checker(new), site(old), checker(old)] == [200, 200, 401, 401]


# An overlay: a settings module of our own that extends the site's


OVERLAY = "/srv/site/spamops/spamops_settings.py"
NAMES_THE_OVERLAY = (
    "[Service]\nEnvironment=DJANGO_SETTINGS_MODULE=spamops_settings PYTHONPATH=/srv/site/spamops:/srv/site\n"
)


@pytest.fixture
def with_overlay(operator: Operator) -> Iterator[dict[str, object]]:
    """The site names an overlay that is not there yet, and our entries are out of its own settings."""
    operator.run("website", website_state="absent", **QUICK)
    drop_in = "/etc/systemd/system/site.service.d"
    on(SITE, f"mkdir -p {drop_in} /srv/site/spamops; printf '{NAMES_THE_OVERLAY}' >{drop_in}/overlay.conf")
    on(SITE, "systemctl daemon-reload")
    yield {
        "website_hosts_mode": "overlay",
        "website_hosts_file": OVERLAY,
        "website_overlay_extends": "core.settings.production",
        "website_hosts_effect": "restart",
        **QUICK,
    }
    on(SITE, f"rm -r {drop_in} /srv/site/spamops; systemctl daemon-reload; systemctl restart site")
    operator.run("website", **QUICK)


def test_an_overlay_is_made_proven_and_taken_back_and_the_site_is_never_without_one(
    operator: Operator, with_overlay: dict[str, object]
) -> None:
    key = operator.vaulted()["vault_spamops_api_key"]
    told = operator.run("website", fails=True, website_proof_disallowed_host=address(CHECKER), **with_overlay)
    assert "The previous state was put back" in told
    on(SITE, "systemctl restart site; sleep 2")
    assert [site(key), site(key, address(CHECKER))] == [200, 400], "it starts, with the site's own list"
    operator.run("website", **with_overlay)
    assert on(SITE, f"stat -c '%a %U' {OVERLAY}") == "644 root\n", "the application does not run as root"
    assert [site(key), site(key, address(CHECKER)), site(key, "disallowed.invalid")] == [200, 200, 400]
    assert set(changes(operator.run("website", **with_overlay)).values()) == {0}
    operator.run("website", website_state="absent", **with_overlay)
    assert [site(key), site(key, address(CHECKER))] == [200, 400]


# A compose project, as far as that goes without images


def test_a_compose_project_is_generated_and_recreated_for_env_and_touched_for_a_secret(operator: Operator) -> None:
    on(SITE, """cat >/usr/local/bin/fake-compose <<'X'
#!/bin/sh
echo "$*" >>/tmp/compose.log
case $1 in exec) systemctl reload site ;; up|restart) systemctl restart site ;; esac
X
chmod +x /usr/local/bin/fake-compose""")  # fmt: skip
    compose = {
        "website_runtime": "compose",
        "website_compose_command": ["/usr/local/bin/fake-compose"],
        "website_compose_generate": ["/usr/local/bin/fake-compose", "generate"],
        "website_compose_touch": "/code/core/wsgi.py",
        **QUICK,
    }
    operator.run("website", website_server_id="11111111-0000-4000-8000-000000000000", **compose)
    assert on(SITE, "cat /tmp/compose.log").splitlines() == [
        "generate",
        "up --detach --no-deps --force-recreate server",
    ]
    on(SITE, f"rm /tmp/compose.log; printf unconfigured-unconfigured-unconfigured-x >{KEY_FILE}")
    operator.run("website", website_server_id="11111111-0000-4000-8000-000000000000", **compose)
    assert on(SITE, "cat /tmp/compose.log").splitlines() == ["exec -T server touch /code/core/wsgi.py"]


# Taking it back


def test_what_spamops_changed_can_be_taken_back_without_opening_the_site(operator: Operator) -> None:
    key = operator.vaulted()["vault_spamops_api_key"]
    operator.run("website", website_state="absent", **QUICK)
    assert site(key, address(CHECKER)) == 400
    assert site("unconfigured") == 401, "the key stays: without it everybody would know it"
    env = on(SITE, "cat /srv/site/.env")
    assert "LLM_SPAM_CHECK" not in env
    settings = on(SITE, f"cat {SETTINGS}")
    assert "spamops" not in settings
    assert '    "192.0.2.77",  # the load balancer, asked for by the hosting team\n]\n' in settings
    assert on(SITE, "ls /srv/site/build/secrets").split() == ["llm_spam_check_api_key"]
    assert set(changes(operator.run("website", website_state="absent", **QUICK)).values()) == {0}
    operator.run("website", **QUICK)
    assert site(key, address(CHECKER)) == 200


# Secrets


class Watched:
    """Every command line here and on both hosts, all the time in the block."""

    def __init__(self) -> None:
        self.lines: set[str] = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Watched:
        self._thread.start()
        return self

    def _watch(self) -> None:
        watch = "for _ in $(seq 10); do ps -eww -o args; sleep 0.2; done"
        while not self._over.is_set():
            for host in (SITE, CHECKER):
                self.lines |= set(on(host, watch, check=False).splitlines())
            self.lines |= set(
                subprocess.run(["ps", "-eww", "-o", "args"], capture_output=True, text=True).stdout.splitlines()
            )

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def test_no_secret_is_in_any_output_at_vvv_in_a_diff_a_journal_or_a_file_where_it_does_not_belong(
    operator: Operator,
) -> None:
    operator.vaulted()
    secrets = operator.secrets | OTHERS_SECRETS | {"molecule-cloud-secret-0123456789abcdefghijklmnopqrstuvwxyz"}
    assert len(operator.output) > 100_000, "there is something to search"
    # Not by `in` of an assertion, which would print it.
    assert [secret[:6] for secret in secrets if secret in operator.output] == []
    belongs = {
        SITE: {"/srv/site/build/secrets/"},
        CHECKER: {"/etc/spamcheck/api_key"},
    }
    for host, places in belongs.items():
        journal = on(host, "journalctl --no-pager --output=cat --all", check=False)
        assert [secret[:6] for secret in operator.secrets if secret in journal] == []
        for secret in operator.secrets:
            # The pattern by standard input: it must not be in a command line either.
            found = subprocess.run(
                ["docker", "exec", "-i", host, "grep", "-rlsFf", "-", "/srv", "/etc", "/var", "/home", "/root", "/tmp", "/opt"],
                input=secret, capture_output=True, text=True, timeout=120,
            ).stdout.split()  # fmt: skip
            assert [path for path in found if not any(path.startswith(place) for place in places)] == []
