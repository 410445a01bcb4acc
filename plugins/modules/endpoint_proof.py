#!/usr/bin/python
# Copyright: the spamops contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: endpoint_proof
short_description: Prove that the site or the checker takes the right key and no other
version_added: 0.1.0
description:
  - Asks one of the two ends of the spam check with the right key, with none, with a wrong one, with the word C(unconfigured) that
    everybody knows, and with keys that must be dead; and, of a site, with a Host that is allowed and one that is not.
  - Asks again until everything is as it should be several times in a row (a reload takes a moment), or the time is up. Bodies of
    answers are not read, redirects are not followed, proxies are not used.
  - Runs wherever the answer matters, as on the controller for what an outsider sees, or on one end to ask the other.
options:
  url:
    description: Base address, such as V(https://www.comses.net) or V(http://203.0.113.7:8001).
    type: str
    required: true
  kind:
    description: Which end it is.
    type: str
    choices: [site, checker]
    required: true
  key:
    description: The right key. This or O(key_file) is needed.
    type: str
  key_file:
    description: File on this machine that holds the right key, so that it need not be sent here.
    type: path
  dead_keys:
    description: Keys that must be refused, such as the one before a rotation.
    type: list
    elements: str
    default: []
  strangers:
    description: Whether to ask without a key, with a wrong one and with the well-known word too.
    type: bool
    default: true
  allowed_hosts:
    description: Values of the Host header with which a site must answer 200.
    type: list
    elements: str
    default: []
  disallowed_host:
    description: Value of the Host header with which a site must answer 400. Empty for not asking.
    type: str
    default: ""
  host:
    description: Value of the Host header where no other one is asked for. Empty for that of O(url).
    type: str
    default: ""
  idle:
    description:
      - Whether a checker must have no active run. One that does not tell (its metrics are those of another program) is believed to be
        idle.
    type: bool
    default: false
  questions:
    description: Whether to ask anything else than O(idle).
    type: bool
    default: true
  other_keys:
    description: Keys with which the checker is asked whether it is idle when it refuses the right one.
    type: list
    elements: str
    default: []
  headers:
    description: Further headers for every call, such as C(X-Forwarded-Proto) where a proxy is passed by.
    type: dict
    default: {}
  timeout:
    description: Limit for everything to be as it should, in seconds.
    type: float
    default: 30
  call_timeout:
    description: Limit of a single call, in seconds.
    type: float
    default: 10
  times:
    description: How often in a row everything must be as it should. Old processes answer for a moment after a reload.
    type: int
    default: 3
  validate_certs:
    description: Whether the certificate of an https address is verified.
    type: bool
    default: true
  ca_path:
    description: Bundle of certificate authorities for verifying, on this machine.
    type: path
attributes:
  check_mode:
    description: It only asks, in check mode too.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
  idempotent:
    description: It changes nothing.
    support: full
requirements:
  - "python >= 3.8"
author: The spamops contributors (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Prove it from outside
  comses.spamops.endpoint_proof:
    kind: site
    url: https://www.comses.net
    key: "{{ vault_spamops_api_key }}"
    allowed_hosts: [203.0.113.7]
    disallowed_host: disallowed.invalid
  delegate_to: localhost
"""

RETURN = r"""
answers:
  description: What was asked last, what was expected, and what came.
  type: list
  elements: dict
  returned: always
  contains:
    asked:
      description: With what it was asked, in words.
      type: str
    expected:
      description: Statuses that would be right.
      type: list
      elements: int
    status:
      description: Status of the answer; 0 where there was none.
      type: int
fingerprint:
  description: Fingerprint of the right key, as M(comses.spamops.secret_file) returns it.
  type: str
  returned: always
seconds:
  description: How long it took until everything was as it should be.
  type: float
  returned: always
"""

import http.client
import re
import secrets
import ssl
import time
from pathlib import Path
from urllib.parse import urlsplit

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.comses.spamops.plugins.module_utils.secrets_rules import fingerprint

PATHS = {"site": "/api/spam/get-latest-batch/", "checker": "/ok"}
# A checker that is not ready says so (503) to those alone who have the key.
TAKEN = {"site": [200], "checker": [200, 503]}
PAUSE_SECONDS = 0.2
ACTIVE_BYTES = 1024 * 1024
MEANING = {
    0: "no answer",
    301: "a redirect (plain HTTP where https is wanted? give the https address, or X-Forwarded-Proto in headers)",
    302: "a redirect",
    400: "the Host is not allowed",
    401: "the key is refused",
    404: "no such address: is this the site, or is the spam check not part of its version?",
    500: "the application fails",
    502: "the proxy does not reach the application",
    503: "the application is not up",
}


def main():
    """Read the arguments, ask until it is right or too late."""
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "kind": {"type": "str", "choices": ["site", "checker"], "required": True},
            "key": {"type": "str", "no_log": True},
            "key_file": {"type": "path", "no_log": False},
            "dead_keys": {"type": "list", "elements": "str", "default": [], "no_log": True},
            "strangers": {"type": "bool", "default": True},
            "allowed_hosts": {"type": "list", "elements": "str", "default": []},
            "disallowed_host": {"type": "str", "default": ""},
            "host": {"type": "str", "default": ""},
            "idle": {"type": "bool", "default": False},
            "questions": {"type": "bool", "default": True},
            "other_keys": {"type": "list", "elements": "str", "default": [], "no_log": True},
            "headers": {"type": "dict", "default": {}},
            "timeout": {"type": "float", "default": 30},
            "call_timeout": {"type": "float", "default": 10},
            "times": {"type": "int", "default": 3},
            "validate_certs": {"type": "bool", "default": True},
            "ca_path": {"type": "path"},
        },
        required_one_of=[("key", "key_file")],
        mutually_exclusive=[("key", "key_file")],
        supports_check_mode=True,
    )
    parameters = module.params
    key = _key(module, parameters)
    parts = urlsplit(parameters["url"])
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        module.fail_json(msg="url must be a base address such as https://www.example.org, without user and password")
    if parameters["idle"]:
        _require_idle(module, parameters, parts, key)
    asked = _questions(parameters, key) if parameters["questions"] else []
    began = time.monotonic()
    right_in_a_row = 0
    while True:
        answers = [_ask(parameters, parts, *question) for question in asked]
        wrong = [answer for answer in answers if answer["status"] not in answer["expected"]]
        right_in_a_row = 0 if wrong else right_in_a_row + 1
        seconds = round(time.monotonic() - began, 2)
        if right_in_a_row >= parameters["times"]:
            break
        if seconds > parameters["timeout"]:
            if not wrong:
                break
            module.fail_json(
                msg=f"the {parameters['kind']} at {parameters['url']} is not as it should be: {_told(wrong)}",
                answers=answers,
                fingerprint=fingerprint(key),
                seconds=seconds,
            )
        time.sleep(PAUSE_SECONDS)
    module.exit_json(changed=False, answers=answers, fingerprint=fingerprint(key), seconds=seconds)


def _key(module, parameters):
    key = parameters["key"]
    if key is None:
        try:
            key = Path(parameters["key_file"]).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            module.fail_json(msg=f"{parameters['key_file']} cannot be read: {getattr(error, 'strerror', 'not UTF-8')}")
        module.no_log_values.update({key.strip()} - {""})
    if not key.strip():
        module.fail_json(msg="the key is empty")
    return key.strip()


def _questions(parameters, key):
    """In words, the key, the Host, and the statuses that are right."""
    taken = TAKEN[parameters["kind"]]
    questions = [("the right key", key, None, taken)]
    if parameters["strangers"]:
        questions += [
            ("no key", None, None, [401]),
            ("a wrong key", secrets.token_hex(32), None, [401]),
            ("the word unconfigured", "unconfigured", None, [401]),
        ]
    questions += [("a key that must be dead", dead.strip(), None, [401]) for dead in parameters["dead_keys"] if dead]
    if parameters["kind"] == "site":
        questions += [(f"the right key and Host {host}", key, host, taken) for host in parameters["allowed_hosts"]]
        if parameters["disallowed_host"]:
            host = parameters["disallowed_host"]
            questions.append((f"the right key and Host {host}, which is not allowed", key, host, [400]))
    return questions


def _require_idle(module, parameters, parts, key):
    """Return when the checker has no active run. A checker that has just been booted is waited for."""
    keys = [key, *(other.strip() for other in parameters["other_keys"] if other.strip())]
    deadline = time.monotonic() + parameters["timeout"]
    while True:
        answers = [_call(parameters, parts, "/metrics", each, None, ACTIVE_BYTES) for each in keys]
        known = [(status, body) for status, body in answers if status not in (0, 401, 502, 503)]
        if known or time.monotonic() > deadline or all(status == 401 for status, dummy in answers):
            break
        time.sleep(PAUSE_SECONDS)
    if not known:
        refused = "refuses every key that is known here" if answers[-1][0] == 401 else "does not answer"
        module.fail_json(msg=f"the checker at {parameters['url']} {refused}, so that nobody knows whether a check runs")
    if any(re.search(rb"^spamcheck_run_active 1(\.0)?\s*$", body, re.MULTILINE) for dummy, body in known):
        module.fail_json(
            msg="a check is running on the checker: wait for its end (see: spamops status), and run this again"
        )


def _ask(parameters, parts, words, key, host, expected):
    status, _dummy = _call(parameters, parts, PATHS[parameters["kind"]], key, host, 0)
    return {"asked": words, "expected": expected, "status": status}


def _call(parameters, parts, path, key, host, most_bytes):
    """Status of the answer (0: none) and the beginning of its body."""
    host = host or parameters["host"] or None
    connection = _connection(parameters, parts)
    try:
        connection.putrequest("GET", parts.path.rstrip("/") + path, skip_host=host is not None)
        headers = {"Accept": "*/*", "User-Agent": "spamops", "Connection": "close"}
        headers.update((name, str(value)) for name, value in parameters["headers"].items())
        if host is not None:
            headers["Host"] = host
        if key is not None:
            headers["X-API-Key"] = key
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.read(most_bytes) if most_bytes else b""
    except (OSError, http.client.HTTPException, ValueError):
        return 0, b""
    finally:
        connection.close()


def _connection(parameters, parts):
    if parts.scheme == "http":
        return http.client.HTTPConnection(parts.hostname, parts.port, timeout=parameters["call_timeout"])
    context = ssl.create_default_context(cafile=parameters["ca_path"])
    if not parameters["validate_certs"]:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return http.client.HTTPSConnection(parts.hostname, parts.port, timeout=parameters["call_timeout"], context=context)


def _told(wrong):
    """The answers that are not right, in words."""
    words = []
    for answer in wrong:
        came = answer["status"] or "nothing"
        meaning = MEANING.get(answer["status"], "")
        if answer["status"] in (200, 204) and 401 in answer["expected"]:
            meaning = "it lets in whom it must not"
        expected = " or ".join(map(str, answer["expected"]))
        words.append(
            f"asked with {answer['asked']} it answers {came}{f' ({meaning})' if meaning else ''}, not {expected}"
        )
    return "; ".join(words)


if __name__ == "__main__":
    main()
