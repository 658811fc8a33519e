"""python -m bench: measures aqueue and its peers, and writes what it found."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from bench import charts, report
from bench.environments import CACHE
from bench.measures import MEASURES
from bench.plan import Plan, make_plan
from bench.records import PEERS, Cell, Reading, Run
from bench.run import Runner
from bench.servers import AOF_OPTIONS, OPTIONS, ServerMissing, binary
from bench.targets import verdicts

HERE: Final = Path(__file__).parent
DEFAULT_RESULTS: Final = {"full": HERE / "results", "quick": CACHE / "quick", "smoke": CACHE / "smoke"}
EPILOG: Final = f"""\
\b
examples:
  python -m bench quick                             under 3 minutes, the fastest peers
  python -m bench full                              under 25 minutes, every peer
  python -m bench full --server redis8 --results /tmp/redis8
  python -m bench full --peers saq,taskiq --measures drain,latency --rounds 5
  python -m bench smoke                             aqueue alone, tiny: does the harness work?
  python -m bench report                            tables and charts again, from the stored figures

\b
peers:    {", ".join(dict.fromkeys(peer.peer for peer in PEERS))}
measures: {", ".join(MEASURES)}
"""

app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True, epilog=EPILOG)
CONTEXT: Final = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
console = Console()


@app.callback(epilog=EPILOG, context_settings=CONTEXT)
def bench() -> None:
    """Measure aqueue and other job queues on one machine, one server and the same jobs."""


class ServerName(StrEnum):
    valkey9 = "valkey9"
    redis8 = "redis8"
    redis7 = "redis7"


ServerOption = Annotated[ServerName, typer.Option("--server", help="which server serves everybody")]
AofOption = Annotated[bool, typer.Option("--aof", help="let the server keep an append-only file, synced each second")]
PeersOption = Annotated[str, typer.Option(help="only these, beside aqueue: saq,taskiq", show_default=False)]
MeasuresOption = Annotated[str, typer.Option(help="only these: drain,latency", show_default=False)]
RoundsOption = Annotated[int | None, typer.Option(help="rounds of every cell", min=1, show_default=False)]
ResultsOption = Annotated[Path | None, typer.Option(help="where results are written", show_default=False)]


@app.command(epilog=EPILOG, context_settings=CONTEXT)
def full(
    *,
    server: ServerOption = ServerName.redis8,
    aof: AofOption = False,
    peers: PeersOption = "",
    measures: MeasuresOption = "",
    rounds: RoundsOption = None,
    results: ResultsOption = None,
) -> None:
    """Measure everything, with every peer; under 25 minutes on two cores."""
    _run("full", server=server, peers=peers, measures=measures, rounds=rounds, results=results, aof=aof)


@app.command(epilog=EPILOG, context_settings=CONTEXT)
def quick(
    *,
    server: ServerOption = ServerName.redis8,
    aof: AofOption = False,
    peers: PeersOption = "",
    measures: MeasuresOption = "",
    rounds: RoundsOption = None,
    results: ResultsOption = None,
) -> None:
    """Measure the essentials, with the fastest peers; under 3 minutes once their environments are there."""
    _run("quick", server=server, peers=peers, measures=measures, rounds=rounds, results=results, aof=aof)


@app.command(epilog=EPILOG, context_settings=CONTEXT)
def smoke(
    *,
    server: ServerOption = ServerName.valkey9,
    peers: PeersOption = "",
    measures: MeasuresOption = "",
    results: ResultsOption = None,
) -> None:
    """Run every measure once with a handful of jobs; the figures mean nothing, errors do."""
    run = _run("smoke", server=server, peers=peers, measures=measures, results=results)
    if any(result.error for result in run.results):
        raise typer.Exit(1)


@app.command("report", epilog=EPILOG, context_settings=CONTEXT)
def again(
    results: ResultsOption = None,
    docs: Annotated[list[Path] | None, typer.Option(help="document to put the tables into", show_default=False)] = None,
) -> None:
    """Write tables and charts again from the stored figures."""
    directory = results or DEFAULT_RESULTS["full"]
    if not (directory / report.RESULTS).exists():
        raise typer.BadParameter(f"{directory} holds no {report.RESULTS}; run python -m bench full first.")
    _write(report.load(directory), directory, docs or [])


def _run(
    kind: str,
    *,
    server: str,
    peers: str,
    measures: str,
    results: Path | None,
    rounds: int | None = None,
    aof: bool = False,
) -> Run:
    try:
        plan = make_plan(kind, peers=_names(peers), measures=_measures(measures), rounds=rounds)
        path = binary(server)
    except (ValueError, ServerMissing) as error:
        raise typer.BadParameter(str(error)) from None
    directory = results or DEFAULT_RESULTS[kind]
    run = _measure(plan, server, path, AOF_OPTIONS if aof else OPTIONS, directory)
    _write(run, directory, [])
    _show(run)
    return run


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _measures(text: str) -> list[str]:
    names = _names(text)
    if unknown := sorted(set(names) - set(MEASURES)):
        raise ValueError(f"no such measure: {', '.join(unknown)}; known are {', '.join(MEASURES)}")
    return names


def _measure(plan: Plan, server: str, path: str, options: tuple[str, ...], directory: Path) -> Run:
    columns = (TextColumn("{task.description:<44}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        ready = progress.add_task("environments", total=len(plan.entrants) + 1)
        done = progress.add_task("cells", total=plan.cells)

        def prepared(label: str) -> None:
            progress.update(ready, advance=1, description=f"environment of {label}")

        def told(cell: Cell, reading: Reading) -> None:
            where = " ".join(filter(None, (cell.measure, cell.label, cell.entrant.label)))
            progress.update(done, advance=1, description=where)
            if reading.error:
                progress.console.print(f"[red]{where} failed[/]: ", end="")
                progress.console.print(reading.error.splitlines()[-1], markup=False)

        runner = Runner(plan, server, path, options, told)
        runner.prepare(prepared)
        for so_far in runner.run():
            report.save(so_far, directory)
    return runner.so_far()


def _write(run: Run, directory: Path, docs: list[Path]) -> None:
    sections = report.write(run, directory)
    for document in docs:
        report.embed(sections, document)
    pictures = charts.draw(run, directory)
    console.print(f"{directory}: {report.RESULTS}, results.md, targets.md, {', '.join(p.name for p in pictures)}")


def _show(run: Run) -> None:
    table = Table("target", "wanted", "measured", "")
    for one in verdicts(run):
        words = {True: "[green]met[/]", False: "[red]missed[/]", None: "-"}[one.met]
        table.add_row(one.target, one.wanted, one.measured, words)
    console.print(table)
    console.print(f"{run.seconds:.0f} s on {run.server.get('version')}")


if __name__ == "__main__":
    app(prog_name="python -m bench")
