"""A first provisioning that is cut off in the middle of the schema leaves nothing half-made that the next run would trip over."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import Any

import pytest

DATABASES = "SELECT datname FROM pg_database WHERE datname LIKE 'temporal%' ORDER BY 1"
WHOLE = ["temporal", "temporal_visibility"]


@pytest.mark.timeout(600)
def test_a_run_that_was_killed_amid_the_schema_can_be_repeated(host: Any, converge: Any, playbook_of: Any) -> None:
    host.sh("systemctl stop temporal; rm -f /opt/temporal/current")
    for name in host.sql(DATABASES):
        host.sql(f"DROP DATABASE {name}")
    command, environment = playbook_of(host, "--extra-vars", "version=current")
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, start_new_session=True) as play:
        end = time.monotonic() + 300
        while not (found := host.sql(DATABASES)):
            assert time.monotonic() < end, "the playbook did not come to the schema"
            assert play.poll() is None, "the playbook ended before the schema"
        assert set(found) <= {f"{name}_new" for name in WHOLE}, "a database has its name before it is whole"
        os.killpg(play.pid, signal.SIGKILL)
    host.sh("pkill -9 -f '^[^ ]*temporal-sql-tool'", check=False)  # the host lost its power, too
    converge(host, "--extra-vars", "version=current")
    assert host.sql(DATABASES) == WHOLE
    assert host.schema() == ["1.19", "1.14"]
    assert host.serves()
