"""Say as one JSON object what of Temporal is on this host. Reads only. Runs on the host as root, from standard input.

Argument: {"root", "config", "units": [...], "databases": [...], "user"}, as JSON.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any


def output_of(*command: str, user: str | None = None) -> str:
    """What a command prints; nothing when it is not there or fails."""
    try:
        done = subprocess.run(command, user=user, cwd="/", capture_output=True, text=True, check=False, timeout=60)
    except (OSError, LookupError):
        return ""
    return done.stdout if done.returncode == 0 else ""


def target_of(link: Path) -> str:
    """The name of the folder that a link leads to."""
    return link.readlink().name if link.is_symlink() else ""


def clusters() -> list[dict[str, Any]]:
    """The clusters of PostgreSQL, as Debian's tools know them."""
    columns = [line.split() for line in output_of("pg_lsclusters", "--no-header").splitlines()]
    return [{"version": c[0], "name": c[1], "port": int(c[2]), "online": c[3] == "online"} for c in columns]


def shards(config: Path) -> int:
    """The number of shards that the server was configured with; 0 without a configuration."""
    found = re.search(r"numHistoryShards: (\d+)", config.read_text()) if config.exists() else None
    return int(found.group(1)) if found else 0


def main() -> None:
    """Print the state."""
    wanted = json.loads(sys.argv[1])
    root = Path(wanted["root"])
    systemctl = ("systemctl", "show", "--property=ActiveState", "--value")
    state = {
        "version": target_of(root / "current"),
        "cli_version": target_of(root / "cli").removeprefix("cli-"),
        "releases": sorted(folder.name for folder in root.glob("*") if folder.is_dir() and not folder.is_symlink()),
        "shards": shards(Path(wanted["config"])),
        "clusters": clusters(),
        "active": [unit for unit in wanted["units"] if output_of(*systemctl, unit).strip() in ("active", "activating")],
        "known": [unit for unit in wanted["units"] if (Path("/etc/systemd/system") / unit).exists()],
    }
    sys.stdout.write(json.dumps(state))


if __name__ == "__main__":
    main()
