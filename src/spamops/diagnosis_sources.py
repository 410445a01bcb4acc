"""What a diagnosis asks of the server: commands that only look, each with its limits. They need no root; the journal is read
with `sudo -n` where the user may not read it and sudo asks for no password."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

UNITS = (
    "spamcheck-api.service",
    "spamcheck-worker.service",
    "spamcheck-compose.service",
    "spamcheck-watchdog.service",
    "spamcheck-watchdog.timer",
    "temporal.service",
    "temporal-compose.service",
    "ollama.service",
    "ollama-gpu.service",
    "ollama-warmup.service",
    "postgresql.service",
    "postgresql@*.service",
)
"""Units that the roles make, or that they rest on."""
MOST_BYTES = 256 * 1024
JOURNAL_BYTES = 1024 * 1024

_JOURNAL = (
    "if id -nG | tr ' ' '\\n' | grep -qxE 'root|adm|systemd-journal'; then j=journalctl;"
    " elif sudo -n true 2>/dev/null; then j='sudo -n journalctl'; else j=journalctl; fi;"
    " $j -b --no-pager -q -o short-iso "
)
_FETCH = (
    "fetch() { if command -v curl >/dev/null; then curl -sS -m 5 --noproxy '*' \"$1\"; else python3 -c"
    " 'import sys, urllib.request as u; print(u.build_opener(u.ProxyHandler({})).open(sys.argv[1], timeout=5)"
    '.read(262144).decode("utf-8", "replace"))\' "$1" 2>&1 | tail -n 1; fi; }; fetch '
)
_OLLAMA = "http://127.0.0.1:11434"


@dataclass(frozen=True)
class Source:
    """One command. `seconds` and `most_bytes` are its limits; `keep` makes of its output what is kept, before the scrubbing;
    `tail` keeps the end of an output that is too long, not its beginning."""

    name: str
    script: str
    seconds: float = 8.0
    most_bytes: int = MOST_BYTES
    tail: bool = False
    keep: Callable[[str], str] | None = None


def journal_script(units: tuple[str, ...], lines: int, *options: str) -> str:
    """A shell command that prints the journal of this boot. Units as `journalctl --unit` takes them."""
    words = [f"-n {lines}", *options, *(f"-u {_quoted(unit)}" for unit in units)]
    return _JOURNAL + " ".join(words)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _models(text: str) -> str:
    """Of Ollama's answer what tells which models are there and where they run; templates and the like are left out."""
    wanted = ("name", "model", "size", "size_vram", "digest", "expires_at", "modified_at", "context_length", "version")
    return _chosen(text, wanted)


def _chosen(text: str, wanted: tuple[str, ...]) -> str:
    said, brace, rest = text.partition("{")  # a shell's own words may stand before it
    try:
        body = json.JSONDecoder().raw_decode(brace + rest)[0]
    except (ValueError, RecursionError):
        return said[:1000]  # no answer, and why
    kept: dict[str, Any] = {name: body[name] for name in wanted if isinstance(body.get(name), str | int | float)}
    models = body.get("models")
    if isinstance(models, list):
        kept["models"] = [_model(model, wanted) for model in models[:100] if isinstance(model, dict)]
    if "error" in body:
        kept["error"] = str(body["error"])[:2000]
    return json.dumps(kept, indent=1)


def _model(model: dict[str, Any], wanted: tuple[str, ...]) -> dict[str, Any]:
    kept = {name: model[name] for name in wanted if isinstance(model.get(name), str | int | float)}
    if isinstance(kept.get("digest"), str):
        kept["digest"] = kept["digest"].removeprefix("sha256:")[:12]  # as `ollama list` shows it
    return kept


SOURCES = (
    Source(
        "units",
        "systemctl show --no-pager -p Id,LoadState,ActiveState,SubState,Result,NRestarts,ExecMainCode,ExecMainStatus,"
        "ActiveEnterTimestamp,InactiveEnterTimestamp,MemoryCurrent,TasksCurrent " + " ".join(map(_quoted, UNITS)),
    ),
    Source("failed-units", "systemctl --failed --no-pager --no-legend --plain; systemctl is-system-running"),
    Source("journal", journal_script(UNITS, 5000), 15.0, JOURNAL_BYTES, tail=True),
    Source("journal-warnings", journal_script((), 2000, "-p warning"), 15.0, JOURNAL_BYTES, tail=True),
    Source(
        "gpu",
        "if command -v nvidia-smi >/dev/null; then nvidia-smi; nvidia-smi --format=csv --query-gpu=name,driver_version,"
        "memory.total,memory.used,utilization.gpu,temperature.gpu,ecc.errors.uncorrected.volatile.total;"
        " else echo 'no nvidia-smi'; fi; "
        "ls -l /dev/nvidia* 2>/dev/null",
    ),
    Source(
        "memory",
        "free -m; uptime; head -n 2 /proc/pressure/* 2>/dev/null; "
        "ps -eo pid,user,pcpu,pmem,rss,etime,comm --sort=-rss | head -n 30",
    ),
    Source("disk", "df -h; df -i"),
    Source("ollama-version", f"{_FETCH}{_OLLAMA}/api/version", keep=_models),
    Source("ollama-ps", f"{_FETCH}{_OLLAMA}/api/ps", keep=_models),
    Source("ollama-tags", f"{_FETCH}{_OLLAMA}/api/tags", keep=_models),
    Source(
        "temporal",
        't=$(command -v temporal || ls /opt/temporal/cli/temporal 2>/dev/null); if [ -n "$t" ]; then'
        ' "$t" operator cluster health --address 127.0.0.1:7233 --disable-config-file --command-timeout 5s;'
        ' "$t" workflow list --address 127.0.0.1:7233 --disable-config-file --command-timeout 5s --limit 10;'
        " else echo 'no temporal command'; fi",
        12.0,
    ),
    Source("sockets", "ss -tuln"),
    Source(
        "versions",
        '. /etc/os-release; echo "$PRETTY_NAME"; uname -sr; python3 --version; '
        "dpkg-query -W -f '${db:Status-Abbrev} ${Package} ${Version}\\n' 'postgresql*' 'nvidia*' openssh-server systemd 2>/dev/null | grep -v ^un",
    ),
)
