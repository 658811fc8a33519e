"""Turns a run into files: JSON, Markdown tables, the table of targets; and puts these into documents."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from bench.records import Result, Run
from bench.tables import FAULTY, NOTHING, TABLES, compare, markdown, render
from bench.targets import verdicts

RESULTS: Final = "results.json"
HEADINGS: Final = {
    "conditions": "Conditions",
    "targets": "Targets",
    "losses": "Where a peer is better",
    "tables": "Figures",
    "peers": "Queues and their settings",
}
WARNINGS: Final = {
    "full": "",
    "quick": "A quick run: fewer peers, fewer rounds and shorter drains than the full one.\n\n",
    "smoke": "A smoke run: it shows that the harness works; its figures mean nothing.\n\n",
}
MAIN_PACKAGE: Final = {"aqueue": "aqueue-redis", "bare": "redis", "docket": "pydocket"}
"""Where a peer's package is named otherwise than its file."""


def save(run: Run, directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / RESULTS).write_bytes(msgspec.json.format(msgspec.json.encode(run), indent=1) + b"\n")


def load(directory: Path) -> Run:
    return msgspec.json.decode((directory / RESULTS).read_bytes(), type=Run)


def write(run: Run, directory: Path) -> dict[str, str]:
    """Write all Markdown of a run; return it by section."""
    sections = {
        "conditions": conditions(run),
        "targets": targets(run),
        "losses": losses(run),
        "tables": tables(run),
        "peers": peers(run),
    }
    (directory / "targets.md").write_text(f"# Targets\n\n{sections['targets']}", "utf-8")
    text = "\n".join(f"## {HEADINGS[name]}\n\n{body}" for name, body in sections.items())
    (directory / "results.md").write_text(f"# Results of the {run.kind} run\n\n{WARNINGS[run.kind]}{text}", "utf-8")
    return sections


def embed(sections: dict[str, str], document: Path) -> None:
    """Replace what stands between `<!-- bench:NAME -->` and `<!-- /bench:NAME -->` in a document."""
    text = document.read_text("utf-8")
    for name, body in sections.items():
        opening, closing = f"<!-- bench:{name} -->\n", f"<!-- /bench:{name} -->"
        before, mark, rest = text.partition(opening)
        if mark:
            text = f"{before}{mark}\n{body}\n{closing}{rest.partition(closing)[2]}"
    document.write_text(text, "utf-8")


# sections


def conditions(run: Run) -> str:
    """Say where, when and on what."""
    server = f"{run.server.get('version', '?')} with `{run.server.get('options', '')}`"
    rows = [*run.machine.items(), ("server", server), ("wall time", f"{run.seconds / 60:.1f} min")]
    return markdown(("", ""), [[name, value] for name, value in rows])


def targets(run: Run) -> str:
    words = {True: "met", False: "**missed**", None: NOTHING}
    rows = [[one.target, one.wanted, one.measured, words[one.met]] for one in verdicts(run)]
    return markdown(("target", "wanted", "measured", ""), rows)


def tables(run: Run) -> str:
    parts = [text for table in TABLES if (text := render(run, table))]
    return "\n".join([*parts, failures(run)])


def losses(run: Run) -> str:
    """List every figure in which a peer is better than aqueue."""
    lines = []
    for table in (table for table in TABLES if not table.by_label):
        names = list(dict.fromkeys(result.cell.entrant.label for result in run.of(table.measure)))
        for column in table.columns:
            if (compared := compare(run, table, column, names)) is None:
                continue
            own, name, best = compared
            if own > best if column.lower_is_better else own < best:
                digits = table.digits
                lines.append(f"- {table.title}, {column.title}: {name} {best:,.{digits}f}, aqueue {own:,.{digits}f}")
    return ("\n".join(lines) or "Nowhere in this run.") + "\n"


def failures(run: Run) -> str:
    """List every error and every remark, so that no blank goes unexplained; the same one is said once."""
    where: dict[tuple[str, str], list[str]] = {}
    for result in run.results:
        cell = f"{result.cell.measure} {result.cell.label}".strip()
        for text in remarks(result):
            where.setdefault((result.cell.entrant.label, text), []).append(cell)
    lines = [f"- **{entrant}** ({', '.join(cells)}): {text}" for (entrant, text), cells in where.items()]
    return "### Failures and remarks\n\n" + ("\n".join(lines) or "None.") + "\n"


def remarks(result: Result) -> list[str]:
    """Give what is to be said of a cell beside its figures."""
    found = list(result.notes)
    if result.error:
        found.append(f"{'failed' if result.failed else FAULTY}: `{_one_line(result.error)}`")
    if result.unsupported:
        found.append(f"not offered: {_one_line(result.unsupported)}")
    doubles = sum(reading.doubles for reading in result.readings)
    if doubles and result.cell.measure != "retries":  # there, every job is to run twice
        found.append(f"{doubles} jobs ran twice")
    return found


def peers(run: Run) -> str:
    rows = []
    for label, described in run.peers.items():
        if "error" in described:
            rows.append([label, "", f"could not be measured: `{_one_line(described['error'])}`"])
        else:
            rows.append([label, version_of(label, described["versions"]), described["about"]])
    return markdown(("queue", "versions", "settings"), rows)


def version_of(label: str, versions: dict[str, str]) -> str:
    """Name the packages that matter: the queue's own and redis-py."""
    peer = label.split(maxsplit=1)[0]
    own = MAIN_PACKAGE.get(peer, peer)
    wanted = {own: None, f"{peer}-redis": None, "redis": None, "uvloop": None}
    return ", ".join(f"{name} {versions[name]}" for name in wanted if name in versions)


def _one_line(text: str) -> str:
    flat = " ".join(text.replace("`", "'").split())
    return flat if len(flat) <= 400 else f"…{flat[-400:]}"
