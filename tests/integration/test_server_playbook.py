"""playbooks/server.yml, run by the real ansible-playbook with the real modules of openstack.cloud against a cloud on loopback."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from provisioning_cloud import FLAVOR, IMAGE, PRIVATE_NETWORK, PUBLIC_NETWORK, ProvisioningCloud, no_quota

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
# Invented; its form is all that matters.
PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f operator@example.org"
NAME = "spamcheck"

pytestmark = pytest.mark.timeout(600)


class Operator:
    """Somebody with an inventory, a cloud in clouds.yaml, and an SSH key."""

    def __init__(self, folder: Path, cloud: ProvisioningCloud) -> None:
        self.folder, self.cloud = folder, cloud
        (folder / "key.pub").write_text(PUBLIC_KEY + "\n")
        (folder / "clouds.yaml").write_text(yaml.safe_dump({"clouds": {"own": cloud.password_clouds_yaml()}}))
        (folder / "hosts.yml").write_text(
            "all: {hosts: {localhost: {ansible_connection: local, ansible_python_interpreter: '{{ ansible_playbook_python }}'}}}\n"
        )
        self.variables: dict[str, Any] = {
            "server_name": NAME,
            "server_image": IMAGE,
            "server_flavor": FLAVOR,
            "server_network": PRIVATE_NETWORK,
            "server_external_network": PUBLIC_NETWORK,
            "server_public_key_file": str(folder / "key.pub"),
            "server_volume_gb": 40,
            "server_cloud": "own",
            # As people write them: an address without its length, upper case, bits of a host, the same twice.
            "firewall_admin_cidrs": ["198.51.100.7", "2001:DB8:0:1::/64", "198.51.100.7/32"],
            "firewall_site_cidrs": ["192.0.2.10/24", "2001:db8:2::10"],
        }

    def play(self, *arguments: str, **variables: Any) -> tuple[int, str]:
        """Exit code and output of the playbook. A variable that is None is left out."""
        given = {name: value for name, value in (self.variables | variables).items() if value is not None}
        (self.folder / "vars.json").write_text(json.dumps(given))
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("OS_", "ANSIBLE_"))}
        environment |= {"OS_CLIENT_CONFIG_FILE": str(self.folder / "clouds.yaml"), "ANSIBLE_NOCOLOR": "1"}
        done = subprocess.run(
            [
                BIN / "ansible-playbook", ROOT / "playbooks/server.yml", "-i", self.folder / "hosts.yml",
                "-e", f"@{self.folder / 'vars.json'}", *arguments,
            ],
            cwd=ROOT,
            env=environment | {"ANSIBLE_CALLBACK_RESULT_FORMAT": "json"},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300,
        )  # fmt: skip
        return done.returncode, done.stdout


def message(output: str) -> str:
    """What the playbook says at its end, on one line."""
    return " ".join(json.loads(f'"{found}"') for found in re.findall(r'"msg": "((?:[^"\\]|\\.)*)"', output)[-1:])


@pytest.fixture
def cloud() -> Iterator[ProvisioningCloud]:
    with ProvisioningCloud(build_seconds=0.5) as cloud:
        yield cloud


@pytest.fixture
def operator(tmp_path: Path, cloud: ProvisioningCloud) -> Operator:
    return Operator(tmp_path, cloud)


def test_a_server_is_made_as_asked_once_and_nothing_secret_is_shown(
    operator: Operator, cloud: ProvisioningCloud
) -> None:
    code, output = operator.play("--check")
    assert code == 0, output
    assert "would be made: the key pair, the security group, the volume, the server" in message(output)
    assert cloud.changes == [], "check mode changed something"

    code, output = operator.play("-vvv")
    assert code == 0, output
    (server,) = cloud.servers
    (volume,) = cloud.volumes.values()
    (address,) = cloud.floating_ips.values()
    assert server.state.status == "ACTIVE"
    assert cloud.keypairs[NAME]["public_key"].strip() == PUBLIC_KEY
    assert (volume["name"], volume["size"], volume["attachments"][0]["server_id"]) == (f"{NAME}-models", 40, server.id)
    assert cloud.ports[address["port_id"]]["device_id"] == server.id
    asked = cloud.details[server.id]["asked"]
    assert asked["imageRef"] in cloud.images
    assert asked["flavorRef"] in cloud.flavors
    assert [group["name"] for group in cloud.details[server.id]["groups"]] == [NAME]
    assert cloud.rules == {
        ("egress", "IPv4", None, None),
        ("egress", "IPv6", None, None),
        ("ingress", "IPv4", 22, "198.51.100.7/32"),
        ("ingress", "IPv6", 22, "2001:db8:0:1::/64"),
        ("ingress", "IPv4", 8001, "192.0.2.0/24"),
        ("ingress", "IPv6", 8001, "2001:db8:2::10/128"),
    }
    told = message(output)
    assert f"spamops_server: {server.id}\n" in told
    assert f"spamops_checker_url: http://{address['floating_ip_address']}:8001\n" in told
    assert f"ollama_models_device: /dev/disk/by-id/virtio-{volume['id'][:20]}\n" in told
    assert "it costs money" in told
    secrets = [cloud.keystone.password, *cloud.admin_passwords]
    assert len(secrets) == 2
    assert [secret for secret in secrets if secret in output] == []

    before = len(cloud.changes)
    cloud.act(server.id, "shelve")
    code, output = operator.play(server_disk_bus="scsi")
    assert code == 0, output
    assert "changed=0 " in output
    assert cloud.changes[before:] == []
    assert f"/dev/disk/by-id/scsi-0QEMU_QEMU_HARDDISK_{volume['id']}\n" in message(output)
    assert "status: SHELVED_OFFLOADED" in message(output)

    # The rules follow the inventory; the server is left alone.
    code, output = operator.play(firewall_site_cidrs=["203.0.113.200"])
    assert code == 0, output
    assert {rule for rule in cloud.rules if rule[2] == 8001} == {("ingress", "IPv4", 8001, "203.0.113.200/32")}
    assert len(cloud.servers) == len(cloud.volumes) == len(cloud.floating_ips) == 1


def test_all_faults_are_told_at_once_before_anything_is_made(operator: Operator, cloud: ProvisioningCloud) -> None:
    code, output = operator.play(
        server_image=None,
        server_flavor="g3.huge",
        server_network="nowhere",
        server_external_network=PRIVATE_NETWORK,
        server_public_key_file="/nonexistent/key.pub",
        server_volume_gb="forty",
        firewall_admin_cidrs=["198.51.100.0/33", "192.0.2.0/24"],
        firewall_site_cidrs=["www.example.org", "192.0.2.256"],
    )
    assert code != 0
    told = message(output)
    for fault in (
        "9 fault(s); nothing was made",
        "server_image is not set",
        "the cloud has no flavor g3.huge",
        "the cloud has no network(s) nowhere",
        f"not one external network {PRIVATE_NETWORK}",
        "server_public_key_file does not name a file with an SSH public key",
        "server_volume_gb is not a number",
        "firewall_admin_cidrs: '198.51.100.0/33' is no network",
        "firewall_site_cidrs: 'www.example.org' is no network",
        "firewall_site_cidrs: '192.0.2.256' is no network",
    ):
        assert fault in told
    assert cloud.changes == []


def test_what_the_cloud_has_under_the_same_name_is_not_taken_for_ours(
    operator: Operator, cloud: ProvisioningCloud
) -> None:
    other = PUBLIC_KEY.replace("AAEC", "BBEC").replace("AABAgM", "BBBAgM")
    cloud.keypairs[NAME] = {"name": NAME, "public_key": other, "fingerprint": "00", "type": "ssh"}
    cloud.volumes["v"] = {
        "id": "v", "name": f"{NAME}-models", "size": 20, "status": "in-use", "bootable": "false",
        "attachments": [{"server_id": "somebody-elses", "device": "/dev/vdb"}],
    }  # fmt: skip
    for number in ("g1", "g2"):
        cloud.security_groups[number] = {"id": number, "name": NAME, "security_group_rules": [], "project_id": ""}
    code, output = operator.play()
    assert code != 0
    told = message(output)
    for fault in (
        "4 fault(s)",
        "with another key than",
        "has 20 GB, and server_volume_gb asks for 40",
        "attached to another server (somebody-elses)",
        "2 security groups named spamcheck",
    ):
        assert fault in told
    assert cloud.changes == []


def test_a_cloud_that_cannot_be_asked_is_told_with_the_other_faults(
    operator: Operator, cloud: ProvisioningCloud
) -> None:
    entry = cloud.password_clouds_yaml()
    entry["auth"]["password"] = "a-wrong-password-that-nobody-should-see"
    (operator.folder / "clouds.yaml").write_text(yaml.safe_dump({"clouds": {"own": entry}}))
    code, output = operator.play("-vvv", server_flavor=None)
    assert code != 0
    assert "2 fault(s); nothing was made" in message(output)
    assert "server_flavor is not set" in message(output)
    assert "requires authentication" in message(output)
    assert entry["auth"]["password"] not in output


def test_a_refusal_is_told_and_the_next_run_goes_on_from_there(operator: Operator, cloud: ProvisioningCloud) -> None:
    cloud.order(no_quota("/compute/v2.1/servers$", "cores: Requested 4, but already used 64 of 64 cores"))
    code, output = operator.play("-vvv")
    assert code != 0
    told = message(output)
    assert "(Create the server)" in told
    assert "Quota exceeded for cores: Requested 4, but already used 64 of 64 cores" in told
    assert "goes on from there" in told
    assert cloud.keystone.password not in output
    assert (len(cloud.keypairs), len(cloud.security_groups), len(cloud.volumes), cloud.servers) == (1, 1, 1, [])

    # The next time there is no host for it; the server that is left in ERROR is told, not taken for a good one.
    cloud.no_host = True
    code, output = operator.play()
    assert code != 0
    assert "(Create the server)" in message(output)
    (failed,) = cloud.servers
    code, output = operator.play()
    assert code != 0
    assert f"is in ERROR (Build of instance aborted): openstack server delete {failed.id}" in message(output)

    cloud.no_host = False
    cloud.force_state(failed.id, "DELETED")
    code, output = operator.play()
    assert code == 0, output
    (server,) = cloud.servers
    assert f"spamops_server: {server.id}\n" in message(output)
    assert (len(cloud.keypairs), len(cloud.security_groups), len(cloud.volumes)) == (1, 1, 1)
