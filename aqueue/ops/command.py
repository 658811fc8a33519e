"""What all commands of the command line share: the application, options, one way to ask and one to answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final, NamedTuple, TypeVar

import msgspec
import typer
from rich.console import Console

from aqueue.errors import AqueueError
from aqueue.ops import render
from aqueue.ops.reports import JobsDone
from aqueue.ops.site import NotFound, Site, open_site

T = TypeVar("T")

NOT_DONE: Final = 1
UNUSABLE: Final = 2

DONE: Final = frozenset({"queued", "scheduled", "cancelled", "requested", "deleted"})
"""The store's words for a request about a job that was granted."""

CONTEXT: Final = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

Url = Annotated[
    str | None, typer.Option("--url", metavar="URL", show_default=False, help="where Redis is [AQUEUE_URL or embedded]")
]
Prefix = Annotated[
    str | None,
    typer.Option(
        "--prefix", metavar="PREFIX", show_default=False, help="of the queues' keys [AQUEUE_PREFIX or aqueue]"
    ),
]
Json = Annotated[bool, typer.Option("--json", show_default=False, help="print one JSON document")]
Names = Annotated[list[str] | None, typer.Argument(metavar="QUEUE", show_default=False, help="[all]")]
TaskName = Annotated[
    str | None, typer.Option("--task", metavar="NAME", show_default=False, help="jobs of this task only")
]
SomeNames = Annotated[list[str], typer.Argument(metavar="QUEUE", show_default=False)]
SomeIds = Annotated[list[str], typer.Argument(metavar="ID", show_default=False)]


class Where(NamedTuple):
    """Which queues are meant."""

    url: str | None
    prefix: str | None


def examples(*lines: str) -> dict[str, Any]:
    """Give the epilog and the settings of one command."""
    return {"epilog": "\n".join(("\b", "examples:", *(f"  {line}" for line in lines))), "context_settings": CONTEXT}


def ask(where: Where, question: Callable[[Site], Awaitable[T]], *, unchecked: bool = False) -> T:
    """Put one question to the site; an error becomes one line and an exit code."""

    async def asked() -> T:
        async with open_site(where.url, prefix=where.prefix, unchecked=unchecked) as site:
            return await question(site)

    try:
        return asyncio.run(asked())
    except AqueueError as error:
        complain(str(error))
        raise typer.Exit(NOT_DONE if isinstance(error, NotFound) else UNUSABLE) from None


def act(where: Where, ids: list[str], act: Callable[[Site, list[str]], Awaitable[JobsDone]], *, as_json: bool) -> None:
    """Do something to each job, say what became of it, and exit with 1 unless all of it was done."""

    async def acted(site: Site) -> tuple[JobsDone, list[str]]:
        done = await act(site, ids)
        return done, [site.missing(one.id) for one in done.jobs if one.done == "missing"]

    done, missing = ask(where, acted)
    show(done, render.show_done, as_json=as_json)
    for message in missing:
        complain(message)
    if any(one.done not in DONE for one in done.jobs):
        raise typer.Exit(NOT_DONE)


def show(report: T, text: Callable[[Console, T], None], *, as_json: bool) -> None:
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(report)).decode())
    else:
        text(render.console(), report)


def complain(message: str) -> None:
    typer.echo(f"aqueue: {message}", err=True)
