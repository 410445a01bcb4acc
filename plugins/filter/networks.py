# Copyright: the spamops contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""Networks as a cloud writes them, or what is wrong with them."""

from __future__ import annotations

import ipaddress

DOCUMENTATION = r"""
name: networks
short_description: Networks as a cloud writes them, or what is wrong with them
version_added: 0.1.0
author:
  - The spamops contributors (!UNKNOWN)
description:
  - Takes addresses and networks of IPv4 and IPv6 and writes each as a security group's rule shows it, once, in their order.
    An address becomes the network that holds it alone, bits of hosts are cleared, IPv6 is in lower case and shortened.
  - With O(faults=true) it tells instead which of them are none.
options:
  _input:
    description: Addresses and networks.
    type: list
    elements: raw
    required: true
  faults:
    description: Give the faults in place of the networks.
    type: bool
    default: false
"""

EXAMPLES = r"""
# ['192.0.2.10/32', '2001:db8::/32']
- ansible.builtin.debug:
    msg: "{{ ['192.0.2.10', '2001:DB8::/32', '192.0.2.10/32'] | comses.spamops.networks }}"

# ["'192.0.2.0/33' is no network such as 192.0.2.0/24 or 2001:db8::/32"]
- ansible.builtin.debug:
    msg: "{{ ['192.0.2.0/33', '192.0.2.0/24'] | comses.spamops.networks(faults=true) }}"
"""

RETURN = r"""
_value:
  description: The networks that are some; with O(faults=true) a sentence for each that is none.
  type: list
  elements: str
"""


def networks(given, faults=False):
    """The networks in the cloud's form, or the faults."""
    found, wrong = [], []
    for each in [given] if isinstance(given, str) or not isinstance(given, (list, tuple)) else given:
        try:
            # Without the conversion a number would be taken for the address that it stands for.
            network = str(ipaddress.ip_network(str(each), strict=False))
        except ValueError:
            wrong.append(f"'{each}' is no network such as 192.0.2.0/24 or 2001:db8::/32")
            continue
        if network not in found:
            found.append(network)
    return wrong if faults else found


class FilterModule:
    """Ansible's way to the filter."""

    def filters(self):
        """The filter by its name."""
        return {"networks": networks}
