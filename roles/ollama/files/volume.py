"""The volume of the models: `look` tells what is on it and at its place, `make` gives an empty one a file system.

Arguments: look or make, device, label, folder of the models. `look` reads only and prints JSON; `make` looks once more right
before it writes, and refuses whatever is not empty. Runs on managed hosts: Python 3.8 and the standard library alone.
"""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path


class Refused(Exception):
    """The message says why."""


def run(*command, check=True):
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=check, stdin=subprocess.DEVNULL)


def signature(device):
    """What blkid finds on a device, names and values; {} when it finds nothing. Raises Refused when it cannot tell."""
    # -p looks at the device itself, past blkid's cache.
    done = run("/usr/sbin/blkid", "-p", "-o", "export", device, check=False)
    if done.returncode == 2 and not done.stdout.strip():
        # It answers the same for what it cannot read; this raises OSError then.
        with Path(device).open("rb") as opened:
            opened.read(4096)
        return {}
    found = dict(line.partition("=")[::2] for line in done.stdout.splitlines() if "=" in line)
    if done.returncode or not (found.get("TYPE") or found.get("PTTYPE")):
        raise Refused(f"blkid cannot tell what is on it (exit code {done.returncode}): {done.stderr.strip()}")
    return found


def mounts():
    """Device number and folder of every mount, the newest last."""
    lines = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [(fields[2], fields[4]) for fields in lines]


def fault_of_content(found, label):
    what = found.get("TYPE") or f"a partition table ({found['PTTYPE']})"
    named = f" labelled {found['LABEL']}" if found.get("LABEL") else ""
    return (
        f"it holds {what}{named}, which this role did not make, and nothing is overwritten: if nobody needs it, run `wipefs --all`"
        f" on it by hand; an ext4 file system with models is taken once it has the label (`e2label DEVICE {label}`)"
    )


def look(device, label, folder):
    """What there is. `state` is empty, ours or foreign; `fault` says why the volume cannot be used."""
    unit = run("/usr/bin/systemd-escape", "--path", "--suffix=mount", folder).stdout.strip()
    told = {"unit": unit, "state": "", "mounted": False, "fault": ""}
    try:
        status = Path(device).stat()
    except OSError:
        told["fault"] = (
            "there is no such device: is the volume attached? `ls -l /dev/disk/by-id` on the host shows what is"
        )
        return told
    if not stat.S_ISBLK(status.st_mode):
        told["fault"] = "that is no block device"
        return told
    number = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    try:
        found = signature(device)
    except (Refused, OSError) as error:
        told["fault"] = str(error)
        return told
    ours = (found.get("TYPE"), found.get("LABEL")) == ("ext4", label)
    told["state"] = "ours" if ours else "foreign" if found else "empty"
    here = os.path.realpath(folder)
    places = [place for device_number, place in mounts() if device_number == number]
    at_folder = [device_number for device_number, place in mounts() if place == here]
    told["mounted"] = at_folder[-1:] == [number]
    if told["state"] == "foreign":
        told["fault"] = fault_of_content(found, label)
    elif told["state"] == "empty" and any(Path("/sys/dev/block", number).glob("*/partition")):
        told["fault"] = "it has partitions"
    elif told["mounted"]:
        pass
    elif places:
        told["fault"] = f"it is mounted at {', '.join(places)}"
    elif at_folder:
        told["fault"] = f"another device is mounted at {folder}"
    elif Path(folder).is_dir() and any(Path(folder).iterdir()):
        told["fault"] = (
            f"{folder} has files on the root disk, which the volume would hide for ever: stop Ollama (`systemctl stop ollama`) and remove"
            " them (models are fetched again)"
        )
    return told


def make(device, label, folder):
    """Give it a file system. One that was cut off has no signature yet and is taken for empty the next time."""
    told = look(device, label, folder)
    if told["fault"] or told["state"] != "empty":
        raise Refused(f"{device}: {told['fault'] or 'it is not empty any more'}")
    # No blocks are kept for root, who has nothing to write there.
    run("/usr/sbin/mkfs.ext4", "-q", "-m", "0", "-L", label, device)


if __name__ == "__main__":
    try:
        if sys.argv[1] == "make":
            make(*sys.argv[2:])
        else:
            sys.stdout.write(json.dumps(look(*sys.argv[2:])))
    except subprocess.CalledProcessError as error:
        sys.exit(f"{error.cmd[0]}: {error.stderr.strip()}")
    except (Refused, OSError, subprocess.SubprocessError) as error:
        sys.exit(str(error))
