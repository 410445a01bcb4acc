"""Make or upgrade Temporal's databases, all or nothing. Runs on the host as root, from standard input.

Arguments: what to do, and the settings as JSON: {"tool", "version", "socket_dir", "port", "user", "databases": {name: schema}}.

ensure    Makes the databases, or brings them to the schema of `version`. The work is done on new databases (empty ones, or
          copies), which take the names of the old ones in one transaction at the end. So whatever happens before that, even
          the end of this process, leaves the old ones as they were, and the next call begins anew. The old ones are kept
          under NAME_before until the next upgrade.
restore   Brings the databases back that the last `ensure` has replaced.

The version lies in the databases' comments, so that it cannot differ from what they are. The server must not run meanwhile.
Prints {"changed", "was", "is"}.
"""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

LOCK = "/run/lock/temporal-schema.lock"
MARK = "Temporal "


class SchemaError(Exception):
    """Something that a person must see to; the databases are as they were."""


class Databases:
    """Temporal's databases in a cluster of PostgreSQL, reached over its socket as the superuser and as their owner."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.tool: str = settings["tool"]
        self.version: str = settings["version"]
        self.socket_dir: str = settings["socket_dir"]
        self.port = str(settings["port"])
        self.user: str = settings["user"]
        self.schemas: dict[str, str] = settings["databases"]

    def run(self, command: list[str], user: str, stdin: str = "") -> str:
        """A command as a system user, who is by that name a role in PostgreSQL. Raises SchemaError when it fails."""
        environment = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C.UTF-8"}
        done = subprocess.run(
            command,
            user=user,
            group=user,
            extra_groups=[],
            cwd="/",
            env=environment,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise SchemaError(f"{command[0]} failed:\n{done.stdout}{done.stderr}")
        return done.stdout

    def sql(self, statements: str, database: str = "postgres", user: str = "postgres") -> list[str]:
        """The rows that statements return, by default as the superuser."""
        psql = ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", self.socket_dir, "-p", self.port, "-d", database]
        return self.run(psql, user, statements).splitlines()

    def versions(self, suffix: str = "") -> dict[str, str]:
        """The databases that exist under their names and a suffix, with the version of Temporal they were made for."""
        names = ", ".join(f"'{name}{suffix}'" for name in self.schemas)
        described = "SELECT datname, coalesce(shobj_description(oid, 'pg_database'), '') FROM pg_database"
        rows = self.sql(f"{described} WHERE datname IN ({names});")
        found = dict(row.split("|", 1) for row in rows)
        return {
            name.removesuffix(suffix) if suffix else name: comment.removeprefix(MARK) for name, comment in found.items()
        }

    def one_version(self) -> str:
        """The version of the databases that are there; "" when there are none."""
        found = self.versions()
        if not found:
            return ""
        if set(found) != set(self.schemas) or len(set(found.values())) != 1:
            raise SchemaError(
                f"the databases do not belong together: {found}; look at them, and drop or restore them by hand"
            )
        version = next(iter(found.values()))
        if not version:
            raise SchemaError(
                f"there are databases {', '.join(found)} that this role has not made; drop or rename them"
            )
        return version

    def make(self, name: str, template: str) -> None:
        """A database under its name and "_new": empty, or a copy of another."""
        # C.UTF-8 is there on every host and sorts alike after every upgrade of the system.
        like = (
            f"TEMPLATE {template}"
            if template != "template0"
            else "TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C.UTF-8' LC_CTYPE 'C.UTF-8'"
        )
        self.sql(
            f"DROP DATABASE IF EXISTS {name}_new;\n"
            f"CREATE DATABASE {name}_new OWNER {self.user} {like};\n"
            f"REVOKE ALL ON DATABASE {name}_new FROM PUBLIC;"
        )
        call = [
            self.tool,
            "--plugin",
            "postgres12_pgx",
            "--endpoint",
            "localhost",
            "--port",
            self.port,
            "--user",
            self.user,
        ]
        call += ["--connect-attributes", f"host={self.socket_dir}", "--database", f"{name}_new"]
        if template == "template0":
            self.run([*call, "setup-schema", "--version", "0.0"], self.user)
        else:
            self.tell_name(name, f"{name}_new")
        self.run([*call, "update-schema", "--schema-name", self.schemas[name]], self.user)
        self.tell_name(name, name)

    def tell_name(self, name: str, told: str) -> None:
        """Write a database's name into the new database's own notes, where Temporal looks its version up by it."""
        statement = f"UPDATE schema_version SET db_name = '{told}';"  # noqa: S608  (names of the role's own)
        self.sql(statement, database=f"{name}_new", user=self.user)

    def swap(self, was: str) -> None:
        """Put the new databases in the place of the old ones, all or none."""
        statements = []
        for name in self.schemas:
            if was:
                statements.append(f"ALTER DATABASE {name} RENAME TO {name}_before;")
            statements.append(f"ALTER DATABASE {name}_new RENAME TO {name};")
            statements.append(f"COMMENT ON DATABASE {name} IS '{MARK}{self.version}';")
        self.sql("\n".join(["BEGIN;", *statements, "COMMIT;"]))

    def forget(self, suffix: str) -> None:
        """Drop what lies under the databases' names and a suffix."""
        self.sql("\n".join(f"DROP DATABASE IF EXISTS {name}{suffix};" for name in self.schemas))

    def see_to_room(self) -> None:
        """Raise SchemaError when the disk has no room for the copies, with as much again for the upgrade's own work."""
        names = ", ".join(f"'{name}'" for name in self.schemas)
        sizes = "SELECT 2 * sum(pg_database_size(datname)) FROM pg_database"
        needed, folder = self.sql(f"{sizes} WHERE datname IN ({names});\nSHOW data_directory;")
        free = shutil.disk_usage(folder).free
        if free < int(needed):
            raise SchemaError(
                f"the upgrade needs {int(needed) >> 20} MiB in {folder} for copies of the databases; {free >> 20} are free"
            )

    def ensure(self) -> tuple[str, str]:
        """Make or upgrade; the version before and after."""
        was = self.one_version()
        # An older server works with the newer schema that is there, if Temporal can go back at all.
        if was and numbers(was) >= numbers(self.version):
            return was, was
        if was:
            self.see_to_room()
        elif not self.sql(f"SELECT 1 FROM pg_roles WHERE rolname = '{self.user}';"):  # noqa: S608  (checked by the role)
            self.sql(f"CREATE ROLE {self.user} LOGIN;")
        for name in self.schemas:
            self.make(name, name if was else "template0")
        self.forget("_before")
        self.swap(was)
        return was, self.version

    def restore(self) -> tuple[str, str]:
        """Bring the replaced databases back; the version before and after."""
        was = self.one_version()
        before = self.versions("_before")
        if set(before) != set(self.schemas):
            raise SchemaError(
                f"there is nothing to restore: of the databases before the last upgrade there are {sorted(before) or 'none'}"
            )
        self.forget("_new")
        lines = [
            f"ALTER DATABASE {name} RENAME TO {name}_new;\nALTER DATABASE {name}_before RENAME TO {name};"
            for name in self.schemas
        ]
        self.sql("\n".join(["BEGIN;", *lines, "COMMIT;"]))
        self.forget("_new")
        return was, self.one_version()


def numbers(version: str) -> tuple[int, ...]:
    """A version such as 1.31.2, in an order."""
    return tuple(int(part) for part in version.split("-")[0].split("."))


def main() -> int:
    """Do it, one at a time."""
    what, settings = sys.argv[1], json.loads(sys.argv[2])
    databases = Databases(settings)
    with Path(LOCK).open("w") as lock:
        # An earlier call may still be at work after its connection was cut.
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            was, now = databases.ensure() if what == "ensure" else databases.restore()
        except SchemaError as error:
            sys.stderr.write(f"{error}\n")
            return 1
    sys.stdout.write(json.dumps({"changed": was != now, "was": was, "is": now}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
