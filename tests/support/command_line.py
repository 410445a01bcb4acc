"""The command line, called as a shell would."""

from __future__ import annotations

import pytest

from spamops import cli


def code_of(*arguments: str) -> int:
    """What the command exits with."""
    with pytest.raises(SystemExit) as ended:
        cli.main(list(arguments))
    assert isinstance(ended.value.code, int)
    return ended.value.code
