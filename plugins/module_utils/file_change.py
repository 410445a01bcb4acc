# Copyright: the spamops contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

"""What the modules that edit a file share: reading it, and replacing it in one step with owner and mode kept."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def real_path(module, path):
    """The file that is meant, behind symbolic links, so that a link stays one. Ends the module where it is no file."""
    found = Path(os.path.realpath(path))
    if found.is_dir():
        module.fail_json(msg=f"{path} is a folder, not a file")
    if not found.parent.is_dir():
        module.fail_json(msg=f"{path} cannot be: its folder does not exist on this host")
    return found


def read(module, path):
    """The file's bytes, or None where there is none."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        return module.fail_json(msg=f"{path} cannot be read: {error.strerror}")


def replace(module, path, raw, existed, new_mode=0o600):
    """Replace the file in one step; the path of the backup where one was asked for. A new file is its owner's alone, or has
    `new_mode`."""
    backup = module.backup_local(str(path)) if existed and module.params["backup"] else None
    descriptor, name = tempfile.mkstemp(dir=str(path.parent), prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(raw)
            stream.flush()
            if not existed:
                os.fchmod(stream.fileno(), new_mode)
            os.fsync(stream.fileno())
        if existed:
            module.atomic_move(str(temporary), str(path))
        else:
            temporary.rename(path)
    finally:
        if temporary.exists():
            temporary.unlink()
    return backup
