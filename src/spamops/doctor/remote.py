"""The other ends: the checker on the server, the site, and SSH. A server that is asleep is not asked, and not woken."""

from __future__ import annotations

import stat
from typing import Any

import httpx

from ..checker_http import CallFailed, CheckerHttp
from ..settings import Settings
from ..ssh import SshTarget
from ..text import one_line
from .controller import NO_SETTINGS
from .findings import Finding, Tell, fail, ok, skipped, warn
from .patient import Patient

PARTS = ("worker", "temporal", "models")
WELL_KNOWN_KEY = "unconfigured"
"""What the CoMSES site takes for its key when the file is missing: whoever sends it reads what is scheduled."""
BATCH = "/api/spam/get-latest-batch/"


def checker(patient: Patient, tell: Tell) -> None:
    """The checker with its parts, as it tells of them itself."""
    chosen = patient.settings
    if chosen is None:
        _all_skipped(tell, NO_SETTINGS)
        return
    seen = patient.server()
    if seen is None:
        _all_skipped(tell, "the server's state is not known, so it was not asked")
        return
    if seen.status != "ACTIVE":
        _all_skipped(tell, f"the server is {seen}: asleep, not asked")
        return
    if seen.task_state:
        _all_skipped(tell, f"the server is {seen}: not asked")
        return
    http = CheckerHttp(chosen.checker_base, chosen.api_key.get_secret_value())
    try:
        _ask(http, chosen, patient.call_seconds, tell)
    finally:
        http.close()


def _all_skipped(tell: Tell, why: str) -> None:
    for name in ("checker", *PARTS):
        tell(skipped(name, why))


def _ask(http: CheckerHttp, chosen: Settings, seconds: float, tell: Tell) -> None:
    base = chosen.checker_base
    try:
        answer = http.call("GET", "/ok", params={"detail": "true"}, seconds=seconds)
    except CallFailed as error:
        advice = "spamops logs, and: systemctl status spamcheck-api there; is the port open to this machine (firewall)?"
        tell(fail("checker", f"{base} on a server that is ACTIVE: {error}", advice))
        _rest(tell, "the checker does not answer")
        return
    body = answer.json_object()
    if answer.status == 401:
        tell(
            fail(
                "checker",
                f"{base} refused the key (401)",
                "the key here and the one on the server differ: playbooks/rotate_key.yml",
            )
        )
        _rest(tell, "the checker refused the key")
    elif body is None or answer.status not in (200, 503):
        tell(
            fail(
                "checker", f"{base}/ok answered {answer.status}, not the checker's own answer", "is checker_url right?"
            )
        )
        _rest(tell, "another service answers")
    else:
        _parts(answer.status, body, base, tell)


def _rest(tell: Tell, why: str) -> None:
    for name in PARTS:
        tell(skipped(name, why))


def _parts(status: int, body: dict[str, Any], base: str, tell: Tell) -> None:
    if status == 200 and body.get("status") == "ok":
        tell(ok("checker", f"{base} is ready"))
    else:
        reasons = body.get("reasons")
        why = "; ".join(map(str, reasons)) if isinstance(reasons, list) else "it answers 503"
        tell(fail("checker", one_line(f"{base} is not ready: {why}"), "spamops logs"))
    for name in ("worker", "temporal"):
        told = body.get(name)
        if not isinstance(told, str):
            tell(skipped(name, "the checker does not tell"))
        else:
            tell(ok(name, "answers") if told == "ok" else fail(name, one_line(told), f"spamops logs -u {_unit(name)}"))
    tell(_models(body))


def _unit(name: str) -> str:
    return "temporal.service" if name == "temporal" else "spamcheck-worker.service"


def _models(body: dict[str, Any]) -> Finding:
    models, classifier = body.get("models"), one_line(str(body.get("classifier") or ""), 60)
    if classifier == "rules":
        return warn(
            "models", "the checker judges by rules alone", "set its classifier to cascade for a model's verdicts"
        )
    if not isinstance(models, dict) or not classifier:
        return skipped("models", "the checker does not tell")
    if not models:
        return warn("models", "the worker has named none", "spamops logs -u ollama.service")
    told = one_line(", ".join(f"{name}: {value}" for name, value in models.items()))
    if not all(value in ("loaded", "not loaded") for value in models.values()):
        return fail("models", told, "playbooks/site.yml pulls what is missing; spamops logs -u ollama.service")
    return ok("models", told)


def site(patient: Patient, tell: Tell) -> None:
    """Whether the site takes the key, and no other; as this machine sees it. The bodies of the answers hold personal data, and
    are not read."""
    chosen = patient.settings
    if chosen is None or chosen.site_url is None:
        tell(
            skipped(
                "site",
                NO_SETTINGS if chosen is None else "site_url is not set (the checker itself is what calls the site)",
            )
        )
        return
    tell(_site(str(chosen.site_url).rstrip("/"), chosen.api_key.get_secret_value(), patient.call_seconds))


def _site(base: str, key: str, seconds: float) -> Finding:
    name = "site"
    try:
        with httpx.Client(timeout=seconds, follow_redirects=False, headers={"Accept": "application/json"}) as client:
            wrong = [_status(client, base, None), _status(client, base, WELL_KNOWN_KEY)]
            right = _status(client, base, key)
    except httpx.HTTPError as error:
        return fail(name, f"{base} does not answer ({type(error).__name__})", "is site_url right, and the site up?")
    if 200 in wrong:
        to = "no key" if wrong[0] == 200 else f"the well-known key '{WELL_KNOWN_KEY}'"
        return fail(
            name, f"{base} answers to {to}: what is scheduled, with names and addresses, is open to everybody",
            "give the site its key now: playbooks/website.yml",
        )  # fmt: skip
    if right == 200 and wrong == [401, 401]:
        return ok(name, f"{base} takes the key, and neither none nor the well-known one")
    told = f"{base}{BATCH} answered {right} to the key, {wrong[0]} to none"
    advice = {
        400: "the site does not allow this Host: add it to its allowed hosts (playbooks/website.yml)",
        401: "the site has another key: playbooks/website.yml, or rotate_key.yml",
        404: "the site's version has no such endpoints, or site_url is not its base address",
        301: "site_url leads elsewhere: give the address that it leads to (https)",
        302: "site_url leads elsewhere: give the address that it leads to",
        500: "a fault of the site: see its log",
    }.get(right, "see the site's log")
    return fail(name, told, advice)


def _status(client: httpx.Client, base: str, key: str | None) -> int:
    with client.stream("GET", f"{base}{BATCH}", headers={"X-API-Key": key} if key else {}) as response:
        return response.status_code


def ssh(patient: Patient, tell: Tell) -> None:
    """Whether a failed run can collect what the server tells: the login is prepared. Nobody logs in."""
    chosen = patient.settings
    if chosen is None or chosen.ssh is None:
        tell(
            skipped(
                "ssh",
                NO_SETTINGS if chosen is None else "ssh_host is not set: failed runs collect nothing from the server",
            )
        )
        return
    tell(_prepared(chosen.ssh))


def _prepared(target: SshTarget) -> Finding:
    from .. import diagnose  # late: few need it

    if target.key_file is not None:
        if not target.key_file.is_file():
            return fail(
                "ssh", f"ssh_key_file {target.key_file} is not there", "name the private key, or leave it to the agent"
            )
        if stat.S_IMODE(target.key_file.stat().st_mode) & 0o077:
            return fail(
                "ssh",
                f"{target.key_file} can be read by others, so ssh does not take it",
                f"chmod 0600 {target.key_file}",
            )
    known = f"[{target.host}]:{target.port}" if target.port != 22 else target.host
    if not diagnose.knows_host(target, known):
        return fail(
            "ssh", f"the host key of {known} is not known",
            f"ssh-keyscan -p {target.port} {target.host}, compare it with the cloud's console log, and add it to known_hosts",
        )  # fmt: skip
    return ok("ssh", f"{target} port {target.port}: key and host key are there")
