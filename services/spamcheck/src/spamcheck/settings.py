"""Settings of the checker, from environment variables and credential files.

Secrets come from files: systemd's `LoadCredential=` (found through CREDENTIALS_DIRECTORY) or a folder named in
SPAMCHECK_SECRETS_DIR; a file has the setting's name in lower case (`api_key`, `comses_api_key`, `payload_key`). The
environment wins over files.
"""

from __future__ import annotations

import base64
import os
import re
from pathlib import Path
from typing import Literal, TypeVar
from uuid import UUID

from pydantic import AliasChoices, Field, HttpUrl, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

MIN_KEY_CHARACTERS = 32
UNUSABLE_KEYS = frozenset({"unconfigured"})
"""What the CoMSES site falls back to when its key file is missing: the endpoints are then open to whoever sends it."""


_Model = TypeVar("_Model", bound=BaseSettings)


class Settings(BaseSettings):
    """Every setting of API and worker, its unit and its default."""

    model_config = SettingsConfigDict(extra="ignore", populate_by_name=True, env_ignore_empty=True)

    # The API
    api_key: SecretStr = Field(description="key that callers of this API send as X-API-Key; 32 characters or more")
    api_host: str = Field("127.0.0.1", description="address that the API listens on")
    api_port: int = Field(8001, ge=0, le=65535, description="port that the API listens on")

    # The site
    comses_url: HttpUrl = Field(HttpUrl("https://www.comses.net"), description="the site's base address")
    comses_host: str = Field(
        "",
        pattern=r"^[A-Za-z0-9.:\[\]_-]*$",
        description="Host header sent to the site, where comses_url has another name than the site knows itself by",
    )
    comses_api_key: SecretStr | None = Field(None, description="key sent to the site; the API's own key when not given")
    site_timeout_seconds: float = Field(30, gt=0, description="limit of one call to the site")
    site_patience_seconds: float = Field(300, ge=0, description="how long a site that does not answer is waited for")

    # Temporal
    temporal_address: str = Field("127.0.0.1:7233", description="HOST:PORT of Temporal's frontend")
    temporal_namespace: str = Field("default", description="namespace of the workflows")
    temporal_task_queue: str = Field("spamcheck", description="task queue that API and worker share")
    payload_key: SecretStr = Field(description="AES-256 key of what Temporal stores: 32 bytes in base64")

    # The workflow
    state_dir: Path = Field(Path("/var/lib/spamcheck"), description="folder of the journal (SQLite)")
    parallelism: int | None = Field(
        None, ge=1, le=64, description="items classified at once; default: what the classifier serves in parallel"
    )
    item_attempts: int = Field(5, ge=1, le=20, description="tries of one item before it is set aside")
    retry_seconds: float = Field(1.0, gt=0, description="pause before the second try; doubled for each further one")
    give_up_after: int = Field(
        20, ge=1, description="items set aside in a row, with none done, that end the run as FAILED"
    )
    fresh_seconds: float = Field(
        2,
        gt=0,
        description="a verdict is sent only for a text seen in a batch that was read at most this long ago; sends at the"
        " same time share a read",
    )
    classify_timeout_seconds: float = Field(1800, gt=0, description="limit of one try to classify one item, all models")
    heartbeat_timeout_seconds: float = Field(
        10, ge=1, description="silence after which a worker's item is given to another"
    )
    journal_days: int = Field(30, ge=1, description="how long the journal keeps a run")

    # The classifier
    classifier: Literal["cascade", "rules"] = Field("cascade", description="rules: no model at all")
    ollama_url: HttpUrl = Field(HttpUrl("http://127.0.0.1:11434"), description="Ollama's base address")
    ollama_default_model: str = Field("llama3.2", min_length=1, description="model that answers first")
    ollama_second_model: str = Field(
        "llama3.1", description="model that decides when the first is unsure; the word none: no second model"
    )
    ollama_num_parallel: int = Field(1, ge=1, le=64, description="what Ollama serves at once (its OLLAMA_NUM_PARALLEL)")
    ollama_timeout_seconds: float = Field(120, gt=0, description="limit of one chat call")
    ollama_context_tokens: int = Field(8192, ge=2048, description="context length asked for in every call")
    cascade_threshold: float = Field(0.8, ge=0, le=1, description="confidence below which the second model decides")
    rules_threshold: float = Field(0.5, gt=0, lt=1, description="score from which the rules say spam")
    site_description: str = Field(
        "CoMSES Net, a scientific community for computational modelling of social and ecological systems. Members share"
        " model codebases, announce jobs and events, and keep a profile.",
        description="what belongs on the site, for the model",
    )
    custom_instructions: str = Field("", description="further instructions for the model, from the site's moderators")

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", validation_alias=AliasChoices("log_level", "SPAMCHECK_LOG_LEVEL"), description="least level logged"
    )

    @field_validator("api_key", "comses_api_key")
    @classmethod
    def _usable_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        key = value.get_secret_value().strip()
        if key.lower() in UNUSABLE_KEYS:
            raise ValueError("is a well-known word; make a key, for example with: openssl rand -hex 32")
        if len(key) < MIN_KEY_CHARACTERS:
            raise ValueError(
                f"has {len(key)} characters; {MIN_KEY_CHARACTERS} or more are needed, for example: openssl rand -hex 32"
            )
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise ValueError("must be printable ASCII without blanks, because it travels in an HTTP header")
        return SecretStr(key)

    @field_validator("ollama_second_model")
    @classmethod
    def _none_is_none(cls, value: str) -> str:
        # A word, because an empty variable counts as one that is not set.
        return "" if value.strip().lower() == "none" else value.strip()

    @field_validator("payload_key")
    @classmethod
    def _usable_payload_key(cls, value: SecretStr) -> SecretStr:
        try:
            key = base64.b64decode(value.get_secret_value().strip(), validate=True)
        except ValueError:  # not base64, or not even ASCII
            key = b""
        if len(key) != 32:
            raise ValueError("must be 32 bytes in base64, for example: openssl rand -base64 32")
        return SecretStr(value.get_secret_value().strip())

    @model_validator(mode="after")
    def _one_key_by_default(self) -> Settings:
        if self.comses_api_key is None:
            self.comses_api_key = self.api_key
        return self

    @property
    def items_at_once(self) -> int:
        """Items classified at once: the setting, or what the classifier serves in parallel (rules: 8)."""
        if self.parallelism is not None:
            return self.parallelism
        return 8 if self.classifier == "rules" else self.ollama_num_parallel

    @property
    def payload_key_bytes(self) -> bytes:
        """The AES-256 key, 32 bytes."""
        return base64.b64decode(self.payload_key.get_secret_value())


class WatchdogSettings(BaseSettings):
    """Every setting of the idle watchdog, its unit and its default. What it shares with the checker has the same name."""

    model_config = SettingsConfigDict(extra="ignore", populate_by_name=True, env_ignore_empty=True)

    os_auth_url: HttpUrl = Field(description="Keystone's address")
    os_application_credential_id: SecretStr = Field(
        description="application credential that may do nothing but act on this server"
    )
    os_application_credential_secret: SecretStr = Field(description="its secret")
    os_region_name: str = Field("", description="region, where the cloud has several")
    os_interface: Literal["public", "internal", "admin"] = Field(
        "public", description="which of Nova's addresses to use"
    )
    server_id: UUID | None = Field(None, description="id of this server; asked of the metadata service when not given")
    metadata_url: HttpUrl = Field(
        HttpUrl("http://169.254.169.254/openstack/latest/meta_data.json"), description="OpenStack's metadata service"
    )
    cloud_timeout_seconds: float = Field(30, gt=0, description="limit of one call to the cloud")

    watchdog_idle_minutes: float = Field(
        30, gt=0, description="minutes without a check and without anybody logged in, after which the server is shelved"
    )
    watchdog_grace_minutes: float = Field(
        15, ge=0, description="minutes after the boot in which the server is never shelved"
    )
    watchdog_alarm_url: SecretStr | None = Field(
        None,
        description="address (http or https) that is sent a JSON object with title, message and type when the server was"
        " shelved by itself, or could not be; it may hold a token",
    )
    watchdog_state_file: Path = Field(
        Path("/run/spamcheck-watchdog/state.json"),
        description="what one pass tells the next; on a file system that a boot empties",
    )

    temporal_address: str = Field("127.0.0.1:7233", description="HOST:PORT of Temporal's frontend")
    temporal_namespace: str = Field("default", description="namespace whose workflows count")
    state_dir: Path = Field(Path("/var/lib/spamcheck"), description="folder of the journal (SQLite)")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", validation_alias=AliasChoices("log_level", "SPAMCHECK_LOG_LEVEL"), description="least level logged"
    )

    @field_validator("watchdog_alarm_url")
    @classmethod
    def _address(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        address = value.get_secret_value().strip()
        if not re.fullmatch(r"https?://[^\s/]+(/\S*)?", address):
            raise ValueError("must be an address that begins with http:// or https://")
        return SecretStr(address)


class SettingsError(Exception):
    """Every fault of the settings, in one message."""


def load() -> Settings:
    """Read and validate everything that API and worker need.

    Raises SettingsError that names every fault by its environment variable.
    """
    return _load(Settings)


def load_watchdog() -> WatchdogSettings:
    """The same for the idle watchdog."""
    return _load(WatchdogSettings)


def _load(model: type[_Model]) -> _Model:
    folder = os.environ.get("CREDENTIALS_DIRECTORY") or os.environ.get("SPAMCHECK_SECRETS_DIR")
    if folder and not Path(folder).is_dir():
        raise SettingsError(f"the folder of secrets {folder} does not exist")
    try:
        return model(_secrets_dir=folder)
    except ValidationError as error:
        raise SettingsError(describe(error)) from None


def describe(error: ValidationError) -> str:
    """One line a fault, without the values: they may be secrets."""
    lines = ["the checker's settings are faulty:"]
    for fault in error.errors():
        name = str(fault["loc"][0]).upper() if fault["loc"] else "settings"
        text = "is not set" if fault["type"] == "missing" else fault["msg"].removeprefix("Value error, ")
        lines.append(f"  {name} {text}")
    return "\n".join(lines)
