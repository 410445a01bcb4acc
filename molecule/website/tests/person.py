"""Playbooks run from the controller, as a person does, with everything that they print kept for the search for secrets."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[3]
EPHEMERAL = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
SITE, CHECKER = "spamops-website", "spamops-website-checker"
KEY_FILE = "/srv/site/build/secrets/llm_spam_check_api_key"
FIRST_KEY = "molecule-first-key-0123456789abcdefghij"


class Operator:
    """Somebody with an inventory, a vault password and these two hosts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.inventory = folder / "inventory"
        self.vault = self.inventory / "group_vars" / "all" / "vault.yml"
        self.password = folder / "vault-password"
        self.password.write_text("the-word-of-the-vault\n")
        self.output = ""
        self.secrets = {FIRST_KEY, "the-word-of-the-vault"}
        self._write_inventory()

    def _write_inventory(self) -> None:
        made = yaml.safe_load((EPHEMERAL / "inventory" / "ansible_inventory.yml").read_text())
        scenario = yaml.safe_load((ROOT / "molecule" / "website" / "molecule.yml").read_text())
        variables = scenario["provisioner"]["inventory"]["group_vars"]
        hosts = made["all"]["hosts"]
        groups = {
            group: {"hosts": {name: hosts[name] for name in hosts if self._group(scenario, name) == group}}
            for group in ("website", "checker")
        }
        for name in ("all", *groups):
            (self.inventory / "group_vars" / name).mkdir(parents=True, exist_ok=True)
        everywhere = variables["all"] | {
            "spamops_api_key": "{{ vault_spamops_api_key }}",
            "spamops_state_dir": str(self.folder / "state"),
        }
        (self.inventory / "group_vars" / "all" / "spamops.yml").write_text(yaml.safe_dump(everywhere))
        (self.inventory / "group_vars" / "website" / "website.yml").write_text(yaml.safe_dump(variables["website"]))
        # As in inventories/example: the controller is in the inventory, or playbooks would not know the inventory's folder.
        controller = {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"}
        whole = {"all": {"hosts": {"localhost": controller}, "children": groups}}
        (self.inventory / "hosts.yml").write_text(yaml.safe_dump(whole))

    @staticmethod
    def _group(scenario: dict[str, Any], name: str) -> str:
        return next(one["groups"][0] for one in scenario["platforms"] if one["name"] == name)

    def command(self, playbook: str, **variables: Any) -> tuple[list[str], dict[str, str]]:
        """Command line and environment."""
        settings = self.folder / "extra.yml"
        settings.write_text(yaml.safe_dump(variables))
        program = str(Path(sys.executable).parent / "ansible-playbook")
        line = [program, f"playbooks/{playbook}.yml", "-i", str(self.inventory), "-vvv", "--diff"]
        line += ["--vault-password-file", str(self.password), "-e", f"@{settings}"]
        environment = os.environ | {
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".collections"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_PIPELINING": "True",
            "ANSIBLE_DISPLAY_SKIPPED_HOSTS": "False",
        }
        return line, environment

    def run(self, playbook: str, *more: str, fails: bool = False, **variables: Any) -> str:
        """Run a playbook to its end; its output."""
        line, environment = self.command(playbook, **variables)
        done = subprocess.run(
            [*line, *more],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=170,
        )
        text = done.stdout + done.stderr
        self.output += text
        assert (done.returncode != 0) == fails, text[-12000:]
        return text

    def run_killed_at(self, playbook: str, task: str, **variables: Any) -> str:
        """Run a playbook and kill it, with everything that it started, when it comes to this task."""
        line, environment = self.command(playbook, **variables)
        process = subprocess.Popen(
            line,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        text = ""
        assert process.stdout is not None
        for printed in process.stdout:
            text += printed
            if printed.startswith("TASK [") and task in printed:
                os.killpg(process.pid, signal.SIGKILL)
                break
        process.stdout.close()
        code = process.wait(timeout=60)
        self.output += text
        assert code == -signal.SIGKILL, f"it ended before {task!r}:\n{text[-6000:]}"
        return text

    def vaulted(self) -> dict[str, str]:
        """What the encrypted file holds."""
        program = str(Path(sys.executable).parent / "ansible-vault")
        shown = subprocess.run(
            [program, "view", "--vault-password-file", str(self.password), str(self.vault)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        values: dict[str, str] = yaml.safe_load(shown)
        self.secrets |= set(values.values())
        return values


def changes(output: str) -> dict[str, int]:
    """Changed tasks by host, from the recap."""
    return {name: int(count) for name, count in re.findall(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)", output, re.MULTILINE)}


def on(host: str, command: str, *, check: bool = True) -> str:
    """A command on a host, as root, by the container engine: it leaves no trace of its own in sshd or sudo."""
    done = subprocess.run(
        ["docker", "exec", host, "/bin/sh", "-c", command], capture_output=True, text=True, timeout=60, check=False
    )
    assert not check or done.returncode == 0, done.stderr
    return done.stdout
