"""Settings: the names that sites use, where secrets come from, and faults told at once without telling a secret."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from spamcheck.settings import Settings, SettingsError, load

KEY = "the-key-in-the-environment-0123456789"
FILE_KEY = "the-key-in-a-file-0123456789-0123456789"
PAYLOAD_KEY = base64.b64encode(bytes(32)).decode()


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but the two settings that are needed."""
    for name in list(os.environ):
        monkeypatch.delenv(name)
    monkeypatch.setenv("API_KEY", KEY)
    monkeypatch.setenv("PAYLOAD_KEY", PAYLOAD_KEY)


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """A folder of secret files, in which every key has another value than in the environment."""
    for name in ("api_key", "comses_api_key"):
        (tmp_path / name).write_text(f"{FILE_KEY}-{name}\n")
    return tmp_path


def refused() -> str:
    with pytest.raises(SettingsError) as error:
        load()
    return str(error.value)


def test_a_site_keeps_the_names_it_has_always_used(monkeypatch: pytest.MonkeyPatch) -> None:
    used = {
        "COMSES_URL": "https://comses.example.org/",
        "COMSES_API_KEY": "the-key-of-the-site-0123456789-0123456789",
        "TEMPORAL_ADDRESS": "temporal.example.org:7233",
        "TEMPORAL_NAMESPACE": "spam",
        "OLLAMA_URL": "http://ollama.example.org:11434/",
        "OLLAMA_DEFAULT_MODEL": "llama3.3",
    }
    for name, value in used.items():
        monkeypatch.setenv(name, value)
    settings = load()
    assert settings.api_key.get_secret_value() == KEY
    assert settings.comses_api_key is not None
    assert {
        "COMSES_URL": str(settings.comses_url),
        "COMSES_API_KEY": settings.comses_api_key.get_secret_value(),
        "TEMPORAL_ADDRESS": settings.temporal_address,
        "TEMPORAL_NAMESPACE": settings.temporal_namespace,
        "OLLAMA_URL": str(settings.ollama_url),
        "OLLAMA_DEFAULT_MODEL": settings.ollama_default_model,
    } == used


def test_one_key_serves_both_ways_unless_two_are_given() -> None:
    settings = load()
    assert settings.comses_api_key == settings.api_key


@pytest.mark.parametrize("variable", ["CREDENTIALS_DIRECTORY", "SPAMCHECK_SECRETS_DIR"])
def test_keys_are_found_in_files_and_the_environment_wins_over_them(
    variable: str, monkeypatch: pytest.MonkeyPatch, secrets: Path
) -> None:
    monkeypatch.setenv(variable, str(secrets))
    settings = load()
    assert settings.comses_api_key is not None
    assert settings.comses_api_key.get_secret_value() == f"{FILE_KEY}-comses_api_key"
    assert settings.api_key.get_secret_value() == KEY
    monkeypatch.delenv("API_KEY")
    assert load().api_key.get_secret_value() == f"{FILE_KEY}-api_key"


def test_an_empty_variable_does_not_hide_a_file(monkeypatch: pytest.MonkeyPatch, secrets: Path) -> None:
    monkeypatch.setenv("SPAMCHECK_SECRETS_DIR", str(secrets))
    monkeypatch.setenv("API_KEY", "")
    assert load().api_key.get_secret_value() == f"{FILE_KEY}-api_key"


def test_what_systemd_hands_over_comes_before_another_folder(
    monkeypatch: pytest.MonkeyPatch, secrets: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "comses_api_key").write_text("a-key-in-another-folder-0123456789")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(secrets))
    monkeypatch.setenv("SPAMCHECK_SECRETS_DIR", str(other))
    key = load().comses_api_key
    assert key is not None
    assert key.get_secret_value() == f"{FILE_KEY}-comses_api_key"


def test_a_folder_of_secrets_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SPAMCHECK_SECRETS_DIR", str(tmp_path / "missing"))
    assert str(tmp_path / "missing") in refused()


def test_every_fault_is_told_at_once_and_no_value_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PAYLOAD_KEY")
    faulty = {
        "API_KEY": "short-Xylograph",
        "COMSES_API_KEY": "Xylograph with blanks in it, and long enough",
        "COMSES_URL": "Xylograph",
        "API_PORT": "Xylograph",
        "PARALLELISM": "99987",
        "CLASSIFIER": "Xylograph",
    }
    for name, value in faulty.items():
        monkeypatch.setenv(name, value)
    message = refused()
    for name in (*faulty, "PAYLOAD_KEY"):
        assert message.count(f"\n  {name} ") == 1, message
    assert "PAYLOAD_KEY is not set" in message
    assert "Xylograph" not in message
    assert "99987" not in message


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("unconfigured", "well-known word"),
        (" Unconfigured ", "well-known word"),
        ("x" * 31, "has 31 characters"),
        (" " * 40, "has 0 characters"),
        ("a key with blanks, and long enough for one", "printable ASCII"),
        ("a-key-with-an-ü-and-long-enough-for-one", "printable ASCII"),
    ],
)
@pytest.mark.parametrize("name", ["API_KEY", "COMSES_API_KEY"])
def test_a_key_that_protects_nothing_is_refused(
    name: str, key: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, key)
    message = refused()
    assert f"{name} " in message
    assert reason in message
    assert key.strip() not in message.replace("well-known word", "") or not key.strip()


def test_an_empty_key_is_a_key_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEY", "")
    assert "API_KEY is not set" in refused()


@pytest.mark.parametrize("key", ["none", base64.b64encode(bytes(31)).decode(), "ü" * 44, "="])
def test_a_payload_key_of_another_length_is_refused(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAYLOAD_KEY", key)
    assert "PAYLOAD_KEY must be 32 bytes in base64" in refused()


@pytest.mark.parametrize(("word", "model"), [("none", ""), (" None ", ""), ("", "llama3.1"), ("qwen3:8b", "qwen3:8b")])
def test_a_site_with_one_model_says_none(word: str, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_SECOND_MODEL", word)
    assert load().ollama_second_model == model


def test_no_key_is_in_the_text_of_the_settings() -> None:
    text = f"{load()!r} {load()}"
    assert KEY not in text
    assert PAYLOAD_KEY not in text


def test_the_log_level_has_a_name_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPAMCHECK_LOG_LEVEL", "DEBUG")
    assert load().log_level == "DEBUG"


def test_every_number_at_once_follows_from_what_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    def at_once(**variables: str) -> int:
        with monkeypatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            settings: Settings = load()
            return settings.items_at_once

    assert at_once() == 1
    assert at_once(OLLAMA_NUM_PARALLEL="4") == 4
    assert at_once(OLLAMA_NUM_PARALLEL="4", PARALLELISM="2") == 2
    assert at_once(CLASSIFIER="rules") == 8
