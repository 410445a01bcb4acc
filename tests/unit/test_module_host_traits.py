"""What hardening must know of a host: a GPU whose driver must not break, a reboot that is due."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

COLLECTIONS = Path(__file__).parents[2] / ".collections"


@pytest.fixture(scope="module")
def traits() -> Any:
    if str(COLLECTIONS) not in sys.path:
        sys.path.insert(0, str(COLLECTIONS))
    return importlib.import_module("ansible_collections.comses.spamops.plugins.modules.host_traits")


def device(root: Path, vendor: str, kind: str) -> None:
    """A PCI device as the kernel shows it."""
    folder = root / "sys/bus/pci/devices" / f"0000:00:0{len(list(root.rglob('vendor')))}.0"
    folder.mkdir(parents=True)
    (folder / "vendor").write_text(f"{vendor}\n")
    (folder / "class").write_text(f"{kind}\n")


@pytest.mark.parametrize(
    ("vendor", "kind", "found"),
    [
        ("0x10de", "0x030200", True),  # a 3D controller: A100, H100
        ("0x10de", "0x030000", True),  # a VGA controller
        ("0x10de", "0x040300", False),  # its sound, or NVIDIA's old network cards
        ("0x1af4", "0x030000", False),  # another maker's
    ],
)
def test_an_nvidia_gpu_is_found_without_its_driver(
    traits: Any, tmp_path: Path, vendor: str, kind: str, found: bool
) -> None:
    device(tmp_path, "0x8086", "0x060000")
    device(tmp_path, vendor, kind)
    assert traits._nvidia_gpu(tmp_path) is found


def test_a_driver_without_a_device_that_can_be_seen_counts(traits: Any, tmp_path: Path) -> None:
    (tmp_path / "proc/driver/nvidia").mkdir(parents=True)
    (tmp_path / "proc/driver/nvidia/version").write_text("NVRM version")
    assert traits._nvidia_gpu(tmp_path)


def test_a_host_without_pci_has_none(traits: Any, tmp_path: Path) -> None:
    assert not traits._nvidia_gpu(tmp_path)


@pytest.mark.parametrize(
    ("installed", "running", "due"),
    [
        (["6.1.0-9-amd64", "6.1.0-10-amd64"], "6.1.0-9-amd64", "6.1.0-10-amd64"),
        (["6.1.0-9-amd64", "6.1.0-10-amd64"], "6.1.0-10-amd64", None),
        (["6.1.0-10-amd64", "6.1.0-40-cloud-amd64"], "6.1.0-10-amd64", None),
        (["5.15.0-91-generic", "5.15.0-105-generic"], "5.15.0-91-generic", "5.15.0-105-generic"),
        (["6.12.48+deb13-amd64", "6.12.57+deb13-amd64"], "6.12.48+deb13-amd64", "6.12.57+deb13-amd64"),
        ([], "6.1.0-9-amd64", None),
    ],
)
def test_a_reboot_is_due_for_a_newer_kernel_of_the_same_kind(
    traits: Any, tmp_path: Path, installed: list[str], running: str, due: str | None
) -> None:
    (tmp_path / "boot").mkdir()
    for release in installed:
        (tmp_path / "boot" / f"vmlinuz-{release}").touch()
    reasons = traits._reboot_reasons(tmp_path, running)
    assert reasons == ([f"kernel {due} is installed and {running} is running"] if due else [])


def test_a_reboot_is_due_when_a_package_asks(traits: Any, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/reboot-required").touch()
    (tmp_path / "run/reboot-required.pkgs").write_text("libc6\ndbus\nlibc6\n")
    assert traits._reboot_reasons(tmp_path, "6.1.0-9-amd64") == ["packages ask for it: dbus, libc6"]
