"""The cloud: may the credential do what a run needs, what is the server, is there quota, and do the clocks agree.

Nothing here changes anything: the one POST asks for an action that no Nova has, so that an access rule that forbids actions
answers 401, and Nova itself that there is no such action.
"""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from ..cloud import ACTIVE, FREE_STATUSES, Server, connect
from ..cloud_faults import brief, name_fault, status_of
from ..errors import CloudError, ServerInError, ServerMissing, UnsuitableState
from ..settings import Settings
from . import controller
from .findings import Finding, Tell, fail, ok, skipped, warn
from .patient import Patient

NO_ACTION = "spamops-doctor-asks-for-nothing"
ASIDE = ("server", "access rules", "action log", "quota")
RULES = "make a credential with the rules of docs/website.md (playbooks/credential.yml)"
SKEW_WARN_SECONDS = 5.0
SKEW_FAIL_SECONDS = 120.0
"""Tokens, certificates and days of a budget go wrong beyond that."""
DAYS_LEFT = 14


def examine(patient: Patient, tell: Tell) -> None:
    """Log in, look at the server, and see what the credential may do."""
    try:
        _examine(patient, tell)
    finally:
        patient.looked(None)


def _examine(patient: Patient, tell: Tell) -> None:
    chosen = patient.settings
    if chosen is None:
        for name in ("credential", *ASIDE):
            tell(skipped(name, controller.NO_SETTINGS))
        return
    try:
        cloud = connect(**{"api_timeout": patient.call_seconds} | chosen.cloud_arguments())
        access = _log_in(cloud)
    except CloudError as error:
        tell(fail("credential", str(error), "docs/website.md tells how to make an application credential"))
        for name in ASIDE:
            tell(skipped(name, "the cloud cannot be asked"))
        return
    tell(_credential(access))
    server = _server(patient, chosen, cloud, tell)
    if server is None:
        tell(skipped("access rules", "the server cannot be looked at"))
        tell(skipped("action log", "the server cannot be looked at"))
    else:
        tell(_rules(cloud, server))
        tell(_action_log(server))
    tell(_quota(cloud, restrictable=bool(_of_credential(access))))


def _log_in(cloud: Any) -> Any:
    """What the token says. Raises CloudError."""
    try:
        cloud.authorize()
        return cloud.session.auth.get_access(cloud.session)
    except Exception as error:
        raise name_fault(error, "logging in") from error


def _of_credential(access: Any) -> dict[str, Any]:
    """What the token says of the application credential that it was made with; {} for another way of logging in."""
    token = getattr(access, "_data", {}).get("token", {})
    found = token.get("application_credential")
    return found if isinstance(found, dict) else {}


def _credential(access: Any) -> Finding:
    name = "credential"
    roles = {str(role) for role in getattr(access, "role_names", ())}
    told = f"logs in, roles {', '.join(sorted(roles)) or 'none'}"
    if not roles & {"member", "_member_", "admin"}:
        return fail(name, told, "the role member is needed to shelve and to unshelve")
    if "admin" in roles:
        return warn(name, told, "use a credential without the role admin: it may do far more than a run needs")
    found = _of_credential(access)
    if not found:
        return warn(name, f"{told}, with a password or a token", f"it may do whatever its user may: {RULES}")
    expires = found.get("expires_at")
    if isinstance(expires, str):
        try:
            at = datetime.fromisoformat(expires)
        except ValueError:
            return ok(name, told)
        left = (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).days
        if left < DAYS_LEFT:
            return warn(name, f"{told}; it expires in {left} days", RULES)
    return ok(name, told)


def _server(patient: Patient, chosen: Settings, cloud: Any, tell: Tell) -> Server | None:
    server = Server(cloud, chosen.server)
    try:
        seen = server.look(limit=0)
    except CloudError as error:
        advice = (
            "check the id or name, and to which project the credential belongs"
            if isinstance(error, ServerMissing)
            else None
        )
        tell(fail("server", str(error), advice))
        return None
    patient.looked(seen)
    by_name = server.id != chosen.server
    told = f"{seen}{f', id {server.id}' if by_name else ''}"
    try:
        server.check_way(ACTIVE, seen)
    except (ServerInError, ServerMissing, UnsuitableState) as error:
        tell(fail("server", str(error)))
        return server
    if seen.status not in FREE_STATUSES and not controller.run_is_active(chosen):
        advice = "spamops reap shelves it when nobody uses it; or: openstack server shelve"
        tell(warn("server", f"{told}: it costs money, and no run of this controller is active", advice))
    elif by_name:
        tell(
            warn(
                "server",
                f"{told}: given by its name",
                "give the id: names need not be unique, and need a further access rule",
            )
        )
    else:
        tell(ok("server", told))
    return server


def _rules(cloud: Any, server: Server) -> Finding:
    """Whether actions of this server may be asked for, tried with one that does not exist."""
    name = "access rules"
    try:
        answer = cloud.compute.post(f"/servers/{server.id}/action", json={NO_ACTION: None}, raise_exc=False)
        status = int(answer.status_code)
    except Exception as error:  # noqa: BLE001 - named in what is told
        if status_of(error) is None:
            return warn(name, f"could not be tried: {name_fault(error, 'asking for no action')}", "try again")
        status = status_of(error) or 0
    if status in (400, 404, 409):
        return ok(name, "the server's actions may be asked for (tried with one that does not exist)")
    path = f"/v2.1/servers/{server.id}/action"
    if status == 401:
        return fail(
            name, f"none allows actions: service compute, method POST, path {path}", f"rules cannot be changed: {RULES}"
        )
    if status == 403:
        return fail(name, "the cloud's policy forbids actions to this credential", "the role member is needed")
    return warn(name, f"could not be tried: the cloud answered {status}", "try again")


def _action_log(server: Server) -> Finding:
    name = "action log"
    try:
        entries = server.actions()
    except CloudError as error:
        return warn(
            name,
            f"cannot be read ({brief(error.__cause__) if isinstance(error.__cause__, Exception) else error})",
            RULES,
        )
    if not entries:
        return ok(name, "empty")
    last = entries[-1]
    told = f"{last.name} of {last.at:%Y-%m-%d %H:%M} UTC{', which failed' if last.failed else ''}"
    if last.failed:
        return warn(name, f"the last action is {told}", "openstack server event list, and event show, tell why")
    return ok(name, f"the last action is {told}")


def _quota(cloud: Any, *, restrictable: bool) -> Finding:
    name = "quota"
    try:
        limits = cloud.compute.get("/limits", raise_exc=False)
        status, body = int(limits.status_code), limits.json() if limits.status_code == 200 else {}
    except Exception as error:  # noqa: BLE001 - named in what is told
        return skipped(name, f"cannot be read: {brief(name_fault(error, 'reading the quota'))}")
    if status in (401, 403):
        return skipped(name, f"this credential may not read it ({status}), and needs not")
    found = body.get("limits", {}).get("absolute", {}) if isinstance(body, dict) else {}
    rows = (("instances", "totalInstancesUsed", "maxTotalInstances"), ("cores", "totalCoresUsed", "maxTotalCores"),
            ("RAM in MB", "totalRAMUsed", "maxTotalRAMSize"))  # fmt: skip
    told = [
        (what, found[used], found[most])
        for what, used, most in rows
        if isinstance(found.get(used), int) and isinstance(found.get(most), int)
    ]
    if not told:
        return skipped(name, f"the cloud tells none ({status})")
    text = ", ".join(f"{used} of {most} {what}" for what, used, most in told if most >= 0) or "no limits"
    if any(0 <= most < used for _, used, most in told):
        return warn(name, f"exceeded: {text}", "the cloud may refuse to unshelve: free some, or ask for more")
    if restrictable:
        return warn(name, f"{text}; the credential could read that, so no access rules restrict it", RULES)
    return ok(name, text)


def clock(patient: Patient, tell: Tell) -> None:
    """Our clock against the Date of the cloud's answer."""
    chosen = patient.settings
    if chosen is None:
        tell(skipped("clock", controller.NO_SETTINGS))
        return
    try:
        cloud = connect(**{"api_timeout": patient.call_seconds} | chosen.cloud_arguments())
        address = str(cloud.config.get_auth_args().get("auth_url") or "")
        asked = datetime.now(UTC)
        answer = cloud.session.get(address, authenticated=False, raise_exc=False)
        answered = datetime.now(UTC)
        theirs = parsedate_to_datetime(answer.headers["Date"])
    except (KeyError, ValueError):
        tell(skipped("clock", "the cloud's answers have no date"))
        return
    except Exception as error:  # noqa: BLE001 - the finding `credential` tells what is wrong with the cloud
        tell(skipped("clock", f"the cloud cannot be asked ({type(error).__name__})"))
        return
    tell(_skew(theirs.astimezone(UTC), asked, answered))


def _skew(theirs: datetime, asked: datetime, answered: datetime) -> Finding:
    """A Date names a second: it was then, or up to a second later; and the answer may be as old as the question."""
    early = (asked - theirs).total_seconds() - 1
    late = (answered - theirs).total_seconds()
    skew = early if early > 0 else min(late, 0.0)
    told = (
        "agrees with the cloud's within a second"
        if abs(skew) < 1
        else f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the cloud's"
    )
    advice = "set the clock, and keep it so: systemd-timesyncd or chrony"
    if abs(skew) >= SKEW_FAIL_SECONDS:
        return fail("clock", told, advice)
    return warn("clock", told, advice) if abs(skew) >= SKEW_WARN_SECONDS else ok("clock", told)
