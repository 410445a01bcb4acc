"""The lock: two runs never share a server, and a dead run never blocks one."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from spamops.errors import RunActive, SettingsError
from spamops.lock import ServerLock, holder, lock_path

HOLD = "import sys, time; from pathlib import Path; from spamops.lock import ServerLock; ServerLock(Path(sys.argv[1]), 'gpu').acquire(); print('held', flush=True); time.sleep(600)"


def test_a_second_run_is_refused_and_told_who_holds_the_lock(tmp_path: Path) -> None:
    first, second = ServerLock(tmp_path, "gpu"), ServerLock(tmp_path, "gpu")
    first.acquire(pid=4711)
    with pytest.raises(RunActive, match=r"another run of gpu is active \(process 4711 since 20.*nothing was touched"):
        second.acquire()
    first.release()
    second.acquire()
    second.release()
    second.release()


def test_runs_of_two_servers_do_not_wait_for_each_other(tmp_path: Path) -> None:
    one, other = ServerLock(tmp_path, "gpu/1"), ServerLock(tmp_path, "gpu-1")
    one.acquire()
    other.acquire()
    assert holder(tmp_path, "gpu/1") is not None
    one.release()
    assert holder(tmp_path, "gpu/1") is None
    assert holder(tmp_path, "gpu-1") is not None
    other.release()


def test_a_killed_process_holds_no_lock(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        held = holder(tmp_path, "gpu")
        assert held is not None
        assert held["pid"] == process.pid
        process.kill()
    assert holder(tmp_path, "gpu") is None
    lock = ServerLock(tmp_path, "gpu")
    lock.acquire()
    held = holder(tmp_path, "gpu")
    assert held is not None
    assert held["pid"] != process.pid
    lock.release()


def test_looking_at_the_lock_never_keeps_a_run_from_starting(tmp_path: Path) -> None:
    made = ServerLock(tmp_path, "gpu")
    made.acquire()
    made.release()
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            holder(tmp_path, "gpu")
            time.sleep(0.001)

    looking = [threading.Thread(target=look) for _ in range(2)]
    for thread in looking:
        thread.start()
    try:
        for _ in range(200):
            lock = ServerLock(tmp_path, "gpu")
            lock.acquire()
            lock.release()
    finally:
        over.set()
        for thread in looking:
            thread.join()


def test_two_who_look_do_not_take_each_other_for_a_run(tmp_path: Path) -> None:
    lock = ServerLock(tmp_path, "gpu")
    lock.acquire()
    lock.release()
    descriptor = os.open(lock_path(tmp_path, "gpu"), os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    assert holder(tmp_path, "gpu") is None
    os.close(descriptor)


def test_a_folder_that_cannot_be_written_is_a_faulty_setting(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    with pytest.raises(SettingsError, match=r"state_dir .* cannot be written"):
        ServerLock(tmp_path / "state", "gpu").acquire()


def test_no_lock_was_ever_taken(tmp_path: Path) -> None:
    assert holder(tmp_path, "gpu") is None


def test_a_server_name_cannot_leave_the_folder(tmp_path: Path) -> None:
    path = lock_path(tmp_path, "../../etc/passwd\n" + "x" * 300)
    assert path.parent == tmp_path / "locks"
    assert len(path.name) < 80
