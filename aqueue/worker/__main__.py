"""`python -m aqueue.worker module:queue`: the worker as a process, with signals, logging and an exit code."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import os
import platform
import signal
import socket
import sys
from collections.abc import Coroutine
from enum import StrEnum
from typing import Annotated, Any, Final

import typer

from aqueue import __version__
from aqueue.errors import AqueueError, ConfigurationError, StoreUnavailable
from aqueue.queue import Queue
from aqueue.retry import UNBOUNDED
from aqueue.store import address
from aqueue.store.preflight import check_server
from aqueue.worker import check, logs
from aqueue.worker.herald import in_process
from aqueue.worker.loading import load_lines
from aqueue.worker.supervisor import LIFELINE, UNUSABLE, Supervisor, child_command
from aqueue.worker.worker import DEFAULT_CONCURRENCY, Worker

log = logging.getLogger("aqueue.worker")

BANNER_SECONDS: Final = 1.0
"""The banner does not wait for a server that is away; the worker does."""

EPILOG: Final = """\
\b
examples:
  python -m aqueue.worker tasks:queue                     embedded server, or AQUEUE_URL
  python -m aqueue.worker tasks:high tasks:default -c 50  strict order: high first
  python -m aqueue.worker tasks:high=6 tasks:low=3,max=2  by weight; of low at most 2 at once
  python -m aqueue.worker tasks:queue -p 4 --max-jobs 9999
  python -m aqueue.worker --check default                 is a live worker serving it?

\b
Each option can be set as AQUEUE_<OPTION>, such as AQUEUE_MAX_JOBS=9999.
"""


class LogFormat(StrEnum):
    text = "text"
    json = "json"


def _option(flags: str, help: str, **more: Any) -> Any:  # noqa: A002  # typer's own word
    """Give an option that can be set in the environment; its help names the default in one line."""
    names = flags.split()
    variable = f"AQUEUE_{names[0].partition('/')[0].removeprefix('--').replace('-', '_').upper()}"
    return typer.Option(*names, help=help, envvar=variable, show_default=False, show_envvar=False, **more)


app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
CONTEXT: Final = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@app.command(epilog=EPILOG, context_settings=CONTEXT)
def main(  # a command line is its options
    queues: Annotated[list[str] | None, typer.Argument(metavar="module:queue...", show_default=False)] = None,
    concurrency: Annotated[
        int, _option("--concurrency -c", "jobs at once in each process [10]", min=1)
    ] = DEFAULT_CONCURRENCY,
    processes: Annotated[int, _option("--processes -p", "worker processes [1]", min=1)] = 1,
    url: Annotated[str | None, _option("--url", "where Redis is [embedded server in ./.aqueue]")] = None,
    burst: Annotated[bool, _option("--burst", "exit when nothing is queued")] = False,
    grace: Annotated[str, _option("--grace", "let jobs run on after SIGTERM [25s]", metavar="TIME")] = "25s",
    max_jobs: Annotated[int | None, _option("--max-jobs", "renew a process after N jobs [never]", min=1)] = None,
    log_format: Annotated[LogFormat, _option("--log-format", "how to log [text]")] = LogFormat.text,
    log_arguments: Annotated[
        bool, _option("--log-arguments/--no-log-arguments", "show arguments of jobs [yes]")
    ] = True,
    reload: Annotated[bool, _option("--reload", "restart when code changes")] = False,
    verbose: Annotated[int, _option("--verbose -v", "log more", count=True)] = 0,
    quiet: Annotated[int, _option("--quiet -q", "log warnings only; -qq errors only", count=True)] = 0,
    checking: Annotated[bool, typer.Option("--check", help="exit 0 if live workers serve these queues")] = False,
    here: Annotated[bool, typer.Option("--here", help="--check counts workers of this host only")] = False,
    prefix: Annotated[
        str | None,
        typer.Option("--prefix", metavar="PREFIX", show_default=False, help="--check looks at its queues [aqueue]"),
    ] = None,
    version: Annotated[bool, typer.Option("--version", help="show the version")] = False,
) -> None:
    """Run jobs of queues until SIGTERM or SIGINT; a second signal cancels what runs."""
    if version:
        typer.echo(f"aqueue {__version__}")
        return
    logs.configure(log_format.value, verbose - quiet)
    lifeline = os.environ.pop(LIFELINE, None)
    try:
        if checking:
            code = _run(check.check(queues or [], url, here=here, prefix=prefix))
        elif prefix is not None:
            raise ConfigurationError(
                "--prefix goes with --check; a queue has its own: write Settings(prefix=...), or set AQUEUE_PREFIX."
            )
        elif not queues:
            raise ConfigurationError(
                "Name at least one queue, as in: python -m aqueue.worker tasks:queue (see --help)."
            )
        elif lifeline is None and (processes > 1 or reload or (max_jobs and not burst)):
            code = _supervise(processes, once=burst, reload=reload)
        else:
            worker = _worker(
                queues, url, concurrency=concurrency, grace=grace, max_jobs=max_jobs, show_arguments=log_arguments
            )
            code = _run(_work(worker, burst=burst, lifeline=lifeline))
            if worker.threads_left:  # they cannot be ended, and their jobs have gone back to the queue
                logging.shutdown()
                os._exit(code)
    except AqueueError as error:
        log.error("%s", error)  # noqa: TRY400  # its message says what to do; a traceback would hide it
        code = UNUSABLE
    raise typer.Exit(code)


def _supervise(processes: int, *, once: bool, reload: bool) -> int:
    supervisor = Supervisor(child_command(sys.argv[1:]), processes, once=once)
    return asyncio.run(supervisor.run(reload=reload))


def _worker(specs: list[str], url: str | None, **options: Any) -> Worker:
    lines = load_lines(specs)
    queues = [line.queue for line in lines]
    if url is not None and url != os.environ.get(address.ENVIRONMENT):
        for queue in queues:
            queue.use_url(url)
    weights = {line.queue: line.weight for line in lines if line.weight is not None}
    caps = {line.queue: line.cap for line in lines if line.cap is not None}
    return Worker(*queues, weights=weights or None, caps=caps or None, **options)


def _run(work: Coroutine[Any, Any, int]) -> int:
    if importlib.util.find_spec("uvloop") is not None:
        import uvloop  # noqa: PLC0415  # not on Windows

        return uvloop.run(work)
    return asyncio.run(work)


async def _work(worker: Worker, *, burst: bool, lifeline: str | None) -> int:
    loop = asyncio.get_running_loop()
    signals = 0

    def on_signal(number: int) -> None:
        nonlocal signals
        signals += 1
        log.info("%s: %s", signal.Signals(number).name, "stopping" if signals == 1 else "stopping now")
        worker.stop(now=signals > 1)

    def on_orphaned(end: int) -> None:
        nonlocal signals
        loop.remove_reader(end)
        if not signals:
            signals += 1
            log.warning("the supervisor has gone: stopping")
            worker.stop()

    if lifeline is not None and lifeline.isdigit():
        os.set_inheritable(int(lifeline), False)  # not for the processes of jobs
        loop.add_reader(int(lifeline), on_orphaned, int(lifeline))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    try:
        async with in_process(worker):
            await _banner(worker)
            if not signals:
                await worker.run(burst=burst)
    finally:
        for queue in worker.queues:
            await queue.close()
    log.info("stopped: %s", worker.journal.summary())
    return 0


async def _banner(worker: Worker) -> None:
    first = worker.queues[0]
    engine = type(asyncio.get_running_loop()).__module__.partition(".")[0]
    log.info(
        "worker %s:%d - aqueue %s, python %s, %s",
        socket.gethostname(),
        os.getpid(),
        __version__,
        platform.python_version(),
        engine,
    )
    for where, queue in {queue.address: queue for queue in worker.queues}.items():
        log.info("%s", await _described(where, queue))
    settings = first.settings
    attempts = settings.retry.max_attempts if settings.retry.max_attempts < UNBOUNDED else "without bound"
    log.info(
        "queues %s - concurrency %d, timeout %gs, attempts %s, lease %gs",
        ", ".join(map(str, worker.lines)), worker.concurrency, settings.timeout,
        attempts, settings.lease,
    )  # fmt: skip
    for queue in worker.queues:
        if queue.wire.description:
            log.info("queue %s: %s", queue.name, queue.wire.description)
    for queue in worker.queues:
        if text := await _paused(queue):
            log.warning("queue %s: %s", queue.name, text)
    tasks = sorted({name for queue in worker.queues for name in queue.tasks})
    log.info("tasks: %s", ", ".join(tasks) or "none - is the module that defines them imported?")


async def _paused(queue: Queue) -> str:
    """Say what of a queue is paused, if it is known so soon."""
    with contextlib.suppress(AqueueError, TimeoutError):
        async with asyncio.timeout(BANNER_SECONDS):
            paused = await queue.paused()
        tasks = ", ".join(sorted(paused.tasks))
        return "paused" if paused.queue else f"paused tasks: {tasks}" if tasks else ""
    return ""


async def _described(where: str, queue: Queue) -> str:
    """Say what the server is, if it answers; the worker itself waits for one that does not."""
    facts = None
    with contextlib.suppress(StoreUnavailable, TimeoutError):
        async with asyncio.timeout(BANNER_SECONDS):
            facts = await check_server(queue.unchecked_store())
    if facts is None:
        return f"redis at {where}"
    version = ".".join(map(str, facts.version))
    persistence = "aof on" if facts.append_only else "aof off: a restart of the server loses its jobs"
    return f"{facts.product} {version} at {where}, {facts.used_memory_human} used, {facts.eviction}, {persistence}"


if __name__ == "__main__":
    app(prog_name="python -m aqueue.worker")
