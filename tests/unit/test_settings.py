"""Settings: a faulty one costs nothing, and every fault is named at once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from spamops import settings
from spamops.errors import SettingsError

KEY = "0123456789abcdef" * 3
ENOUGH = {"SPAMOPS_SERVER": "gpu", "SPAMOPS_CHECKER_URL": "http://203.0.113.7:8001", "SPAMOPS_API_KEY": KEY}


def refused(environ: dict[str, str], config: Path | None = None) -> str:
    """What the operator is told."""
    with pytest.raises(SettingsError) as told:
        settings.load(config, environ)
    return str(told.value)


def test_the_environment_alone_is_enough() -> None:
    loaded = settings.load(None, ENOUGH)
    assert (loaded.server, loaded.checker_base) == ("gpu", "http://203.0.113.7:8001")
    assert loaded.api_key.get_secret_value() == KEY
    assert (loaded.unshelve_seconds, loaded.shelve_seconds, loaded.check_seconds) == (300, 900, 3600)


def test_a_site_keeps_its_own_names(tmp_path: Path) -> None:
    (tmp_path / "llm_spam_check_api_key").write_text(f"{KEY}\n")
    (tmp_path / "llm_spam_check_jetstream_os_application_credential_id").write_text("id-1\n")
    (tmp_path / "llm_spam_check_jetstream_os_application_credential_secret").write_text("secret-1\n")
    loaded = settings.load(
        None,
        {
            "LLM_SPAM_CHECK_API_URL": "https://checker.example.org/",
            "LLM_SPAM_CHECK_JETSTREAM_SERVER_ID": "4711",
            "OS_AUTH_URL": "https://cloud.example.org/v3",
            "SPAMOPS_SECRETS_DIR": str(tmp_path),
        },
    )
    assert (loaded.server, loaded.checker_base) == ("4711", "https://checker.example.org")
    assert loaded.api_key.get_secret_value() == KEY
    assert loaded.cloud_arguments() == {
        "auth_type": "v3applicationcredential",
        "auth": {
            "application_credential_id": "id-1",
            "application_credential_secret": "secret-1",
            "auth_url": "https://cloud.example.org/v3",
        },
    }


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("", "api_key is empty"),
        ("   \n", "api_key is empty"),
        ("short", "api_key has 5 characters, 32 or more are needed"),
        ("unconfigured", "everybody knows"),
        (" Unconfigured ", "everybody knows"),
        ("k" * 31, "31 characters"),
        ("k" * 20 + " " + "k" * 20, "without blanks"),
        ("ключ" * 10, "printable ASCII"),
    ],
)
def test_a_key_that_protects_nothing_is_refused(key: str, says: str) -> None:
    assert says in refused(ENOUGH | {"SPAMOPS_API_KEY": key})


def test_an_empty_key_file_is_not_hidden_by_another_source(tmp_path: Path) -> None:
    (tmp_path / "llm_spam_check_api_key").write_text("\n")
    environ = {name: value for name, value in ENOUGH.items() if name != "SPAMOPS_API_KEY"}
    assert "api_key is empty" in refused(environ | {"SPAMOPS_SECRETS_DIR": str(tmp_path)})


def test_a_missing_key_file_makes_no_key(tmp_path: Path) -> None:
    environ = {name: value for name, value in ENOUGH.items() if name != "SPAMOPS_API_KEY"}
    told = refused(environ | {"SPAMOPS_SECRETS_DIR": str(tmp_path)})
    assert "api_key is not set: give a file llm_spam_check_api_key in secrets_dir or SPAMOPS_API_KEY" in told


def test_every_fault_is_in_one_message_and_no_secret_is(tmp_path: Path) -> None:
    config = tmp_path / "spamops.toml"
    config.write_text(f'checker_url = "no address"\ncheck_second = 5\nshelve_seconds = -1\napi_key = "{KEY}"\n')
    told = refused({"SPAMOPS_APPLICATION_CREDENTIAL_SECRET": "very-secret"}, config)
    for words in (
        "server is not set",
        "checker_url",
        "did you mean check_seconds?",
        "shelve_seconds",
        "api_key does not belong in spamops.toml",
    ):
        assert words in told
    assert KEY not in told
    assert "very-secret" not in told


@pytest.mark.parametrize("value", ["inf", "nan", "0", "-5", "soon"])
def test_a_limit_that_never_comes_is_refused(value: str) -> None:
    assert "shelve_seconds" in refused(ENOUGH | {"SPAMOPS_SHELVE_SECONDS": value})


@pytest.mark.parametrize("name", [" ", "\t\n"])
def test_a_server_without_a_name_is_refused(name: str) -> None:
    assert "server" in refused(ENOUGH | {"SPAMOPS_SERVER": name})


def test_half_a_credential_is_refused() -> None:
    told = refused(ENOUGH | {"SPAMOPS_APPLICATION_CREDENTIAL_ID": "id-1"})
    assert "needs both its id and its secret" in told


def test_a_credential_without_an_address_is_refused() -> None:
    both = {"SPAMOPS_APPLICATION_CREDENTIAL_ID": "id-1", "SPAMOPS_APPLICATION_CREDENTIAL_SECRET": "s"}
    assert "auth_url (or OS_AUTH_URL) is needed" in refused(ENOUGH | both)


def test_two_runs_from_two_folders_find_the_same_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "spamops.toml"
    config.write_text('state_dir = "state"\nsecrets_dir = "secrets"\n')
    (tmp_path / "secrets").mkdir()
    found = set()
    for folder in (tmp_path, tmp_path / "secrets"):
        monkeypatch.chdir(folder)
        loaded = settings.load(config, ENOUGH)
        found |= {loaded.state_dir, settings.state_dir_of(config, {})}
    assert found == {tmp_path / "state"}


def test_a_key_that_everybody_can_read_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secrets").mkdir()
    key = tmp_path / "secrets" / "llm_spam_check_api_key"
    key.write_text(KEY)
    key.chmod(0o644)
    config = tmp_path / "spamops.toml"
    config.write_text('server = "gpu"\nchecker_url = "http://203.0.113.7:8001"\nsecrets_dir = "secrets"\n')
    monkeypatch.chdir("/")
    assert settings.readable_by_others(settings.load(config, {})) == [key]
    key.chmod(0o640)
    assert settings.readable_by_others(settings.load(config, {})) == []


@pytest.mark.parametrize(
    ("content", "says"), [(b"server = ", "is not TOML"), (b"\xff\xfe", "it is not UTF-8"), (None, "No such file")]
)
def test_a_settings_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None, says: str) -> None:
    config = tmp_path / "spamops.toml"
    if content is not None:
        config.write_bytes(content)
    told = refused({}, config)
    assert says in told
    assert "spamops.toml" in told


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    config = tmp_path / "spamops.toml"
    config.write_text('server = "from-the-file"\ncheck_seconds = 10\n')
    loaded = settings.load(config, ENOUGH)
    assert (loaded.server, loaded.check_seconds) == ("gpu", 10)


def test_an_address_with_a_question_mark_is_refused() -> None:
    assert "base address" in refused(ENOUGH | {"SPAMOPS_CHECKER_URL": "http://203.0.113.7:8001/?key=1"})


def test_a_password_in_the_checkers_address_is_refused_because_addresses_are_shown() -> None:
    told = refused(ENOUGH | {"SPAMOPS_CHECKER_URL": "http://user:hunter2pass@203.0.113.7:8001"})
    assert "no password" in told
    assert "hunter2pass" not in told


def test_the_folder_of_the_locks_is_the_same_wherever_a_run_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert settings.load(None, ENOUGH | {"SPAMOPS_STATE_DIR": "~/state"}).state_dir == tmp_path / "state"
    assert settings.state_dir_of(None, {"SPAMOPS_STATE_DIR": "~/state"}) == tmp_path / "state"
    monkeypatch.chdir(tmp_path)
    assert settings.load(None, ENOUGH | {"SPAMOPS_STATE_DIR": "state"}).state_dir == tmp_path / "state"


def test_a_budget_in_service_units_needs_a_rate() -> None:
    told = refused({**ENOUGH, "SPAMOPS_BUDGET_DAY_UNITS": "5"})
    assert "budget_day_units and budget_month_units need service_units_per_hour" in told
    loaded = settings.load(None, {**ENOUGH, "SPAMOPS_BUDGET_DAY_UNITS": "5", "SPAMOPS_SERVICE_UNITS_PER_HOUR": "16"})
    assert (loaded.budget.day_units, loaded.budget.rate, loaded.budget.month_units) == (5, 16, None)
    assert settings.load(None, {**ENOUGH, "SPAMOPS_BUDGET_RUN_SECONDS": "60"}).budget.run_seconds == 60


def test_notifiers_are_one_a_line_and_shown_nowhere(tmp_path: Path) -> None:
    (tmp_path / "spamops_notify_urls").write_text("# ours\nslack://a-secret/b/c\n\n  json://user:a-secret@host/x\n")
    loaded = settings.load(None, {**ENOUGH, "SPAMOPS_SECRETS_DIR": str(tmp_path)})
    assert loaded.telling.urls == ("slack://a-secret/b/c", "json://user:a-secret@host/x")
    assert "a-secret" not in repr(loaded) + str(loaded) + repr(loaded.telling)
    assert settings.load(None, {**ENOUGH, "SPAMOPS_NOTIFY_URLS": "json://x"}).telling.urls == ("json://x",)
    assert "notify_urls line 1" in refused({**ENOUGH, "SPAMOPS_NOTIFY_URLS": "a-secret"})
    assert "a-secret" not in refused({**ENOUGH, "SPAMOPS_NOTIFY_URLS": "a-secret"})


def test_a_current_folder_that_the_user_may_not_enter_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.stat

    def refuse(path: Any, *rest: Any, **more: Any) -> os.stat_result:
        if str(path) == "spamops.toml":  # sudo -u somebody in a home that is its owner's alone
            raise PermissionError(13, "Permission denied", "spamops.toml")
        return real(path, *rest, **more)

    monkeypatch.setattr(os, "stat", refuse)
    assert settings.find_config(None, {}) in (None, settings.SYSTEM_CONFIG)
