"""Tables for people, on stdout."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .errors import EXIT_CODES, ExitCode


def number(value: float | None, unit: str = "") -> str:
    """A figure, or a dash where there is none."""
    if value is None:
        return "-"
    text = f"{value:,.4g}" if isinstance(value, float) and abs(value) < 10 else f"{value:,.1f}".removesuffix(".0")
    return f"{text} {unit}".strip()


def summary(values: Mapping[str, Any], console: Console) -> None:
    """What one run came to."""
    states = Table(title="Server", title_justify="left")
    for heading in ("since (UTC)", "status", "task_state"):
        states.add_column(heading)
    states.add_column("seconds", justify="right")
    for state in values.get("server_timeline") or []:
        states.add_row(
            str(state["at"])[11:23], Text(state["status"]), Text(state["task_state"] or "-"), number(state["seconds"])
        )
    if states.row_count:
        console.print(states)

    items = Table(title="Items", title_justify="left")
    items.add_column("type")
    for heading in ("spam", "not spam", "failed"):
        items.add_column(heading, justify="right")
    for name, row in sorted((values.get("by_type") or {}).items()):
        items.add_row(Text(name), *(str(row.get(key, 0)) for key in ("spam", "not_spam", "failed")))
    if items.row_count:
        items.add_section()
    items.add_row("all", *(str(values.get(key) or 0) for key in ("spam", "not_spam", "failed")))
    console.print(items)

    facts = Table(show_header=False, title="Run", title_justify="left")
    facts.add_column()
    facts.add_column(overflow="fold")
    rows = [
        ("outcome", _meaning(values.get("exit_code"))),
        ("reason", values.get("reason")),
        ("workflow", _joined(values.get("workflow_id"), values.get("workflow_status"))),
        ("items checked", values.get("checked")),
        ("seconds paid for", number(values.get("active_seconds"))),
        ("of these classifying", number(values.get("classify_seconds"))),
        ("service units", number(values.get("service_units"))),
        ("exit code", values.get("exit_code")),
    ]
    for name, value in rows:
        if value not in (None, ""):
            facts.add_row(name, Text(str(value)))
    for warning in values.get("warnings") or []:
        facts.add_row("warning", Text(str(warning)))
    console.print(facts)


def history(runs: Iterable[Mapping[str, Any]], console: Console) -> None:
    """A line a run."""
    table = Table(caption="n: items checked. paid s: seconds that the server was paid for. SU: service units.")
    for heading in ("run", "started (UTC)", "outcome"):
        table.add_column(heading, no_wrap=True)
    for heading in ("n", "spam", "fail", "paid s", "SU"):
        table.add_column(heading, justify="right", no_wrap=True)
    for run in runs:
        table.add_row(
            str(run["id"]),
            str(run["started_at"])[:16].replace("T", " "),
            Text((run["outcome"] or "not ended").replace("_", " ")),
            *(str(run[key]) if run[key] is not None else "-" for key in ("checked", "spam", "failed")),
            *("-" if run[key] is None else f"{run[key]:.2f}" for key in ("active_seconds", "service_units")),
        )
    console.print(table)


def verdicts(rows: Iterable[Mapping[str, Any]], console: Console) -> None:
    """A line a verdict: ids and names of indicators only."""
    table = Table(title="Verdicts", title_justify="left")
    for heading in ("item", "type", "verdict"):
        table.add_column(heading)
    table.add_column("confidence", justify="right")
    table.add_column("by", overflow="fold")
    table.add_column("indicators, or why there is no verdict", overflow="fold")
    for row in rows:
        verdict = "failed" if row["is_spam"] is None else "spam" if row["is_spam"] else "not spam"
        table.add_row(
            Text(row["item_id"]),
            Text(row["content_type"]),
            verdict,
            number(row["confidence"]),
            Text(row["decided_by"] or "-"),
            Text(row["failure"] or ", ".join(row["indicators"])),
        )
    console.print(table)


def _meaning(code: int | None) -> str:
    return "not ended" if code is None else EXIT_CODES[ExitCode(code)]


def _joined(*parts: Any) -> str:
    return " ".join(str(part) for part in parts if part)
