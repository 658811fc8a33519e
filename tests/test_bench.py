"""The benchmark's harness, run with a handful of jobs: everything is measured, verified, written; nothing is timed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("matplotlib", reason="comes with the extra named bench")

from bench import report, tables, targets
from bench.environments import CACHE, ROOT, scrubbed
from bench.plan import Plan, make_plan
from bench.records import AQUEUE, UNITS, Cell, Entrant, Reading, Result, Run

pytestmark = pytest.mark.timeout(300)
CHARTS = {"drain.png", "latency.png", "enqueue.png", "backlog.png", "redis_cpu.png"}
TEXTS = {"results.json", "results.md", "targets.md"}
NOT_RUN = {"enqueue", "yardstick"}
"""Measures without a worker."""


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("bench")
    command = [sys.executable, "-m", "bench", "smoke", "--results", str(directory)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AQUEUE_")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return directory


def test_every_file_is_written(smoke: Path) -> None:
    """A chart that silently is not drawn leaves a broken picture in the README."""
    assert {path.name for path in smoke.iterdir()} == CHARTS | TEXTS
    assert all(path.stat().st_size for path in smoke.iterdir())


def test_every_cell_has_a_value_and_all_its_jobs(smoke: Path) -> None:
    """A rate of jobs that nobody saw run is worth nothing."""
    run = report.load(smoke)
    planned = {cell.key for group in make_plan("smoke").groups for cell in group}
    assert {result.cell.key for result in run.results} == planned
    for result in run.results:
        (reading,) = result.readings
        assert not reading.error
        assert reading.values, result.cell.key
        assert all(value >= 0 for value in reading.values.values()), result.cell.key
        if result.cell.measure not in NOT_RUN:
            assert reading.ran == reading.jobs > 0, result.cell.key
        if result.cell.measure in {"drain", "io", "payload", "processes", "feature", "retries"}:
            assert reading.results == min(300, reading.jobs), result.cell.key


def test_only_what_no_peer_is_needed_for_is_judged(smoke: Path) -> None:
    """A target that a run of every measure cannot judge would never be judged."""
    unjudged = [one.wanted for one in targets.verdicts(report.load(smoke)) if one.met is None]
    assert all("peer" in wanted for wanted in unjudged)


def test_the_figures_survive_the_file(smoke: Path) -> None:
    """Tables made again later must be the tables of the run."""
    before = (smoke / "results.md").read_text("utf-8")
    report.write(report.load(smoke), smoke)
    assert (smoke / "results.md").read_text("utf-8") == before
    assert json.loads((smoke / "results.json").read_text("utf-8"))["kind"] == "smoke"


def made_up(**drains: float) -> Run:
    """A run with one drain per queue."""
    results = [
        Result(Cell("drain", "c=100", Entrant(name)), (Reading({"rate": rate}), Reading({"rate": 3 * rate})))
        for name, rate in drains.items()
    ]
    broken = Result(Cell("drain", "c=100", Entrant("broken")), (Reading(error="it\nbroke"),))
    return Run("full", {}, {}, {}, (*results, broken))


@pytest.mark.parametrize(("own", "met"), [(999.0, False), (1000.0, True)])
def test_targets_compare_with_the_fastest_peer(own: float, met: bool) -> None:  # noqa: FBT001
    """The comparison is with whom it hurts most."""
    verdict = targets.verdicts(made_up(aqueue=own, slow=1, fast=100))[0]
    assert verdict.met is met
    assert "fast 200/s" in verdict.measured


def test_a_peer_that_fails_is_shown_as_failed() -> None:
    """Dropping it would make a benchmark look cleaner than it was."""
    text = report.tables(made_up(aqueue=1000, fast=100))
    assert "| broken | - | - | failed |" in text
    assert "**broken** (drain c=100): failed: `it broke`" in text
    assert "**10.00** (fast)" in text


def test_documents_take_in_tables_again_and_again(tmp_path: Path) -> None:
    """The documents are rewritten after every full run."""
    document = tmp_path / "page.md"
    document.write_text("before\n<!-- bench:targets -->\nold\n<!-- /bench:targets -->\nafter\n", "utf-8")
    for body in ("first", "second"):
        report.embed({"targets": body, "tables": "unused"}, document)
    text = document.read_text("utf-8")
    assert text == "before\n<!-- bench:targets -->\n\nsecond\n<!-- /bench:targets -->\nafter\n"


def test_errors_tell_nothing_of_this_machine() -> None:
    """Results are published; paths and package indexes of whoever measured are not."""
    text = scrubbed(f"File {CACHE}/env-x/lib.py, looking in https://index.example/simple and file:///srv/wheels")
    assert text == "File .bench/env-x/lib.py, looking in https://... and file://..."


@pytest.mark.parametrize("kind", ["full", "quick", "smoke"])
def test_plans_measure_what_they_can_report(kind: str) -> None:
    """A cell without a place in any table is time wasted."""
    plan: Plan = make_plan(kind)
    shown = {table.measure for table in tables.TABLES} | {c.measure for t in tables.TABLES for c in t.columns}
    assert {cell.measure for group in plan.groups for cell in group} <= shown
    assert {column.metric for table in tables.TABLES for column in table.columns} <= set(UNITS)
    assert AQUEUE in plan.entrants


def test_unknown_peers_are_refused() -> None:
    """A misspelt peer must not become a run without it."""
    with pytest.raises(ValueError, match="no such peer: celry"):
        make_plan("full", peers=["celry"])
