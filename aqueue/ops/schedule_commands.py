"""The command that has to do with schedules: `aqueue schedules`, which lists them and steers them."""

from __future__ import annotations

from typing import Annotated, Final

import typer
from rich.console import Console

from aqueue.ops import render, steering
from aqueue.ops.command import Json, Prefix, Url, Where, ask, examples, show
from aqueue.ops.reports import SchedulesDone

SCHEDULES: Final = examples(
    "aqueue schedules",
    "aqueue schedules default --json",
    "aqueue schedules pause nightly",
    "aqueue schedules run nightly --queue default",
)

Words = Annotated[
    list[str] | None,
    typer.Argument(metavar="QUEUE|VERB ID", show_default=False, help="VERB: pause, resume, run, delete [all]"),
]
Whose = Annotated[
    list[str] | None, typer.Option("--queue", metavar="QUEUE", show_default=False, help="whose schedule is meant")
]


def schedules(
    words: Words = None, *, queue: Whose = None, url: Url = None, prefix: Prefix = None, as_json: Json = False
) -> None:
    """List what repeats, the next to come first, or steer it.

    After pause, resume, run (which starts a job now) or delete come ids of schedules; else names of queues.
    """
    verb, names = steering.split(words or [])
    where = Where(url, prefix)
    if verb is None:
        show(ask(where, lambda site: site.schedules([*names, *(queue or [])])), render.show_schedules, as_json=as_json)
    else:
        done = ask(where, lambda site: steering.steer(site, verb, names, queue or []))
        show(done, _show_steered, as_json=as_json)


def _show_steered(out: Console, done: SchedulesDone) -> None:
    """Print what became of each schedule."""
    said = {
        "paused": "paused, its slots start nothing",
        "resumed": "resumed with its next slot",
        "already": "was so already, nothing changed",
        "deleted": "deleted",
    }
    for one in done.schedules:
        what = f"started {one.job}" if one.job is not None else said[one.done]
        out.print(f"{render.plain(one.id)} on {one.queue}: {what}", soft_wrap=True)
