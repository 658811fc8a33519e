"""The commands that have to do with failed jobs: `aqueue jobs`, `retry` and `purge`."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Annotated, Final, NoReturn

import typer
from rich.console import Console
from rich.progress import Progress, TaskID

from aqueue.errors import ConfigurationError
from aqueue.failed import FailedFilter
from aqueue.job import JobState
from aqueue.ops import failures, render
from aqueue.ops.command import (
    NOT_DONE,
    UNUSABLE,
    Json,
    Names,
    Prefix,
    SomeNames,
    Url,
    Where,
    act,
    ask,
    complain,
    examples,
    show,
)
from aqueue.settings import seconds

JOBS: Final = examples(
    "aqueue jobs default --state queued --limit 100 --offset 100", "aqueue jobs --error TimeoutError --newer-than 2h"
)
RETRY: Final = examples("aqueue retry 06g3k1v0c2q8m", "aqueue retry --failed default --error ReadTimeout --delay 5m")
PURGE: Final = examples(
    "aqueue purge default", "aqueue purge default --yes", "aqueue purge default --failed --older-than 3d --yes"
)

ByTask = Annotated[
    str | None, typer.Option("--task", metavar="NAME", show_default=False, help="failed jobs of this task")
]
ByError = Annotated[
    str | None, typer.Option("--error", metavar="NAME", show_default=False, help="those that ended in this exception")
]
OlderThan = Annotated[
    str | None, typer.Option("--older-than", metavar="AGE", show_default=False, help="those that failed before, as 2h")
]
NewerThan = Annotated[
    str | None, typer.Option("--newer-than", metavar="AGE", show_default=False, help="those that failed since, as 30m")
]


def _filter(task: str | None, error: str | None, older: str | None, newer: str | None) -> FailedFilter:
    """Give what was asked for; empty if nothing was."""
    chosen: FailedFilter = {}
    if task is not None:
        chosen["task"] = task
    if error is not None:
        chosen["error"] = error
    if older is not None:
        chosen["older_than"] = older
    if newer is not None:
        chosen["newer_than"] = newer
    return chosen


def jobs(
    queues: Names = None,
    *,
    state: Annotated[
        str | None,
        typer.Option("--state", metavar="STATE", show_default=False, help="queued, scheduled, running or failed [all]"),
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", metavar="N", min=1, show_default=False, help="of each queue and state [20]")
    ] = 20,
    offset: Annotated[
        int, typer.Option("--offset", metavar="N", min=0, show_default=False, help="skip so many of each [0]")
    ] = 0,
    task: ByTask = None,
    error: ByError = None,
    older_than: OlderThan = None,
    newer_than: NewerThan = None,
    after: Annotated[
        str | None,
        typer.Option("--after", metavar="PLACE", show_default=False, help="where a page of failed ones ended"),
    ] = None,
    url: Url = None,
    prefix: Prefix = None,
    as_json: Json = False,
) -> None:
    """List jobs: the next to go first, failed ones latest first."""
    where, chosen = Where(url, prefix), _filter(task, error, older_than, newer_than)
    if (chosen or after is not None) and state not in (None, JobState.FAILED):
        _refuse(f"--task, --error, --older-than, --newer-than and --after are for failed jobs, not for {state} ones.")
    if (chosen or after is not None) and offset:
        _refuse("Failed jobs that are chosen have no --offset; go on with --after, as the page before says.")
    if after is not None and len(queues or ()) != 1:
        _refuse("--after goes on in one queue; name it.")
    if chosen or after is not None or (state == JobState.FAILED and not offset):
        found = ask(where, lambda site: failures.list_failed(site, queues or [], limit, after, chosen))
    else:
        found = ask(where, lambda site: site.jobs(queues or [], state, limit, offset))
    show(found, render.show_jobs, as_json=as_json)


def retry(
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="ID", show_default=False, help="with --failed: queues [all]")
    ] = None,
    *,
    failed: Annotated[
        bool, typer.Option("--failed", show_default=False, help="all failed jobs of the queues, or those chosen below")
    ] = False,
    task: ByTask = None,
    error: ByError = None,
    older_than: OlderThan = None,
    newer_than: NewerThan = None,
    delay: Annotated[
        str, typer.Option("--delay", metavar="TIME", show_default=False, help="to be queued after, as 5m [0]")
    ] = "0",
    url: Url = None,
    prefix: Prefix = None,
    as_json: Json = False,
) -> None:
    """Run failed, cancelled or expired jobs again."""
    where, chosen, wait = Where(url, prefix), _filter(task, error, older_than, newer_than), _seconds(delay)
    if failed:
        with progress(shown=not as_json) as watch:
            done = ask(where, lambda site: failures.retry_failed(site, ids or [], wait, watch, chosen))
        show(done, render.show_retried, as_json=as_json)
    elif chosen:
        _refuse("--task, --error, --older-than and --newer-than choose among failed jobs; add --failed.")
    elif ids:
        act(where, ids, lambda site, wanted: site.retry(wanted, wait), as_json=as_json)
    else:
        _refuse("Name the jobs to run again, or all failed ones with --failed (see --help).")


def purge(
    queues: SomeNames,
    *,
    yes: Annotated[bool, typer.Option("--yes", show_default=False, help="do it, instead of counting only")] = False,
    failed: Annotated[
        bool, typer.Option("--failed", show_default=False, help="the failed jobs instead of the waiting ones")
    ] = False,
    task: ByTask = None,
    error: ByError = None,
    older_than: OlderThan = None,
    newer_than: NewerThan = None,
    url: Url = None,
    prefix: Prefix = None,
    as_json: Json = False,
) -> None:
    """Delete all queued and scheduled jobs, or failed ones."""
    where, chosen = Where(url, prefix), _filter(task, error, older_than, newer_than)
    if chosen and not failed:
        _refuse("--task, --error, --older-than and --newer-than choose among failed jobs; add --failed.")
    if failed:
        with progress(shown=yes and not as_json) as watch:
            done = ask(where, lambda site: failures.purge_failed(site, queues, watch, chosen, really=yes))
    else:
        done = ask(where, lambda site: site.purge(queues, really=yes))
    show(done, render.show_purged if yes else render.show_purgeable, as_json=as_json)
    if not yes:
        complain("Nothing was deleted; add --yes to do it.")
        raise typer.Exit(NOT_DONE)


def _seconds(delay: str) -> float:
    try:
        return seconds(delay, "--delay")
    except ConfigurationError as error:
        _refuse(str(error))


def _refuse(message: str) -> NoReturn:
    """Say what is senseless in the command, and exit."""
    complain(message)
    raise typer.Exit(UNUSABLE)


@contextmanager
def progress(*, shown: bool, console: Console | None = None) -> Generator[failures.Watch]:
    """Show how far long work is, at a terminal and there beside the answer; it goes when the work is done."""
    out = console or Console(stderr=True)
    with Progress(console=out, transient=True, disable=not (shown and out.is_terminal)) as bars:
        known: dict[str, TaskID] = {}

        def watch(queue: str, looked: int, listed: int) -> None:
            if queue not in known:
                known[queue] = bars.add_task(render.plain(queue), total=listed)
            bars.update(known[queue], completed=looked, total=listed)

        yield watch
