"""`aqueue`: look at queues and jobs, and act on them, wherever Redis is.

Exit codes: 0 done; 1 not done, or not there; 2 could not even ask, for want of Redis or of sense in the command.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import Annotated, Any, Final, NamedTuple, TypeVar

import msgspec
import typer
from rich.console import Console

from aqueue import __version__
from aqueue.errors import AqueueError, ConfigurationError
from aqueue.ops import checkup, render
from aqueue.ops.reports import JobsDone
from aqueue.ops.site import NotFound, Site, open_site
from aqueue.settings import Settings
from aqueue.store.permissions import Role, setuser

T = TypeVar("T")

NOT_DONE: Final = 1
UNUSABLE: Final = 2

DONE: Final = frozenset({"queued", "cancelled", "requested", "deleted"})
"""The store's words for a request about a job that was granted."""

EPILOG: Final = """\
\b
examples:
  aqueue stats                        all queues and who works on them
  aqueue jobs default --state failed  what went wrong lately
  aqueue retry --failed default       run all failed jobs again
"""

CONTEXT: Final = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    epilog=EPILOG,
    context_settings=CONTEXT,
)

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
SomeNames = Annotated[list[str], typer.Argument(metavar="QUEUE", show_default=False)]
TaskName = Annotated[
    str | None, typer.Option("--task", metavar="NAME", show_default=False, help="jobs of this task only")
]
SomeIds = Annotated[list[str], typer.Argument(metavar="ID", show_default=False)]


class _Where(NamedTuple):
    """Which queues are meant."""

    url: str | None
    prefix: str | None


def _examples(*lines: str) -> dict[str, Any]:
    """Give the epilog and the settings of one command."""
    return {"epilog": "\n".join(("\b", "examples:", *(f"  {line}" for line in lines))), "context_settings": CONTEXT}


def _version(value: bool) -> None:  # noqa: FBT001  # typer calls it
    if value:
        typer.echo(f"aqueue {__version__}")
        raise typer.Exit


@app.callback()
def options(
    *,
    version: Annotated[  # acts before any command does
        bool, typer.Option("--version", callback=_version, is_eager=True, show_default=False, help="show the version")
    ] = False,
) -> None:
    """Look at queues and jobs, and act on them, at --url or AQUEUE_URL, else the embedded server of ./.aqueue."""


@app.command(**_examples("aqueue stats", "aqueue stats high default", "aqueue stats --json | jq '.queues[].failed'"))
def stats(queues: Names = None, *, url: Url = None, prefix: Prefix = None, as_json: Json = False) -> None:
    """Count what queues hold, and show who works on them."""
    _show(_ask(_Where(url, prefix), lambda site: site.stats(queues or [])), render.show_stats, as_json=as_json)


@app.command(
    **_examples(
        "aqueue jobs", "aqueue jobs default --state failed", "aqueue jobs --state queued --limit 100 --offset 100"
    )
)
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
    url: Url = None,
    prefix: Prefix = None,
    as_json: Json = False,
) -> None:
    """List jobs: the next to go first, failed ones latest first."""
    found = _ask(_Where(url, prefix), lambda site: site.jobs(queues or [], state, limit, offset))
    _show(found, render.show_jobs, as_json=as_json)


@app.command(**_examples("aqueue schedules", "aqueue schedules default --json"))
def schedules(queues: Names = None, *, url: Url = None, prefix: Prefix = None, as_json: Json = False) -> None:
    """List what repeats, the next to come first."""
    found = _ask(_Where(url, prefix), lambda site: site.schedules(queues or []))
    _show(found, render.show_schedules, as_json=as_json)


@app.command(**_examples("aqueue job 06g3k1v0c2q8m", "aqueue job 06g3k1v0c2q8m --json | jq .job.args"))
def job(
    job_id: Annotated[str, typer.Argument(metavar="ID", show_default=False)],
    *,
    url: Url = None,
    prefix: Prefix = None,
    as_json: Json = False,
) -> None:
    """Show all that is stored of one job."""
    _show(_ask(_Where(url, prefix), lambda site: site.job(job_id)), render.show_job, as_json=as_json)


@app.command(**_examples("aqueue retry 06g3k1v0c2q8m", "aqueue retry --failed", "aqueue retry --failed high default"))
def retry(
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="ID", show_default=False, help="with --failed: queues [all]")
    ] = None,
    *,
    failed: Annotated[bool, typer.Option("--failed", show_default=False, help="all failed jobs of the queues")] = False,
    url: Url = None,
    prefix: Prefix = None,
    as_json: Json = False,
) -> None:
    """Run failed, cancelled or expired jobs again."""
    if failed:
        _show(
            _ask(_Where(url, prefix), lambda site: site.retry_failed(ids or [])), render.show_retried, as_json=as_json
        )
    elif ids:
        _act(_Where(url, prefix), ids, Site.retry, as_json=as_json)
    else:
        _complain("Name the jobs to run again, or all failed ones with --failed (see --help).")
        raise typer.Exit(UNUSABLE)


@app.command(**_examples("aqueue cancel 06g3k1v0c2q8m"))
def cancel(ids: SomeIds, *, url: Url = None, prefix: Prefix = None, as_json: Json = False) -> None:
    """Cancel waiting jobs, and tell running ones to end."""
    _act(_Where(url, prefix), ids, Site.cancel, as_json=as_json)


@app.command(**_examples("aqueue delete 06g3k1v0c2q8m"))
def delete(ids: SomeIds, *, url: Url = None, prefix: Prefix = None, as_json: Json = False) -> None:
    """Remove all that is stored of jobs that do not run."""
    _act(_Where(url, prefix), ids, Site.delete, as_json=as_json)


@app.command(**_examples("aqueue pause default", "aqueue pause default --task send_mail"))
def pause(
    queues: SomeNames, *, task: TaskName = None, url: Url = None, prefix: Prefix = None, as_json: Json = False
) -> None:
    """Let no job start, or none of one task; what runs goes on."""
    _show(_ask(_Where(url, prefix), lambda site: site.pause(queues, task)), render.show_paused, as_json=as_json)


@app.command(**_examples("aqueue resume default", "aqueue resume default --task send_mail"))
def resume(
    queues: SomeNames, *, task: TaskName = None, url: Url = None, prefix: Prefix = None, as_json: Json = False
) -> None:
    """Let jobs of paused queues, or of one paused task, start again."""
    _show(_ask(_Where(url, prefix), lambda site: site.resume(queues, task)), render.show_paused, as_json=as_json)


@app.command(**_examples("aqueue purge default", "aqueue purge default --yes", "aqueue purge default --failed --yes"))
def purge(
    queues: SomeNames,
    *,
    yes: Annotated[bool, typer.Option("--yes", show_default=False, help="do it, instead of counting only")] = False,
    failed: Annotated[
        bool, typer.Option("--failed", show_default=False, help="the failed jobs instead of the waiting ones")
    ] = False,
    url: Url = None,
    prefix: Prefix = None,
    as_json: Json = False,
) -> None:
    """Delete all queued and scheduled jobs, or all failed ones."""
    done = _ask(_Where(url, prefix), lambda site: site.purge(queues, failed=failed, really=yes))
    _show(done, render.show_purged if yes else render.show_purgeable, as_json=as_json)
    if not yes:
        _complain("Nothing was deleted; add --yes to do it.")
        raise typer.Exit(NOT_DONE)


@app.command(
    **_examples("aqueue doctor", "aqueue doctor default --repair", "aqueue doctor --json | jq '.findings[].id'")
)
def doctor(
    queues: Names = None,
    *,
    mend: Annotated[
        bool, typer.Option("--repair", show_default=False, help="put jobs where they belong; none runs twice for it")
    ] = False,
    limit: Annotated[
        int, typer.Option("--limit", metavar="N", min=1, show_default=False, help="keys to look at [100000]")
    ] = 100_000,
    url: Url = None,
    prefix: Prefix = None,
    as_json: Json = False,
) -> None:
    """Examine server, queues and jobs. Exits with 0 if all is well, 1 for problems.

    It takes small steps and may run beside live workers, as a probe too.
    """
    seen = _ask(_Where(url, prefix), lambda site: checkup.examine(site, queues or [], limit, mend=mend), unchecked=True)
    _show(seen, render.show_checkup, as_json=as_json)
    if seen.problems:
        raise typer.Exit(NOT_DONE)


@app.command(
    **_examples(
        "aqueue acl producer",
        "aqueue acl worker --user jobs --prefix aqueue --password-file secret.txt",
        "aqueue acl operator --password-file secret.txt | redis-cli",
    )
)
def acl(
    role: Annotated[Role, typer.Argument(metavar="producer|worker|operator", show_default=False)],
    *,
    user: Annotated[
        str | None, typer.Option("--user", metavar="NAME", show_default=False, help="[aqueue-ROLE]")
    ] = None,
    prefix: Prefix = None,
    password_file: Annotated[
        typer.FileText | None,
        typer.Option("--password-file", metavar="FILE", show_default=False, help="write its hash, not a placeholder"),
    ] = None,
    durable: Annotated[
        bool, typer.Option("--durable", show_default=False, help="may enqueue with durable=; not on Redis 7.0")
    ] = False,
) -> None:
    """Print the ACL SETUSER command for a user with the least rights.

    Redis is not asked. Rights are for one prefix; keys of others, and commands such as KEYS or CONFIG, are refused.
    """
    secret = password_file.read().strip() if password_file is not None else None
    password = ">PASSWORD" if secret is None else f"#{sha256(secret.encode()).hexdigest()}"
    try:
        typer.echo(
            setuser(
                role,
                user or f"aqueue-{role}",
                Settings().prefix if prefix is None else prefix,
                password,
                durable=durable,
            )
        )
    except ConfigurationError as error:
        _complain(str(error))
        raise typer.Exit(UNUSABLE) from None
    if secret is None:
        _complain("Replace PASSWORD, or name a file with --password-file.")


def _ask(where: _Where, question: Callable[[Site], Awaitable[T]], *, unchecked: bool = False) -> T:
    """Put one question to the site; an error becomes one line and an exit code."""

    async def asked() -> T:
        async with open_site(where.url, prefix=where.prefix, unchecked=unchecked) as site:
            return await question(site)

    try:
        return asyncio.run(asked())
    except AqueueError as error:
        _complain(str(error))
        raise typer.Exit(NOT_DONE if isinstance(error, NotFound) else UNUSABLE) from None


def _act(
    where: _Where, ids: list[str], act: Callable[[Site, list[str]], Awaitable[JobsDone]], *, as_json: bool
) -> None:
    """Do something to each job, say what became of it, and exit with 1 unless all of it was done."""

    async def acted(site: Site) -> tuple[JobsDone, list[str]]:
        done = await act(site, ids)
        return done, [site.missing(one.id) for one in done.jobs if one.done == "missing"]

    done, missing = _ask(where, acted)
    _show(done, render.show_done, as_json=as_json)
    for message in missing:
        _complain(message)
    if any(one.done not in DONE for one in done.jobs):
        raise typer.Exit(NOT_DONE)


def _show(report: T, text: Callable[[Console, T], None], *, as_json: bool) -> None:
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(report)).decode())
    else:
        text(render.console(), report)


def _complain(message: str) -> None:
    typer.echo(f"aqueue: {message}", err=True)


def main() -> None:
    """Run the `aqueue` script."""
    app(prog_name="aqueue")
