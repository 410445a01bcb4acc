"""A volume for the models: made ready once, never at the cost of what is on it, and required by Ollama from then on.

The volume is a loop device of the host. What a container cannot show is the wait for a device at boot: it has no udev.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from conftest import ask, on_host, play

pytestmark = pytest.mark.timeout(900)

PLACE = "/srv/models"
UNIT = "srv-models.mount"
# An old partition table with one partition; the image has no program that writes one.
PARTITION = """
import sys
table = bytearray(512)
table[446:462] = bytes([0, 0, 2, 0, 0x83, 0, 0, 0]) + (2048).to_bytes(4, "little") + (65536).to_bytes(4, "little")
table[510:] = bytes([0x55, 0xAA])
open(sys.argv[1], "r+b").write(table)
"""


@pytest.fixture(scope="module")
def volume() -> Iterator[str]:
    """An empty block device of 64 MiB."""
    if on_host("test -e /dev/loop-control || mknod /dev/loop-control c 10 237; losetup -f", check=False) == "":
        pytest.skip("this machine lends its containers no loop devices")
    device = on_host("losetup -f")
    on_host(f"test -b {device} || mknod {device} b 7 {device.removeprefix('/dev/loop')}")
    on_host(f"truncate -s 64M /var/volume.img && losetup {device} /var/volume.img")
    yield device
    on_host(f"systemctl stop ollama; systemctl disable --now {UNIT}; losetup -d {device}", check=False)
    on_host(f"rm -rf /var/volume.img /etc/systemd/system/{UNIT} {PLACE}; systemctl daemon-reload")
    code, output = play()
    assert code == 0, output


def variables(device: str, **more: str) -> list[str]:
    return [
        "-e",
        json.dumps(
            {"ollama_models_path": PLACE, "ollama_models_device": device, "ollama_models_min_free_mb": 10, **more}
        ),
    ]


def state() -> tuple[str, str]:
    """What must not change when a volume is refused."""
    return on_host("systemctl show -P MainPID ollama"), on_host("ls /etc/systemd/system")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("mkswap {0}", "it holds swap"),
        ("mkfs.ext4 -q -L letters {0}", "it holds ext4 labelled letters"),
        (f"python3 -c {shlex.quote(PARTITION)} {{0}}", r"it holds a partition table \(dos\)"),
    ],
)
def test_a_volume_with_anything_on_it_is_refused_and_not_touched(volume: str, content: str, told: str) -> None:
    on_host(content.format(volume) + " >/dev/null 2>&1")
    before = on_host(f"sha256sum < {volume}"), state()
    code, output = play(*variables(volume))
    assert code != 0
    assert re.search(told, output), output
    assert "nothing is overwritten" in output
    assert (on_host(f"sha256sum < {volume}"), state()) == before
    on_host(f"dd if=/dev/zero of={volume} bs=1M status=none 2>/dev/null; sync; true")


def test_a_device_that_is_not_there_or_files_in_its_place_are_told(volume: str) -> None:
    code, output = play(*variables("/dev/disk/by-id/virtio-00000000-0000-4000-8"))
    assert code != 0
    assert "there is no such device: is the volume attached?" in output
    code, output = play(*variables(volume), "-e", "ollama_models_path=/var/lib/ollama/models")
    assert code != 0
    assert "has files on the root disk" in output


def test_an_empty_volume_is_made_ready_once_and_holds_the_models(volume: str) -> None:
    before = on_host(f"sha256sum < {volume}"), state()
    code, output = play("--check", *variables(volume))
    assert code == 0, output
    assert "would get an ext4 file system" in output
    assert (on_host(f"sha256sum < {volume}"), state()) == before

    code, output = play(*variables(volume))
    assert code == 0, output
    assert on_host(f"findmnt --noheadings --output SOURCE,FSTYPE {PLACE}").split() == [volume, "ext4"]
    assert on_host(f"stat -c '%U %a' {PLACE}") == "ollama 750"
    assert on_host(f"systemctl is-enabled {UNIT}") == "enabled"
    assert len(on_host(f"ls {PLACE}/blobs").split()) >= 2
    assert {each["name"] for each in ask("/api/tags")["models"]} == {"llama3.1:latest", "llama3.2:latest"}
    made = on_host(f"blkid -p -s UUID -o value {volume}")

    code, output = play(*variables(volume))
    assert code == 0, output
    assert re.search(r"changed=0\s", output), output
    assert on_host(f"blkid -p -s UUID -o value {volume}") == made


def test_ollama_brings_the_volume_and_does_not_fill_the_root_disk_without_it(volume: str) -> None:
    on_host(f"systemctl stop ollama {UNIT}")
    assert on_host(f"findmnt {PLACE}", check=False) == ""
    on_host("systemctl start ollama")
    assert on_host(f"findmnt --noheadings --output SOURCE {PLACE}") == volume

    on_host(f"systemctl stop ollama {UNIT} && losetup -d {volume}")
    told = on_host("systemctl start ollama 2>&1; systemctl is-active ollama", check=False)
    assert "dependency" in told
    assert told.splitlines()[-1] != "active"
    assert on_host(f"ls -A {PLACE}") == ""
    on_host(f"losetup {volume} /var/volume.img; systemctl reset-failed; systemctl start ollama")
