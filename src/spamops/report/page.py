"""The page: the figures in one HTML file that asks for nothing else.

Its content policy allows the one style sheet and the one script in it, by their hashes, and no address at all; the template
engine escapes every text. Without the script everything is there but the single verdicts of each run.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib import resources
from typing import Any
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from .. import __version__
from ..errors import EXIT_CODES, ExitCode
from ..text import one_line
from . import charts
from .charts import Bar, Part
from .figures import FAILED_SHOWN, PERIODS, SLOWEST_SHOWN, VERDICTS_SHOWN, Counts, Figures, Period, Verdict
from .review import Review, Score

STEPS = {
    "wake": "waking the server",
    "ready": "waiting for the checker",
    "check": "checking",
    "report": "fetching the report",
    "shelve": "shelving the server",
}
OUTCOME = {"spam": "spam", "not_spam": "not spam", "failed": "failed"}
LISTED = 100
"""Types and models that a table lists; the rest is summed up, because a checker may make them up."""

WEEKS_AT_LEAST = 8
"""Of the chart of wrong verdicts, also when moderators began later."""


def render(figures: Figures, moderation_url: str | None = None) -> str:
    """The whole page. `moderation_url` is where an item's page is, with {id} for its id."""
    style, script = _file("page.css"), _file("page.js")
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_file),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": _count,
        "percent": _percent,
        "duration": _duration,
        "units": _units,
        "minute": _minute,
        "line": functools.partial(one_line, limit=200),
    }
    longest = max((sum(_steps(run).values()) for run in figures.runs), default=0)
    return environment.get_template("page.html.j2").render(
        version=__version__,
        figures=figures,
        periods=[_period(period, moderation_url) for period in figures.periods],
        default_period=PERIODS[0],
        review=_review(figures.review),
        runs=[_run(run, longest, figures) for run in figures.runs],
        step_legend=charts.legend({_step_class(name): text for name, text in STEPS.items()}),
        verdicts_shown=VERDICTS_SHOWN,
        slowest_shown=SLOWEST_SHOWN,
        failed_shown=FAILED_SHOWN,
        data=_data(figures, moderation_url),
        style=Markup(style),  # noqa: S704 - both are ours
        script=Markup(script),  # noqa: S704
        style_hash=_hash(style),
        script_hash=_hash(script),
    )


@functools.cache
def _file(name: str) -> str:
    return resources.files(__package__).joinpath("templates", name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _period(period: Period, moderation_url: str | None) -> dict[str, Any]:
    """A period as the template wants it."""
    days = list(period.by_day.items())
    types = _most(period.by_type)
    deciders = _most(period.by_decider)
    cost = period.cost
    saved = cost.always_hours / cost.hours if cost.hours else None
    return {
        "of": period,
        "legend": charts.legend(OUTCOME),
        "verdict_legend": charts.legend({"spam": "spam", "not_spam": "not spam"}),
        "days": [(day.isoformat(), counts) for day, counts in reversed(days)],
        "days_chart": charts.columns(
            f"Items a day in the last {period.days} days",
            [Bar(f"{day:%d %b}".lstrip("0"), _parts(counts, day.isoformat())) for day, counts in days],
        ),
        "types": types,
        "types_chart": charts.bars(
            "Share of spam by type",
            [
                Bar(
                    name,
                    [Part(counts.share or 0, "spam", f"{name}: {_percent(counts.share)} spam")],
                    f"{_percent(counts.share)} of {_count(counts.judged)}",
                )
                for name, counts in types
            ],
            top=1,
        ),
        "deciders": deciders,
        "deciders_chart": charts.bars(
            "Verdicts by who gave them",
            [Bar(name, _parts(counts, name), _count(counts.judged)) for name, counts in deciders],
        ),
        "bins": [(_bin(place), counts) for place, counts in enumerate(period.histogram)],
        "bins_chart": charts.columns(
            "Verdicts by confidence",
            [
                Bar(f"{place * 10}", _parts(counts, f"confidence {_bin(place)}"))
                for place, counts in enumerate(period.histogram)
            ],
        ),
        "saved": saved,
        "cost_chart": charts.bars(
            "Hours that were paid for, and those of a server that is always on",
            [
                Bar("paid for", [Part(cost.hours, "not_spam", "paid for")], _cost(cost.hours, cost.units)),
                Bar(
                    "always on",
                    [Part(cost.always_hours, "failed", "always on")],
                    _cost(cost.always_hours, cost.always_units),
                ),
            ],
        ),
        "slowest": [_item(verdict, moderation_url) for verdict in period.slowest],
        "failed": [_item(verdict, moderation_url) for verdict in period.failed],
    }


def _bin(place: int) -> str:
    return f"{place * 10} to {place * 10 + 10} %"


def _cost(hours: float, units: float | None) -> str:
    return f"{hours:,.1f} h" + ("" if units is None else f", {_units(units)} SU")


def _parts(counts: Counts, name: str) -> list[Part]:
    return [
        Part(getattr(counts, kind), kind, f"{name}: {_count(getattr(counts, kind))} {text}")
        for kind, text in OUTCOME.items()
    ]


def _most(rows: Mapping[str, Counts]) -> list[tuple[str, Counts]]:
    """The largest first; what is beyond a sane number is summed up."""
    ordered = sorted(rows.items(), key=lambda row: (-(row[1].judged + row[1].failed), row[0]))
    named = [(one_line(name, 200), counts) for name, counts in ordered[:LISTED]]
    if len(ordered) > LISTED:
        others = Counts()
        for _, counts in ordered[LISTED:]:
            others.add(vars(counts))
        named.append(("all others", others))
    return named


def _item(verdict: Verdict, moderation_url: str | None) -> dict[str, Any]:
    return {
        "of": verdict,
        "verdict": "failed" if verdict.is_spam is None else "spam" if verdict.is_spam else "not spam",
        "url": moderation_url.replace("{id}", quote(verdict.item_id, safe="")) if moderation_url else None,
    }


def _review(found: Review) -> dict[str, Any]:
    weeks = list(found.by_week.items())
    while len(weeks) > WEEKS_AT_LEAST and not weeks[0][1].reviewed:
        weeks.pop(0)
    wrong = {"spam": "false positives: called spam, and are not", "late": "false negatives: spam that was let through"}
    return {
        "of": found,
        "weeks": [(week.isoformat(), score) for week, score in reversed(found.by_week.items()) if score.reviewed],
        "legend": charts.legend(wrong),
        "chart": charts.columns(
            "Wrong verdicts by week",
            [
                Bar(
                    f"{week:%d %b}".lstrip("0"),
                    [
                        Part(score.false_positives, "spam", f"week of {week}: {score.false_positives} false positives"),
                        Part(score.false_negatives, "late", f"week of {week}: {score.false_negatives} false negatives"),
                    ],
                )
                for week, score in weeks
            ],
        ),
        "by": [("type", _scores(found.by_type)), ("model", _scores(found.by_model))],
    }


def _scores(rows: Mapping[str, Score]) -> list[tuple[str, Score]]:
    ordered = sorted(rows.items(), key=lambda row: (-row[1].reviewed, row[0]))
    return [(one_line(name, 200), score) for name, score in ordered[:LISTED]]


def _steps(run: Mapping[str, Any]) -> dict[str, float]:
    return {one_line(str(name), 60): float(seconds) for name, seconds in (run.get("steps") or {}).items()}


def _step_class(name: str) -> str:
    return f"step-{name}" if name in STEPS else "step-other"


def _run(run: Mapping[str, Any], longest: float, figures: Figures) -> dict[str, Any]:
    """A run as the template wants it: one line of the table, and what is behind it."""
    steps = _steps(run)
    timeline, start = [], 0.0
    for name, seconds in steps.items():
        part = Part(seconds, _step_class(name), f"{STEPS.get(name, name)}: {_duration(seconds)}")
        timeline.append(Bar(STEPS.get(name, name), [part], _duration(seconds), start))
        start += seconds
    code = run["exit_code"]
    kind = (
        "open"
        if code is None
        else "good"
        if code == ExitCode.DONE
        else "warn"
        if code == ExitCode.ITEMS_FAILED
        else "bad"
    )
    verdicts = figures.details.get(run["id"])
    counts = Counts()
    counts.add(run)
    return {
        "of": run,
        "counts": counts,
        "outcome": one_line(str(run["outcome"] or "not ended"), 60).replace("_", " "),
        "meaning": "not ended" if code is None else EXIT_CODES.get(code, "unknown"),
        "kind": kind,
        "seconds": _seconds_of(run),
        "strip": charts.strip(
            f"run {run['id']}: " + ", ".join(f"{bar.name} {bar.figure}" for bar in timeline),
            Bar("", [part for bar in timeline for part in bar.parts]),
            longest,
        ),
        "gantt": charts.bars(f"Timeline of run {run['id']}, a bar a step", timeline),
        "steps": [(bar.name, bar.start, seconds) for bar, seconds in zip(timeline, steps.values(), strict=True)],
        "types": _most({str(name): _counted(row) for name, row in (run.get("by_type") or {}).items()}),
        "states": run.get("server_timeline") or [],
        "warnings": run.get("warnings") or [],
        "verdicts": None if verdicts is None else len(verdicts),
    }


def _counted(row: Mapping[str, Any]) -> Counts:
    counts = Counts()
    counts.add(row)
    return counts


def _seconds_of(run: Mapping[str, Any]) -> float | None:
    if run["ended_at"] is None:
        return None
    return (datetime.fromisoformat(run["ended_at"]) - datetime.fromisoformat(run["started_at"])).total_seconds()


def _data(figures: Figures, moderation_url: str | None) -> Markup:
    """The single verdicts as JSON, words once each, for the script. Nothing in it can end the element that holds it."""
    words: dict[str, int] = {}

    def word(text: str | None) -> int:
        return words.setdefault(one_line(text or "", 200), len(words))

    runs: dict[str, Sequence[Sequence[Any]]] = {
        str(run): [
            (
                v.item_id,
                word(v.content_type),
                -1 if v.is_spam is None else int(v.is_spam),
                None if v.confidence is None else round(v.confidence, 4),
                word(v.by),
                None if v.seconds is None else round(v.seconds, 3),
                [word(name) for name in v.indicators],
                word(v.failure),
                None if v.decision is None else int(v.decision),
            )
            for v in verdicts
        ]
        for run, verdicts in figures.details.items()
    }
    text = json.dumps({"url": moderation_url, "runs": runs, "words": list(words)}, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704 - json.dumps leaves ASCII alone, of which HTML's own characters are escaped above


def _count(value: float | None) -> str:
    return "–" if value is None else f"{value:,}"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _units(value: float | None) -> str:
    return "–" if value is None else f"{value:,.2f}"


def _minute(text: str | datetime | None) -> str:
    """A time as a person reads it, in UTC."""
    if text is None:
        return "–"
    at = text if isinstance(text, datetime) else datetime.fromisoformat(text)
    return f"{at:%Y-%m-%d %H:%M}"
