"""An SSH server on loopback that runs commands on this machine: paramiko's, so that it is there wherever the tests are, or
OpenSSH's own where this machine has an sshd."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any, Self

import paramiko

GONE = (OSError, EOFError, paramiko.SSHException)
"""What paramiko raises when the client has gone."""


class LoopbackSsh:
    """Takes the key in `key_file`, for any user, and runs what is asked for with `tools` before everything else on the PATH.

    `silent`: connections are taken, and nobody says anything. `refuse`: no login is accepted. `stall`: commands never answer.
    """

    def __init__(self, folder: Path, tools: Path | None = None, environ: dict[str, str] | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.key_file = folder / "id_ecdsa"
        key = paramiko.ECDSAKey.generate()
        key.write_private_key_file(str(self.key_file))
        self.authorized = f"{key.get_name()} {key.get_base64()}"
        self._host_key = paramiko.ECDSAKey.generate()
        self._host_key.write_private_key_file(str(folder / "host_key"))
        self.known_hosts = folder / "known_hosts"
        self.environ = {"PATH": f"{tools}:{os.environ['PATH']}" if tools else os.environ["PATH"], "HOME": str(folder)}
        self.environ |= environ or {}
        self.silent = self.refuse = self.stall = False
        self.commands: list[str] = []
        self._processes: list[subprocess.Popen[bytes]] = []
        self._transports: list[paramiko.Transport] = []
        self._stopped = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.know(self._host_key)

    @property
    def settings(self) -> dict[str, Any]:
        """What a settings file says of it."""
        return {
            "ssh_host": "127.0.0.1", "ssh_port": self.port, "ssh_user": "operator",
            "ssh_key_file": str(self.key_file), "ssh_known_hosts": str(self.known_hosts),
        }  # fmt: skip

    def know(self, key: paramiko.PKey) -> None:
        """Let this be the host key that is known."""
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {key.get_name()} {key.get_base64()}\n")

    def __enter__(self) -> Self:
        """Answer."""
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """End everything that it started."""
        self._stopped.set()
        self._listener.close()
        for transport in self._transports:
            transport.close()
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.wait()

    def running(self) -> int:
        """How many commands run."""
        return sum(process.poll() is None for process in self._processes)

    def _serve(self) -> None:
        kept = []
        while not self._stopped.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.silent:
                kept.append(client)
                continue
            transport = paramiko.Transport(client)
            transport.add_server_key(self._host_key)
            self._transports.append(transport)
            try:
                transport.start_server(server=_Session(self), event=threading.Event())
            except paramiko.SSHException:
                continue

    def run(self, channel: paramiko.Channel, command: str) -> None:
        """Run one command and hand on what it says."""
        self.commands.append(command)
        if self.stall:
            return
        process = subprocess.Popen(
            ["/bin/sh", "-c", command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=self.environ, start_new_session=True,
        )  # fmt: skip
        self._processes.append(process)
        threading.Thread(target=self._pump, args=(process, channel), daemon=True).start()

    def _pump(self, process: subprocess.Popen[bytes], channel: paramiko.Channel) -> None:
        def errors() -> None:
            with contextlib.suppress(*GONE):
                for line in process.stderr:  # type: ignore[union-attr]
                    channel.sendall_stderr(line)

        other = threading.Thread(target=errors, daemon=True)
        other.start()
        try:
            while chunk := os.read(process.stdout.fileno(), 65536):  # type: ignore[union-attr]
                channel.sendall(chunk)
            other.join()
            channel.send_exit_status(process.wait())
        except GONE:
            process.kill()
        finally:
            with contextlib.suppress(*GONE):
                channel.close()


class _Session(paramiko.ServerInterface):
    def __init__(self, server: LoopbackSsh) -> None:
        self._server = server

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        known = f"{key.get_name()} {key.get_base64()}" == self._server.authorized and not self._server.refuse
        return paramiko.AUTH_SUCCESSFUL if known else paramiko.AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.OPEN_SUCCEEDED if kind == "session" else paramiko.OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        # After the answer to the request, which is sent when this returns.
        threading.Timer(0.02, self._server.run, (channel, command.decode())).start()
        return True


def start_sshd(folder: Path, ssh: LoopbackSsh, user: str) -> subprocess.Popen[bytes]:
    """OpenSSH's server with the same keys on a port of its own, to which `ssh` is turned."""
    program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    assert program is not None
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (folder / "authorized_keys").write_text(ssh.authorized + "\n")
    config = folder / "sshd_config"
    config.write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {folder}/host_key\nAuthorizedKeysFile {folder}/authorized_keys\n"
        f"PidFile none\nUsePAM no\nStrictModes no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n"
        f'SetEnv "PATH={ssh.environ["PATH"]}"\n'
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd does not start without
    process = subprocess.Popen(
        [program, "-D", "-e", "-f", str(config)], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    line = ssh.known_hosts.read_text().replace(f":{ssh.port} ", f":{port} ")
    ssh.known_hosts.write_text(line)
    ssh.port = port
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return process
    process.kill()
    said = process.communicate()[1].decode()
    raise AssertionError(f"sshd did not start: {said}")


def tools(folder: Path, scripts: dict[str, str]) -> Path:
    """A folder of commands for a PATH, each a shell script."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, script in scripts.items():
        path = folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
    return folder
