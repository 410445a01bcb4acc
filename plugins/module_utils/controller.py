# Copyright: the spamops contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""What the modules share: the arguments that name the cloud and the run, and the package they need."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

try:
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
    "api_timeout": {"type": "int", "default": 30},
    "interface": {
        "type": "str",
        "choices": ["admin", "internal", "public"],
        "default": "public",
        "aliases": ["endpoint_type"],
    },
}
RUN_SPEC: dict[str, Any] = {"run": {"type": "int"}, "state_dir": {"type": "path"}}


def require_spamops(module: AnsibleModule) -> None:
    """Fail with the usual words where the package is missing."""
    if IMPORT_ERROR is not None:
        module.fail_json(msg=missing_required_lib("spamops"), exception=IMPORT_ERROR)


def cloud_arguments(parameters: dict[str, Any]) -> dict[str, Any]:
    """Arguments for `spamops.cloud.connect`, as openstack.cloud passes them on; what is not given is left to clouds.yaml
    and OS_*."""
    arguments = {
        "auth_type": parameters["auth_type"],
        "auth": parameters["auth"],
        "region_name": parameters["region_name"],
        "verify": parameters["validate_certs"],
        "cacert": parameters["ca_cert"],
        "interface": parameters["interface"],
        "api_timeout": parameters["api_timeout"],
    }
    cloud = parameters["cloud"]
    if isinstance(cloud, dict):
        arguments |= cloud
    else:
        arguments["cloud"] = cloud
    return {name: value for name, value in arguments.items() if value is not None}


def state_dir(parameters: dict[str, Any]) -> Path:
    """The folder of the history and the locks."""
    return Path(parameters["state_dir"]) if parameters["state_dir"] else spamops.settings.default_state_dir()
