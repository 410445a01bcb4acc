"""A file that only its owner may read, written at once: whoever opens it sees the old one or the new one, whole."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from .errors import SettingsError


@contextlib.contextmanager
def written(path: Path, mode: int = 0o600) -> Iterator[IO[bytes]]:
    """A file to write to, which takes the place of `path` at the end; an exception leaves what was there before.

    Raises SettingsError when it cannot be written.
    """
    name = None
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".new", dir=path.parent)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            yield file
            file.flush()
            os.fsync(descriptor)
        if path.is_dir():
            raise IsADirectoryError(21, "it is a folder")
        Path(name).replace(path)
        name = None
    except OSError as error:
        raise SettingsError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        if name is not None:
            with contextlib.suppress(OSError):
                Path(name).unlink()
