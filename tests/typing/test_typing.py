"""Both type checkers accept what is right, refuse what is wrong, and infer what a job returns."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

SAMPLE = Path(__file__).parent / "sample.py"
LINES = dict(enumerate(SAMPLE.read_text().splitlines(), 1))
REFUSED = {number for number, line in LINES.items() if line.endswith("# refused")}
REVEALED = {
    number: line.rpartition("# ")[2] for number, line in LINES.items() if line.strip().startswith("reveal_type(")
}


def by_mypy(sample: Path) -> tuple[set[int], dict[int, str]]:
    """Run mypy on the sample; give the lines it refuses and the types it reveals."""
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--no-incremental", str(sample)]
    output = subprocess.run(command, cwd=sample.parent, capture_output=True, text=True, check=False).stdout
    found = [(int(number), kind, text) for number, kind, text in re.findall(r"py:(\d+): (\w+): (.*)", output)]
    assert found, output
    revealed = {n: _short(text.split('"')[1]) for n, _, text in found if text.startswith("Revealed type")}
    return {number for number, kind, _ in found if kind == "error"}, revealed


def by_pyright(sample: Path) -> tuple[set[int], dict[int, str]]:
    """Run pyright on the sample; give the same."""
    command = [sys.executable, "-m", "basedpyright", "--outputjson", "--pythonpath", sys.executable, str(sample)]
    process = subprocess.run(command, cwd=sample.parent, capture_output=True, text=True, check=False)
    found = json.loads(process.stdout)["generalDiagnostics"]
    revealed = {
        one["range"]["start"]["line"] + 1: _short(one["message"].split('"')[-2])
        for one in found
        if one["severity"] == "information"
    }
    return {one["range"]["start"]["line"] + 1 for one in found if one["severity"] == "error"}, revealed


def _short(type_: str) -> str:
    """Leave out where a name comes from."""
    return re.sub(r"\b(?:\w+\.)+(\w+)", r"\1", type_)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("check", [by_mypy, by_pyright])
def test_wrong_calls_are_refused_and_results_are_inferred(
    check: Callable[[Path], tuple[set[int], dict[int, str]]], tmp_path: Path
) -> None:
    """Typed enqueue is the first thing that people who leave an older queue ask for."""
    sample = tmp_path / SAMPLE.name  # away from this project's own settings of the two
    sample.write_text(SAMPLE.read_text())
    refused, revealed = check(sample)
    assert {LINES[n] for n in refused} == {LINES[n] for n in REFUSED}
    assert revealed == REVEALED
