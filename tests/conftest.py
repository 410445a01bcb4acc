"""What all tests share: an environment without the machine's own cloud."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def no_cloud_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that is set on this machine for a real cloud, site or controller reaches a test."""
    for name in list(os.environ):
        if name.startswith(("OS_", "SPAMOPS_", "LLM_SPAM_CHECK_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", os.devnull)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
