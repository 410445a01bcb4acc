"""Logging in: what the settings say is what ssh gets, and nothing in them can become an option of ssh."""

from __future__ import annotations

from pathlib import Path

import pytest

from spamops import settings
from spamops.errors import SettingsError
from spamops.ssh import SshTarget

ENOUGH = {
    "SPAMOPS_SERVER": "gpu",
    "SPAMOPS_CHECKER_URL": "http://203.0.113.7:8001",
    "SPAMOPS_API_KEY": "0123456789abcdef" * 3,
}


def test_without_a_host_nobody_logs_in() -> None:
    assert settings.load(None, ENOUGH).ssh is None


@pytest.mark.parametrize(
    ("name", "value"),
    [("SSH_HOST", "-oProxyCommand=reboot"), ("SSH_HOST", "user@host"), ("SSH_HOST", "a b"), ("SSH_USER", "-l"),
     ("SSH_USER", "a;b"), ("SSH_PORT", "0"), ("SSH_PORT", "70000"), ("SITE_URL", "https://me:pw@example.org/"),
     ("DIAGNOSE_SECONDS", "-1")],
)  # fmt: skip
def test_what_could_be_an_option_or_is_out_of_range_is_refused(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name.lower()):
        settings.load(None, ENOUGH | {f"SPAMOPS_{name}": value})


def test_ssh_gets_what_the_settings_say_and_always_checks_host_keys(tmp_path: Path) -> None:
    loaded = settings.load(
        None,
        ENOUGH
        | {"SPAMOPS_SSH_HOST": "2001:db8::7", "SPAMOPS_SSH_USER": "ops", "SPAMOPS_SSH_PORT": "2222",
           "SPAMOPS_SSH_KEY_FILE": "/k e/y", "SPAMOPS_SSH_KNOWN_HOSTS": "/k e/hosts"},
    )  # fmt: skip
    assert loaded.ssh == SshTarget("2001:db8::7", "ops", 2222, Path("/k e/y"), Path("/k e/hosts"))
    words = loaded.ssh.arguments()
    assert words[-2:] == ["--", "2001:db8::7"]
    for option in (
        "StrictHostKeyChecking=yes",
        "BatchMode=yes",
        'UserKnownHostsFile="/k e/hosts"',
        "IdentitiesOnly=yes",
    ):
        assert words[words.index(option) - 1] == "-o"
    assert words[words.index("-i") + 1] == "/k e/y"
    assert "StrictHostKeyChecking=ask" in loaded.ssh.arguments(by_hand=True)
