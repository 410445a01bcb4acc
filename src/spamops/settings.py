"""Settings of the controller: one file, the environment and secret files, validated before anything is touched.

Precedence: environment, then secret files, then the file. Names that sites already use are understood beside our own
(`SPAMOPS_` and the setting's name in capitals).
"""

from __future__ import annotations

import difflib
import os
import re
import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    HttpUrl,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from . import limits
from .budget import Budget
from .errors import SettingsError
from .ssh import SshTarget
from .telling import Telling

SYSTEM_CONFIG = Path("/etc/spamops/spamops.toml")
MIN_KEY_CHARACTERS = 32
UNUSABLE_KEYS = frozenset({"unconfigured"})
"""What the CoMSES site falls back to when its key file is missing: a word that everybody knows."""

SITE_NAMES = {
    "checker_url": "LLM_SPAM_CHECK_API_URL",
    "server": "LLM_SPAM_CHECK_JETSTREAM_SERVER_ID",
    "cloud": "OS_CLOUD",
    "auth_url": "OS_AUTH_URL",
}
"""Environment names that sites and OpenStack already use, by setting."""

SECRET_FILES = {
    "api_key": "llm_spam_check_api_key",
    "application_credential_id": "llm_spam_check_jetstream_os_application_credential_id",
    "application_credential_secret": "llm_spam_check_jetstream_os_application_credential_secret",
    "notify_urls": "spamops_notify_urls",
}
"""Names of secret files, as the CoMSES site has them (but for the last), by setting. Not accepted in the settings file."""


SSH_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:%-]{0,252}")
"""A host or a user as ssh takes it. One that begins with - would be an option."""


def default_state_dir() -> Path:
    """/var/lib/spamops for root, otherwise the user's state folder (XDG Base Directory Specification)."""
    if os.geteuid() == 0:
        return Path("/var/lib/spamops")
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(base).expanduser() / "spamops"


def _moderation_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ValueError("must be an address that begins with https:// or http://")
    if "{id}" not in value or "{id}" in parts.netloc:
        raise ValueError("must hold {id} behind the host, where the item's id goes")
    require_no_userinfo(value)
    return value


ModerationUrl = Annotated[str, AfterValidator(_moderation_url)]
VerdictDays = Annotated[int, Field(ge=1, le=36500)]
Rate = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class LookingBack(BaseModel):
    """What looking back at the history needs: no server, no key, no credential. Described in `Settings`."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)

    state_dir: Path
    service_units_per_hour: Rate | None = None
    moderation_url: ModerationUrl | None = None
    verdict_days: VerdictDays | None = None


class Settings(BaseModel):
    """Every setting, its unit and its default."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, str_strip_whitespace=True)

    server: str = Field(min_length=1, description="id (better) or name of the server")
    checker_url: HttpUrl = Field(description="base address of the checker, such as http://203.0.113.7:8001")
    api_key: SecretStr = Field(description="key of the checker, 32 characters or more")

    cloud: str | None = Field(None, description="name of the cloud in clouds.yaml; otherwise OS_* is read")
    auth_url: HttpUrl | None = Field(None, description="Keystone's address, for an application credential given here")
    application_credential_id: str | None = Field(None, description="application credential for this server")
    application_credential_secret: SecretStr | None = Field(None, description="its secret")
    region: str | None = Field(None, description="region, where the cloud has several")

    secrets_dir: Path | None = Field(None, description="folder of the secret files")
    state_dir: Path = Field(default_factory=default_state_dir, description="folder of the history and the locks")

    unshelve_seconds: float = Field(limits.UNSHELVE_SECONDS, gt=0, description="limit for the server to become ACTIVE")
    shelve_seconds: float = Field(limits.SHELVE_SECONDS, gt=0, description="limit for the server to be shelved")
    ready_seconds: float = Field(limits.READY_SECONDS, gt=0, description="limit for the checker to answer after that")
    check_seconds: float = Field(limits.CHECK_SECONDS, gt=0, description="limit for the workflow to end")
    status_grace_seconds: float = Field(
        limits.STATUS_GRACE_SECONDS, ge=0, description="how long a failing or garbled status answer is put up with"
    )
    api_seconds: float = Field(
        limits.API_SECONDS, gt=0, description="limit of a single call, to the cloud or the checker"
    )

    site_url: HttpUrl | None = Field(
        None, description="the site's base address: spamops doctor looks whether it takes the key, and nothing else"
    )

    ssh_host: str | None = Field(
        None,
        description="address of the server for SSH: for diagnose, logs and ssh, and for what a failed run collects",
    )
    ssh_user: str | None = Field(None, description="user there; otherwise what ssh itself would take")
    ssh_port: int = Field(22, ge=1, le=65535, description="port of sshd there")
    ssh_key_file: Path | None = Field(None, description="private key; otherwise the agent's and the usual files")
    ssh_known_hosts: Path | None = Field(
        None, description="file of host keys; otherwise ~/.ssh/known_hosts. A server that is not in it is refused"
    )
    diagnose_seconds: float = Field(
        limits.DIAGNOSE_SECONDS,
        ge=0,
        description="what collecting may delay the shelving by after a failure; 0: nothing is collected",
    )

    service_units_per_hour: float | None = Field(
        None, ge=0, description="what the cloud bills an hour while the server is ACTIVE; look it up, rates change"
    )
    budget_day_units: float | None = Field(
        None, gt=0, description="service units that this server may cost from 00:00 to 24:00 UTC; needs the rate"
    )
    budget_month_units: float | None = Field(
        None, gt=0, description="service units that this server may cost in a calendar month, UTC; needs the rate"
    )
    budget_run_seconds: float | None = Field(
        None,
        gt=0,
        description="how long a run may wake and check, all together, until it is ended and the server shelved",
    )

    reap_grace_seconds: float = Field(
        limits.REAP_GRACE_SECONDS,
        ge=0,
        description="how long the server may be on without a live run until it is reaped",
    )
    reap_working_seconds: float = Field(
        limits.REAP_WORKING_SECONDS, ge=0, description="the same while its checker works, or cannot be asked"
    )

    notify_urls: tuple[SecretStr, ...] = Field(
        (), description="where alarms go: Apprise addresses, one a line; they hold secrets"
    )
    notify_seconds: float = Field(
        limits.NOTIFY_SECONDS, gt=0, description="limit for all notifiers together; the server was seen to before"
    )
    notify_repeat_seconds: float = Field(
        limits.NOTIFY_REPEAT_SECONDS, gt=0, description="pause until an alarm that costs money is repeated"
    )
    notify_digest_days: int = Field(0, ge=0, le=31, description="a digest every so many days; 0 for none")
    metrics_textfile: Path | None = Field(
        None,
        description="file for the textfile collector of node_exporter, such as /var/lib/prometheus/node-exporter/spamops.prom",
    )

    moderation_url: ModerationUrl | None = Field(
        None, description="address of an item's moderation page, with {id} where its id goes; links in the report"
    )
    verdict_days: VerdictDays | None = Field(
        None, description="days that the history keeps single verdicts; sums and moderators' decisions stay"
    )

    @field_validator("api_key")
    @classmethod
    def _usable_key(cls, value: SecretStr) -> SecretStr:
        return SecretStr(usable_key(value.get_secret_value()))

    @field_validator("checker_url")
    @classmethod
    def _no_query(cls, value: HttpUrl) -> HttpUrl:
        if value.query or value.fragment:
            raise ValueError("must be a base address, without ? or #")
        require_no_userinfo(str(value))
        return value

    @field_validator("site_url")
    @classmethod
    def _plain_site(cls, value: HttpUrl | None) -> HttpUrl | None:
        return None if value is None else cls._no_query(value)

    @field_validator("ssh_host", "ssh_user")
    @classmethod
    def _plain_word(cls, value: str | None) -> str | None:
        if value is not None and not SSH_WORD.fullmatch(value):
            raise ValueError("must be a plain name or address, without a user, a port or blanks")
        return value

    @field_validator("notify_urls", mode="before")
    @classmethod
    def _one_a_line(cls, value: Any) -> Any:
        return notify_urls(value) if isinstance(value, str) else value

    @field_validator("metrics_textfile")
    @classmethod
    def _read_by_the_collector(cls, value: Path | None) -> Path | None:
        if value is not None and value.suffix != ".prom":
            raise ValueError("must end in .prom: node_exporter reads no other files")
        return value

    @field_validator("state_dir", "secrets_dir", "metrics_textfile", "ssh_key_file", "ssh_known_hosts")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        """Two runs that are started in two folders must find the same lock."""
        return None if value is None else value.expanduser().absolute()

    @model_validator(mode="after")
    def _budget_with_a_rate(self) -> Settings:
        if (self.budget_day_units or self.budget_month_units) and not self.service_units_per_hour:
            raise ValueError("budget_day_units and budget_month_units need service_units_per_hour, more than 0")
        return self

    @model_validator(mode="after")
    def _whole_credential(self) -> Settings:
        given = [self.application_credential_id, self.application_credential_secret]
        if any(given) and not all(given):
            raise ValueError("an application credential needs both its id and its secret")
        if all(given) and self.cloud is None and self.auth_url is None:
            raise ValueError(
                "auth_url (or OS_AUTH_URL) is needed beside the application credential: Keystone's address of your cloud"
            )
        return self

    @property
    def checker_base(self) -> str:
        """The checker's address, without a slash at the end."""
        return str(self.checker_url).rstrip("/")

    @property
    def budget(self) -> Budget:
        """What may be spent."""
        return Budget(
            rate=self.service_units_per_hour,
            day_units=self.budget_day_units,
            month_units=self.budget_month_units,
            run_seconds=self.budget_run_seconds,
        )

    @property
    def ssh(self) -> SshTarget | None:
        """Where to log in; None where no ssh_host is set."""
        if self.ssh_host is None:
            return None
        return SshTarget(self.ssh_host, self.ssh_user, self.ssh_port, self.ssh_key_file, self.ssh_known_hosts)

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every secret value, for what is to be told without them."""
        secret = self.application_credential_secret
        found = [self.api_key.get_secret_value(), secret.get_secret_value() if secret else ""]
        found += [self.application_credential_id or "", *(url.get_secret_value() for url in self.notify_urls)]
        return tuple(text for text in found if text)

    @property
    def telling(self) -> Telling:
        """Who is told, and how."""
        return Telling(
            urls=tuple(url.get_secret_value() for url in self.notify_urls),
            seconds=self.notify_seconds,
            repeat_seconds=self.notify_repeat_seconds,
            digest_days=self.notify_digest_days,
            textfile=self.metrics_textfile,
        )

    def stated(self) -> dict[str, Any]:
        """What differs from the defaults, by name, as JSON knows it; secrets are starred."""
        return self.model_dump(mode="json", exclude_defaults=True)

    def cloud_arguments(self) -> dict[str, Any]:
        """Arguments for openstack.connect. Empty values are left to clouds.yaml and OS_*."""
        arguments: dict[str, Any] = {"cloud": self.cloud, "region_name": self.region}
        if self.application_credential_id and self.application_credential_secret:
            arguments["auth_type"] = "v3applicationcredential"
            arguments["auth"] = {
                "application_credential_id": self.application_credential_id,
                "application_credential_secret": self.application_credential_secret.get_secret_value(),
            }
            if self.auth_url:
                arguments["auth"]["auth_url"] = str(self.auth_url)
        return {name: value for name, value in arguments.items() if value is not None}


def usable_key(text: str) -> str:
    """The key without blanks around it.

    Raises ValueError for one that is empty, short, a well-known word, or cannot travel in an HTTP header.
    """
    key = text.strip()
    advice = "make one, for example with: openssl rand -hex 32"
    if not key:
        raise ValueError(f"is empty; {advice}")
    if key.lower() in UNUSABLE_KEYS:
        raise ValueError(f"is the word '{key.lower()}', which everybody knows; {advice}")
    if len(key) < MIN_KEY_CHARACTERS:
        raise ValueError(f"has {len(key)} characters, {MIN_KEY_CHARACTERS} or more are needed; {advice}")
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ValueError("must be printable ASCII without blanks, because it travels in an HTTP header")
    return key


def notify_urls(text: str) -> list[str]:
    """Apprise's addresses, one a line; empty lines and lines that begin with # are skipped.

    Raises ValueError, which says the line's number and nothing of what stands there: the addresses hold secrets.
    """
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        for word in words:
            if not re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", word):
                raise ValueError(f"line {number} is no address of Apprise, such as slack://… or mailto://…")
            found.append(word)
    return found


def require_no_userinfo(url: str) -> None:
    """Return when the address holds no user and no password.

    Raises ValueError: addresses are shown in messages and kept in the history.
    """
    if "@" in urlsplit(url).netloc:
        raise ValueError("must hold no user and no password: it is shown in messages. The key goes into a header")


def find_config(named: Path | None, environ: Mapping[str, str]) -> Path | None:
    """The settings file: --config, else SPAMOPS_CONFIG, else ./spamops.toml, else /etc/spamops/spamops.toml, else none."""
    if named is not None:
        return named
    if environ.get("SPAMOPS_CONFIG"):
        return Path(environ["SPAMOPS_CONFIG"])
    # os.path: a current folder that this user may not enter (sudo -u in somebody's home) holds no settings, and is no fault.
    return next((path for path in (Path("spamops.toml"), SYSTEM_CONFIG) if os.path.isfile(path)), None)  # noqa: PTH113


def load(config: Path | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Read everything and validate it.

    Raises SettingsError that names every fault, and never a secret's value.
    """
    environ = os.environ if environ is None else environ
    faults: list[str] = []
    path = find_config(config, environ)
    values = _from_file(path, faults) if path else {}
    values |= {name: environ[key] for name, key in SITE_NAMES.items() if environ.get(key)}
    if environ.get("SPAMOPS_SECRETS_DIR"):
        values["secrets_dir"] = environ["SPAMOPS_SECRETS_DIR"]
    if values.get("secrets_dir"):
        values |= _from_secret_files(Path(str(values["secrets_dir"])).expanduser(), faults)
    own = {
        name: environ[f"SPAMOPS_{name.upper()}"]
        for name in Settings.model_fields
        if f"SPAMOPS_{name.upper()}" in environ
    }
    values |= {name: value for name, value in own.items() if value or name == "api_key"}
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        faults += _describe(error)
    if faults:
        where = f" ({path})" if path else " (no settings file was found: name one with --config)"
        raise SettingsError("\n  ".join([f"the settings are faulty{where}; nothing was touched:", *faults]))
    return settings


def state_dir_of(config: Path | None = None, environ: Mapping[str, str] | None = None) -> Path:
    """Only the folder of the history: to look back, nothing else needs to be set.

    Raises SettingsError when the settings file cannot be read.
    """
    environ = os.environ if environ is None else environ
    if environ.get("SPAMOPS_STATE_DIR"):
        return Path(environ["SPAMOPS_STATE_DIR"]).expanduser()
    path = find_config(config, environ)
    if path is None:
        return default_state_dir()
    faults: list[str] = []
    value = _from_file(path, faults).get("state_dir")
    if value is None and faults:
        raise SettingsError("\n  ".join([f"the settings are faulty ({path}):", *faults]))
    return Path(str(value)) if value is not None else default_state_dir()


def looking_back(config: Path | None = None, environ: Mapping[str, str] | None = None) -> LookingBack:
    """The settings that looking back needs; of the others only that the file can be read.

    Raises SettingsError.
    """
    environ = os.environ if environ is None else environ
    path = find_config(config, environ)
    faults: list[str] = []
    wanted = [name for name in LookingBack.model_fields if name != "state_dir"]
    stated = _from_file(path, faults) if path else {}
    if faults and not stated:
        raise SettingsError("\n  ".join([f"the settings are faulty ({path}):", *faults]))
    values: dict[str, Any] = {name: stated[name] for name in wanted if name in stated}
    for name in wanted:
        if environ.get(f"SPAMOPS_{name.upper()}"):
            values[name] = environ[f"SPAMOPS_{name.upper()}"]
    folder = state_dir_of(config, environ).expanduser().absolute()
    try:
        return LookingBack.model_validate(values | {"state_dir": folder})
    except ValidationError as error:
        told = ["the settings are faulty; nothing was touched:", *_describe(error)]
        raise SettingsError("\n  ".join(told)) from None


def _from_file(path: Path, faults: list[str]) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        faults.append(f"{path} cannot be read: {getattr(error, 'strerror', None) or 'it is not UTF-8'}")
        return {}
    except tomllib.TOMLDecodeError as error:
        faults.append(f"{path} is not TOML: {error}")
        return {}
    for name in list(values):
        if name in SECRET_FILES and name != "application_credential_id":
            faults.append(
                f"{name} does not belong in {path.name}: put it in a file {SECRET_FILES[name]} in secrets_dir"
            )
            del values[name]
        elif name not in Settings.model_fields:
            near = difflib.get_close_matches(name, Settings.model_fields, n=1)
            faults.append(f"{name} is not a setting" + (f"; did you mean {near[0]}?" if near else ""))
            del values[name]
    for name in ("state_dir", "secrets_dir", "metrics_textfile", "ssh_key_file", "ssh_known_hosts"):
        if isinstance(values.get(name), str):
            # Beside the file, wherever the command is started: two runs must find the same lock.
            values[name] = str(path.parent.absolute() / Path(values[name]).expanduser())
    return values


def _from_secret_files(folder: Path, faults: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    if not folder.is_dir():
        faults.append(f"secrets_dir {folder} is not a folder")
        return found
    for name, file_name in SECRET_FILES.items():
        path = folder / file_name
        try:
            text = path.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            faults.append(f"{path} cannot be read: {getattr(error, 'strerror', None) or 'it is not UTF-8'}")
            continue
        if text or name == "api_key":
            found[name] = text
    return found


def readable_by_others(settings: Settings) -> list[Path]:
    """Secret files that every user of this machine can read: told to the operator, not refused, because the CoMSES
    site's own tooling makes them so."""
    folder = settings.secrets_dir
    if folder is None:
        return []
    paths = (folder / name for name in SECRET_FILES.values())
    return [path for path in paths if path.is_file() and path.stat().st_mode & stat.S_IROTH]


def _describe(error: ValidationError) -> list[str]:
    lines = []
    for fault in error.errors():
        name = str(fault["loc"][0]) if fault["loc"] else ""
        if fault["type"] == "missing":
            ways = (
                [f"{name} in the settings file"]
                if name not in SECRET_FILES
                else [f"a file {SECRET_FILES[name]} in secrets_dir"]
            )
            ways += [f"SPAMOPS_{name.upper()}"] + ([SITE_NAMES[name]] if name in SITE_NAMES else [])
            lines.append(f"{name} is not set: give {', '.join(ways[:-1])} or {ways[-1]}")
        else:
            lines.append(f"{name} {fault['msg'].removeprefix('Value error, ')}".strip())
    return lines
