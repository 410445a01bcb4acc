# Copyright: the spamops contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""What the modules share: the arguments that name the cloud and the run, and the package they need."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

try:
    import spamops.attached
    import spamops.guard
    import spamops.settings

    IMPORT_ERROR = None
except ImportError:
    IMPORT_ERROR = traceback.format_exc()

CLOUD_SPEC: dict[str, Any] = {
    "cloud": {"type": "raw"},
    "auth": {"type": "dict", "no_log": True},
    "auth_type": {"type": "str"},
    "region_name": {"type": "str"},
    "validate_certs": {"type": "bool", "aliases": ["verify"]},
    "ca_cert": {"type": "str", "aliases": ["cacert"]},
    "client_cert": {"type": "str", "aliases": ["cert"]},
    "client_key": {"type": "str", "aliases": ["key"], "no_log": False},
    "api_timeout": {"type": "int", "default": 30},
    "interface": {
        "type": "str",
        "choices": ["admin", "internal", "public"],
        "default": "public",
        "aliases": ["endpoint_type"],
    },
}
RUN_SPEC: dict[str, Any] = {"run": {"type": "int"}, "state_dir": {"type": "path"}}
RESULTS = frozenset({"wake", "check", "shelved"})
"""Options that hold what other tasks returned, reports of thousands of verdicts among it: too long for the system's log."""


class ControllerModule(AnsibleModule):
    """A module that needs the package, and keeps a credential inside O(cloud) out of the log and the output. Ansible does
    that for the option `auth` by itself, but `cloud` is a plain name as a rule, which must not be masked."""

    def _log_invocation(self) -> None:
        """Called once the arguments are read, before they are logged."""
        cloud = self.params.get("cloud")
        if isinstance(cloud, dict):
            self.no_log_values.update(_texts(cloud.get("auth")))
        whole = self.params
        self.params = {name: value for name, value in whole.items() if name not in RESULTS}
        super()._log_invocation()
        self.params = whole

    def require_spamops(self) -> None:
        """Fail with the usual words where the package, or something that it needs, is missing."""
        if IMPORT_ERROR is not None:
            self.fail_json(msg=missing_required_lib("spamops"), exception=IMPORT_ERROR)


def cloud_arguments(parameters: dict[str, Any]) -> dict[str, Any]:
    """Arguments for `spamops.cloud.connect`, as openstack.cloud passes them on; what is not given is left to clouds.yaml
    and OS_*."""
    arguments = {
        "auth_type": parameters["auth_type"],
        "auth": parameters["auth"],
        "region_name": parameters["region_name"],
        "verify": parameters["validate_certs"],
        "cacert": parameters["ca_cert"],
        "cert": parameters["client_cert"],
        "key": parameters["client_key"],
        "interface": parameters["interface"],
        "api_timeout": parameters["api_timeout"],
    }
    cloud = parameters["cloud"]
    if isinstance(cloud, dict):
        arguments |= cloud
    else:
        arguments["cloud"] = cloud
    return {name: value for name, value in arguments.items() if value is not None}


def run_clock(parameters: dict[str, Any]) -> spamops.attached.RunClock:
    """The clock of a task: it stops the task when the run that it belongs to is over. In check mode there is no run (0)."""
    return spamops.attached.RunClock(state_dir(parameters), parameters["run"] or None)


@contextmanager
def timed(steps: dict[str, float], name: str, clock: spamops.attached.RunClock) -> Iterator[None]:
    """Note how many seconds the block took, also when it failed."""
    began = clock.monotonic()
    try:
        yield
    finally:
        steps[name] = round(clock.monotonic() - began, 3)


def state_dir(parameters: dict[str, Any]) -> Path:
    """The folder of the history and the locks."""
    return Path(parameters["state_dir"]) if parameters["state_dir"] else spamops.settings.default_state_dir()


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, str) and value:
        yield value
