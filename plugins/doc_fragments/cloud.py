# Copyright: the spamops contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""Documentation of the arguments that name the cloud and the run, shared by the modules."""

from __future__ import annotations


class ModuleDocFragment:
    """Arguments named and meant as in openstack.cloud."""

    DOCUMENTATION = r"""
options:
  cloud:
    description:
      - Name of the cloud in C(clouds.yaml), or a dictionary with such an entry's content.
      - Without it and without O(auth), C(OS_*) environment variables are read.
    type: raw
  auth:
    description:
      - What the authentication plugin needs, such as C(auth_url), C(application_credential_id) and
        C(application_credential_secret).
    type: dict
  auth_type:
    description:
      - The authentication plugin. Application credentials, the normal case here, are C(v3applicationcredential).
    type: str
  region_name:
    description: Region, where the cloud has several.
    type: str
  validate_certs:
    description: Whether certificates of the cloud's addresses are verified.
    type: bool
    aliases: [verify]
  ca_cert:
    description: Path of a bundle of certificate authorities, for verifying.
    type: str
    aliases: [cacert]
  client_cert:
    description: Path of a client certificate, for clouds that ask for one.
    type: str
    aliases: [cert]
  client_key:
    description: Path of that certificate's key.
    type: str
    aliases: [key]
  api_timeout:
    description: Limit of a single call to the cloud, in seconds.
    type: int
    default: 30
  interface:
    description: Which of the endpoints in the catalog to use.
    type: str
    choices: [admin, internal, public]
    default: public
    aliases: [endpoint_type]
requirements:
  - "python >= 3.11"
  - "spamops, the Python package of this collection, which brings openstacksdk"
"""

    RUN = r"""
options:
  run:
    description:
      - Number of the check run that this task belongs to, from M(comses.spamops.run_record).
      - When that run was ended meanwhile (the playbook was interrupted, and its guard shelved the server), the module stops
        and changes nothing more.
    type: int
  state_dir:
    description: Folder of the history and the locks. Default as of the C(spamops) command.
    type: path
"""
