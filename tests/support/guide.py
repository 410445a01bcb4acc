"""The commands of a page of documentation, and a place in which they can be run as they are written.

What root, another user, the cloud's address and systemd are on a real controller, stand-ins are here: a folder in the place of
`/`, scripts that come first on the PATH. Everything else is real: the programs, the modes of the files, the exit codes.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
SERVER_ADDRESS = "203.0.113.7"
"""As the documentation calls it."""
FOLDERS = ("/etc/spamops", "/etc/cron.d", "/opt/spamops", "/usr/local/bin", "/var/lib/spamops")
"""Folders of a controller that lie below a folder of the test."""
VAULT_PASSWORD = "the-word-of-the-vault"

PROGRAMS = frozenset(
    ". .venv/bin/uv ansible-playbook ansible-vault cat cd chgrp chmod cp git install journalctl ln ls mv python3 rm"
    " scripts/bootstrap sed spamops ssh ssh-keygen ssh-keyscan systemctl useradd".split()
)
"""What the tests of the guide know how to run."""
UNITS = frozenset({"spamops-check.timer", "spamops-check.service", "spamops-reap.timer", "spamops-reap.service"})
IDENTIFIERS = frozenset({"spamops-check", "spamops-reap"})


def chapters(page: str) -> dict[str, list[str]]:
    """The sh fences of a page by the heading of their chapter (##), in their order."""
    found: dict[str, list[str]] = {}
    for part in re.split(r"^## ", page, flags=re.M)[1:]:
        fences = re.findall(r"^```sh\n(.*?)^```", part, re.M | re.S)
        if fences:
            found[part.partition("\n")[0]] = fences
    return found


def lines(fence: str) -> list[str]:
    """The commands of a fence, those that go on in a further line put together, without comments."""
    joined = re.sub(r"(\\|\|)\n\s*", lambda told: "| " if told[1] == "|" else "", fence)
    return [bare for line in joined.splitlines() if (bare := re.sub(r"(^|\s+)# .*", "", line).strip())]


def programs(line: str) -> list[list[str]]:
    """The programs that a command starts, each with its arguments, without sudo and without assignments."""
    reader = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    reader.whitespace_split = True
    found: list[list[str]] = [[]]
    skip = False
    for word in reader:
        if skip:
            skip = False
        elif word in ("|", "&&", ";"):
            found.append([])
        elif set(word) <= set("<>"):
            skip = True  # the file behind it
        else:
            found[-1].append(word)
    return [words for each in found if (words := _bare(each))]


def _bare(words: list[str]) -> list[str]:
    while words and re.fullmatch(r"\w+=.*", words[0]):
        words = words[1:]
    if words[:1] == ["sudo"]:
        words = words[1:]
        if words == ["-v"]:
            return []
        if words[:2] == ["-u", "spamops"]:
            words = words[2:]
    return words


STAND_INS = {
    # Whoever may be root here is this user, and so is the user of the checks.
    "sudo": 'case $1 in -v) exit 0;; -u) [ "$2" = spamops ] || exit 97; shift 2;; -*) exit 97;; esac; exec "$@"',
    "useradd": 'echo "useradd $*" >> "$GUIDE_LOG"',
    "chgrp": '[ "$1" = spamops ] && [ -e "$2" ] && [ $# = 2 ]',
    "install": """line=
while [ $# -gt 0 ]; do
  case $1 in
    -o | -g) case $2 in root | spamops) shift 2;; *) exit 97;; esac;;
    *) line="$line '$1'"; shift;;
  esac
done
eval "exec /usr/bin/install $line" """,
    "systemctl": 'echo "systemctl $*" >> "$GUIDE_LOG"',
    "journalctl": 'echo "journalctl $*" >> "$GUIDE_LOG"',
    "ssh": f"""case $1 in
  ubuntu@{SERVER_ADDRESS}) shift; exec "$GUIDE_SSH" -p "$GUIDE_PORT" -i "$GUIDE_KEY" -o UserKnownHostsFile="$GUIDE_KNOWN" ubuntu@127.0.0.1 "$@";;
  *) exec "$GUIDE_SSH" "$@";;
esac""",
    "ssh-keyscan": f'[ "$*" = {SERVER_ADDRESS} ] && exec "$GUIDE_KEYSCAN" -p "$GUIDE_PORT" 127.0.0.1 2>/dev/null',
    # The passwords that a person types. A playbook for real hosts is written down: a Molecule scenario runs it.
    "ansible-playbook": f"""echo "ansible-playbook $*" >> "$GUIDE_LOG"
case $1 in
  playbooks/init_secrets.yml | playbooks/credential.yml | playbooks/run_check.yml) ;;
  *) [ -f "$1" ]; exit;;
esac
for word; do
  shift
  case $word in
    --ask-vault-password) set -- "$@" --vault-password-file "$GUIDE_PASSWORD";;
    --ask-become-pass) ;;
    *) set -- "$@" "$word";;
  esac
done
exec {BIN}/ansible-playbook "$@" """,
    "ansible-vault": f"""[ "$1 $2" = 'view --ask-vault-password' ] || exit 97
shift 2; exec {BIN}/ansible-vault view --vault-password-file "$GUIDE_PASSWORD" "$@" """,
}


class Controller:
    """A machine on which the page's commands are run: `etc/spamops` and so on lie below `folder`, the checkout is `checkout`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.checkout = folder / "checkout"
        self.log = folder / "log"
        self.password = folder / "password"
        self.environ: dict[str, str] = {}
        self.log.touch()
        self.password.write_text(f"{VAULT_PASSWORD}\n")
        for name in ("/etc/cron.d", "/usr/local/bin", "/var/lib", "/opt"):
            self.path(name).mkdir(parents=True)
        stand_ins = folder / "stand-ins"
        stand_ins.mkdir()
        for name, script in STAND_INS.items():
            (stand_ins / name).write_text(f"#!/bin/sh\n{script}\n")
            (stand_ins / name).chmod(0o755)
        self._paths = f"{stand_ins}:{self.path('/usr/local/bin')}"
        self._make_checkout()

    def _make_checkout(self) -> None:
        """This working tree, but for what the commands write into."""
        self.checkout.mkdir()
        for path in ROOT.iterdir():
            if path.name in ("src", "pyproject.toml", "README.md", "LICENSE"):  # a package is built from them
                copy = shutil.copytree if path.is_dir() else shutil.copy
                copy(path, self.checkout / path.name)
            elif path.name not in (".git", ".venv", "inventories", "scripts", "spamops.toml"):
                (self.checkout / path.name).symlink_to(path)
        shutil.copytree(ROOT / "inventories" / "example", self.checkout / "inventories" / "example")
        (self.checkout / "scripts").mkdir()
        # Every test runs in the environment that the real one has made.
        self._script("scripts/bootstrap", f'[ "$*" = dev ] && [ -x {BIN}/ansible-playbook ]')
        # From what the bootstrap has fetched, where that is still there.
        self._script(".venv/bin/uv", f'{BIN}/uv --offline "$@" 2>/dev/null || exec {BIN}/uv "$@"')
        (self.checkout / ".venv" / "bin" / "activate").write_text(f". {BIN}/activate; PATH={self._paths}:$PATH\n")

    def _script(self, name: str, text: str) -> None:
        path = self.checkout / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def path(self, name: str) -> Path:
        """Where a file of a controller is here."""
        return self.folder / name.lstrip("/")

    def here(self, text: str) -> str:
        """The text with the paths that it has here."""
        return re.sub(rf"(?<![\w.])({'|'.join(FOLDERS)})(?=[/\s\"';]|$)", lambda told: f"{self.path(told[1])}", text)

    @property
    def logged(self) -> list[str]:
        """What stand-ins wrote down."""
        return self.log.read_text().splitlines()

    def run(self, script: str, cwd: Path | None = None) -> str:
        """Run commands as one shell would that ends at the first failure; what they said."""
        place = {
            "PATH": f"{self._paths}:{os.environ['PATH']}",
            "GUIDE_LOG": str(self.log),
            "GUIDE_PASSWORD": str(self.password),
            "GUIDE_SSH": shutil.which("ssh") or "ssh",
            "GUIDE_KEYSCAN": shutil.which("ssh-keyscan") or "ssh-keyscan",
            "SPAMOPS_CONFIG": str(self.path("/etc/spamops/spamops.toml")),
            "ANSIBLE_NOCOLOR": "1",
        }
        done = subprocess.run(
            ["bash", "-Eeuo", "pipefail", "-c", f"trap 'echo \"FAILED: $BASH_COMMAND\" >&2' ERR\n{self.here(script)}"],
            cwd=cwd or self.checkout,
            env=os.environ | place | self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{done.returncode}:\n{script}\n{done.stdout[-6000:]}"
        return done.stdout
