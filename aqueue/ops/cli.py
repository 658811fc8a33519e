"""`aqueue`: look at queues and jobs, and act on them, wherever Redis is.

Exit codes: 0 done; 1 not done, or not there; 2 could not even ask, for want of Redis or of sense in the command.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Annotated, Final

import typer

from aqueue import __version__
from aqueue.errors import ConfigurationError
from aqueue.ops import checkup, failed_commands, render, schedule_commands
from aqueue.ops.command import (
    CONTEXT,
    NOT_DONE,
    UNUSABLE,
    Json,
    Names,
    Prefix,
    SomeIds,
    SomeNames,
    TaskName,
    Url,
    Where,
    act,
    ask,
    complain,
    examples,
    show,
)
from aqueue.ops.site import Site
from aqueue.settings import Settings
from aqueue.store.permissions import Role, setuser

EPILOG: Final = """\
\b
examples:
  aqueue stats                        all queues and who works on them
  aqueue jobs default --state failed  what went wrong lately
  aqueue retry --failed default       run all failed jobs again
"""

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    epilog=EPILOG,
    context_settings=CONTEXT,
)


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


@app.command(**examples("aqueue stats", "aqueue stats high default", "aqueue stats --json | jq '.queues[].failed'"))
def stats(queues: Names = None, *, url: Url = None, prefix: Prefix = None, as_json: Json = False) -> None:
    """Count what queues hold, and show who works on them."""
    show(ask(Where(url, prefix), lambda site: site.stats(queues or [])), render.show_stats, as_json=as_json)


app.command(**failed_commands.JOBS)(failed_commands.jobs)


app.command(**schedule_commands.SCHEDULES)(schedule_commands.schedules)


@app.command(**examples("aqueue job 06g3k1v0c2q8m", "aqueue job 06g3k1v0c2q8m --json | jq .job.args"))
def job(
    job_id: Annotated[str, typer.Argument(metavar="ID", show_default=False)],
    *,
    url: Url = None,
    prefix: Prefix = None,
    as_json: Json = False,
) -> None:
    """Show all that is stored of one job."""
    show(ask(Where(url, prefix), lambda site: site.job(job_id)), render.show_job, as_json=as_json)


app.command(**failed_commands.RETRY)(failed_commands.retry)


@app.command(**examples("aqueue cancel 06g3k1v0c2q8m"))
def cancel(ids: SomeIds, *, url: Url = None, prefix: Prefix = None, as_json: Json = False) -> None:
    """Cancel waiting jobs, and tell running ones to end."""
    act(Where(url, prefix), ids, Site.cancel, as_json=as_json)


@app.command(**examples("aqueue delete 06g3k1v0c2q8m"))
def delete(ids: SomeIds, *, url: Url = None, prefix: Prefix = None, as_json: Json = False) -> None:
    """Remove all that is stored of jobs that do not run."""
    act(Where(url, prefix), ids, Site.delete, as_json=as_json)


@app.command(**examples("aqueue pause default --for 10m", "aqueue pause default --task send_mail"))
def pause(
    queues: SomeNames,
    *,
    task: TaskName = None,
    duration: Annotated[
        str | None, typer.Option("--for", metavar="SPAN", show_default=False, help="then it ends by itself, as 10m")
    ] = None,
    url: Url = None,
    prefix: Prefix = None,
    as_json: Json = False,
) -> None:
    """Let no job start, or none of one task; what runs goes on."""
    show(ask(Where(url, prefix), lambda site: site.pause(queues, task, duration)), render.show_paused, as_json=as_json)


@app.command(**examples("aqueue resume default", "aqueue resume default --task send_mail"))
def resume(
    queues: SomeNames, *, task: TaskName = None, url: Url = None, prefix: Prefix = None, as_json: Json = False
) -> None:
    """Let jobs of paused queues, or of one paused task, start again."""
    show(ask(Where(url, prefix), lambda site: site.resume(queues, task)), render.show_paused, as_json=as_json)


app.command(**failed_commands.PURGE)(failed_commands.purge)


@app.command(
    **examples("aqueue doctor", "aqueue doctor default --repair", "aqueue doctor --json | jq '.findings[].id'")
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
    seen = ask(Where(url, prefix), lambda site: checkup.examine(site, queues or [], limit, mend=mend), unchecked=True)
    show(seen, render.show_checkup, as_json=as_json)
    if seen.problems:
        raise typer.Exit(NOT_DONE)


@app.command(
    **examples(
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
        complain(str(error))
        raise typer.Exit(UNUSABLE) from None
    if secret is None:
        complain("Replace PASSWORD, or name a file with --password-file.")


def main() -> None:
    """Run the `aqueue` script."""
    app(prog_name="aqueue")
