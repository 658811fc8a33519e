"""From `module:queue` to the Queue: every way to be right, and what each slip is told."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from aqueue import ConfigurationError
from aqueue.worker.loading import load_lines, load_queues

SHOP = """
from aqueue import Queue

class jobs:
    slow = Queue("slow")

high = Queue("high")
low = Queue("low")
count = 3
"""


@pytest.fixture(autouse=True)
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory with a package of its own, forgotten afterwards."""
    package = tmp_path / "shop_of_test"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "tasks.py").write_text(SHOP)
    (tmp_path / "single_of_test.py").write_text('from aqueue import Queue\nqueue = Queue("only")\n')
    (tmp_path / "empty_of_test.py").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield package
    for name in [name for name in sys.modules if name.partition(".")[0].endswith("_of_test")]:
        del sys.modules[name]


def names(*specs: str) -> list[str]:
    return [queue.name for queue in load_queues(list(specs))]


def test_queues_come_in_the_order_in_which_they_are_named() -> None:
    """The order is the priority."""
    assert names("shop_of_test.tasks:low", "single_of_test:queue", "shop_of_test.tasks:high") == ["low", "only", "high"]


def test_an_attribute_may_have_dots() -> None:
    """Queues are often gathered in a class or a settings object."""
    assert names("shop_of_test.tasks:jobs.slow") == ["slow"]


def test_a_module_with_exactly_one_queue_needs_no_attribute() -> None:
    """There is nothing to choose."""
    assert names("single_of_test") == ["only"]


def test_the_working_directory_is_on_the_path_once() -> None:
    """Else the command works or not depending on how Python was started."""
    names("single_of_test")
    names("shop_of_test.tasks:low")
    assert sys.path.count(str(Path.cwd())) == 1


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "shop_of_test.tasks",
            "does not say which queue: module shop_of_test.tasks has high, low; write shop_of_test.tasks:high.",
        ),
        ("empty_of_test", "module empty_of_test has none; write empty_of_test:queue."),
        ("shop_of_test.tasks:count", "is a int, not a Queue; module shop_of_test.tasks has high, low."),
        ("shop_of_test.tasks:hihg", "does not exist, not a Queue; module shop_of_test.tasks has high, low."),
        ("shop_of_test.tasks:jobs.fast", "does not exist"),
        ("empty_of_test:queue", "module empty_of_test has no Queue."),
        ("shop_of_test/tasks.py:high", "names a file; write shop_of_test.tasks:queue."),
        ("nowhere_of_test:queue", "There is no module 'nowhere_of_test' for 'nowhere_of_test:queue' in "),
        ("nowhere_of_test.tasks:queue", "There is no module 'nowhere_of_test' for "),
        ("shop_of_test.nowhere:queue", "There is no module 'shop_of_test.nowhere' for "),
    ],
)
def test_a_slip_is_told_what_is_there_instead(spec: str, message: str) -> None:
    """The answer is nearly always in the module itself."""
    with pytest.raises(ConfigurationError) as refused:
        names(spec)
    assert message in str(refused.value)


def test_weights_and_caps_are_written_behind_the_queue() -> None:
    """They read back as they were written, which is how the worker and `aqueue stats` show them."""
    specs = ["shop_of_test.tasks:high=6", "shop_of_test.tasks:low=3,max=2", "single_of_test,max=4", "single_of_test"]
    assert list(map(str, load_lines(specs))) == ["high=6", "low=3,max=2", "only,max=4", "only"]


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ("=", "its weight must be a whole number from 1 to 1,000,000, not ''."),
        ("=-1", "its weight must be a whole number from 1 to 1,000,000, not '-1'."),
        ("=1.5", "not '1.5'."),
        ("=²", "not '²'."),
        ("=9" + "9" * 5000, "its weight must be a whole number"),
        (",max=x", "its cap must be a whole number from 1 to 1,000,000, not 'x'."),
        (",max=2,max=3", "its cap must be"),
        (",3", "says '3', which is not understood; write nowhere:queue=WEIGHT,max=JOBS"),
        ("=3,", "says '', which is not understood"),
        ("=3,limit=2", "says 'limit=2', which is not understood"),
    ],
)
def test_numbers_are_checked_before_anything_is_imported(numbers: str, message: str) -> None:
    """A slip in the last queue must not wait for the imports of the others."""
    with pytest.raises(ConfigurationError) as refused:
        load_lines([f"nowhere:queue{numbers}"])
    assert message in str(refused.value)


@pytest.mark.parametrize("spec", ["", ":queue", ".tasks:queue"])
def test_a_name_without_a_module_is_refused_and_not_a_crash(spec: str) -> None:
    """Shell variables turn out empty."""
    with pytest.raises(ConfigurationError):
        names(spec)


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("import missing_elsewhere", ModuleNotFoundError),
        ("import shop_of_test.missing", ModuleNotFoundError),
        ("raise RuntimeError('no settings')", RuntimeError),
        ("def (", SyntaxError),
    ],
)
def test_an_error_inside_the_module_is_its_own(tmp_path: Path, line: str, error: type[Exception]) -> None:
    """Its traceback names the line to mend; a message of ours would hide it."""
    (tmp_path / "broken_of_test.py").write_text(f"{line}\n")
    with pytest.raises(error) as raised:
        names("broken_of_test:queue")
    assert not isinstance(raised.value, ConfigurationError)
