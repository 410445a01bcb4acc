"""What the role needs to know of the host, in one go: reads only. Prints JSON."""

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

install, port, packages = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]


def read(path):
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def target(link):
    return link.readlink().name if link.is_symlink() else ""


def output(*command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def running():
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}/api/version", timeout=5) as response:
            return str(json.load(response)["version"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def cards():
    """PCI display and 3D controllers, by their vendors."""
    found = []
    for device in Path("/sys/bus/pci/devices").glob("*"):
        if read(device / "class").startswith("0x03"):
            found.append({"0x10de": "nvidia", "0x1002": "amd"}.get(read(device / "vendor"), ""))
    return [vendor for vendor in found if vendor]


def gpu():
    # A device in the container or host that answers counts; a card without a driver does not.
    query = output("nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader,nounits")
    rows = [[cell.strip() for cell in line.split(",")] for line in query.splitlines()]
    rows = [row for row in rows if len(row) == 3]
    if rows:
        memory = sum(int(row[2]) for row in rows if row[2].isdigit())
        return "nvidia", memory, "; ".join(f"{row[0]}, driver {row[1]}, {row[2]} MiB" for row in rows)
    if Path("/dev/kfd").exists():
        totals = [read(path) for path in Path("/sys/class/drm").glob("card*/device/mem_info_vram_total")]
        memory = sum(int(total) for total in totals if total.isdigit()) // 1024**2
        return "amd", memory, f"an AMD GPU with {memory} MiB"
    if cards():
        return "none", 0, f"a {cards()[0]} card without a working driver"
    return "none", 0, "no GPU"


def missing(names):
    status = output("dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\\n")
    there = {line.split()[0] for line in status.splitlines() if line.endswith(" installed")}
    return [name for name in names if name not in there]


def memory_mb():
    total = next((line.split()[1] for line in read("/proc/meminfo").splitlines() if line.startswith("MemTotal:")), "0")
    return int(total) // 1024


def groups():
    return [line.split(":")[0] for line in read("/etc/group").splitlines()]


kind, gpu_mb, told = gpu()
system = dict(line.partition("=")[::2] for line in read("/etc/os-release").splitlines())
releases = install / "releases"
disk = install
while not disk.exists():
    disk = disk.parent
free = os.statvfs(disk)
sys.stdout.write(
    json.dumps(
        {
            "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine),
            "system": system.get("ID", "").strip('"'),
            "systemd": Path("/run/systemd/system").is_dir(),
            "missing_packages": missing(packages),
            "memory_mb": memory_mb(),
            "gpu": kind,
            "gpu_mb": gpu_mb,
            "gpu_told": told,
            "gpu_groups": [group for group in ("render", "video") if group in groups()],
            "releases": sorted(path.name for path in releases.glob("*") if path.is_dir() and path.suffix != ".part"),
            "current": target(install / "current"),
            "previous": target(install / "previous"),
            "applied": read(install / "applied"),
            "running": running(),
            "free_mb": free.f_bavail * free.f_frsize // 1024**2,
        }
    )
)
