"""What reviewers would otherwise have to look for: layers, names, keys, script headers, and documents that agree."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import redis

import aqueue
from aqueue.job import TRANSITIONS, JobId, JobState, QueueName, WorkerId
from aqueue.store import scripts
from aqueue.store.keys import Keys

PACKAGE = Path(str(aqueue.__file__)).parent
DOCS = PACKAGE.parent / "docs"
LUA = PACKAGE / "store" / "lua"

BASE = "moments errors keyring retry settings limits unique options schedule job job_ids embedded"
QUEUE = (
    "context middleware middlewares telling task identity submission amending failed definition schedules scheduling "
    "opening pausing keeper limiters queue"
)
LAYERS = (
    set(BASE.split()),
    {"store"},
    set(QUEUE.split()),
    {"worker"},
    {"ops"},
)
"""Each may import itself and what stands before it. `__init__` and `__main__` stand after all."""

LONGEST_MODULE = 400

SEES_REDIS_ERRORS = {"worker/parking.py"}
"""It owns a parked fetch, whose errors are those of redis-py; it imports the exceptions alone."""

SCRIPTS = scripts.names()
EVERY_LUA_FILE = sorted(LUA.rglob("*.lua"))


def sources() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE).as_posix(), ast.parse(path.read_text("utf-8"))


def imports(tree: ast.Module) -> Iterator[tuple[str, list[str]]]:
    """Give module and names of every import that is executed; those for type checkers alone are not."""
    skipped: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            skipped.update(inner for statement in node.body for inner in ast.walk(statement))
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, []) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module), [alias.name for alias in node.names]


def imported_parts(tree: ast.Module) -> Iterator[str]:
    """Give the dotted names below `aqueue` that a module imports."""
    for module, names in imports(tree):
        if module == "aqueue":
            yield from (name for name in names if name != "__version__")
        elif module.startswith("aqueue."):
            below = module.removeprefix("aqueue.")
            yield below
            yield from (f"{below}.{name}" for name in names)


def code(path: Path) -> str:
    """A Lua file without its comments."""
    return "\n".join(line.partition("--")[0] for line in path.read_text("utf-8").splitlines())


# layers


def test_arrows_point_one_way() -> None:
    """A store that knows user code, or a queue that knows workers, can no longer be tested or reused alone."""
    rank = {name: number for number, layer in enumerate(LAYERS) for name in layer}
    wrong = [
        f"{file} imports aqueue.{part}"
        for file, tree in sources()
        if (own := file.removesuffix(".py").partition("/")[0]) not in ("__init__", "__main__")
        for part in imported_parts(tree)
        if rank[part.partition(".")[0]] > rank[own]
    ]
    assert not wrong


def test_every_module_has_a_layer() -> None:
    """A new module is to be put somewhere on purpose."""
    tops = {file.removesuffix(".py").partition("/")[0] for file, _ in sources()}
    assert tops == set.union(*LAYERS) | {"__init__", "__main__"}


def test_only_the_store_speaks_redis() -> None:
    """Whoever else does would need its own rules for retries, time-outs and clusters."""
    users = {
        file: (module, names)
        for file, tree in sources()
        if not file.startswith("store/")
        for module, names in imports(tree)
        if module.partition(".")[0] in ("redis", "hiredis")
    }
    assert set(users) == SEES_REDIS_ERRORS
    assert {module for module, _ in users.values()} == {"redis.exceptions"}


def test_the_executor_knows_no_connection() -> None:
    """A run turns a lease into an outcome, and only the store applies outcomes."""
    tree = ast.parse((PACKAGE / "worker" / "executor.py").read_text("utf-8"))
    forbidden = ("store.connection", "store.link", "store.mailbox", "store.address", "store.keys", "worker.lane")
    assert not [part for part in imported_parts(tree) if part.startswith(forbidden)]
    assert not [module for module, _ in imports(tree) if module.startswith("redis")]


def test_no_module_has_over_400_lines() -> None:
    """What does not fit on a few screens does more than one thing."""
    lengths = {file: len((PACKAGE / file).read_text("utf-8").splitlines()) for file, _ in sources()}
    assert not {file: length for file, length in lengths.items() if length > LONGEST_MODULE}


# names


def test_the_public_names_are_listed_and_sorted() -> None:
    """What is importable from the top is a promise; nothing becomes one by accident."""
    public = {name for name, value in vars(aqueue).items() if not name.startswith("_")
              and not isinstance(value, ModuleType)}  # fmt: skip
    assert sorted(public) == aqueue.__all__


def test_keys_are_spelled_in_one_module() -> None:
    """A key spelled twice is renamed once."""
    kinds = "|".join(sorted(key_kinds()))
    spelled = re.compile(rf"aqueue:|\}}:|(^|:)({kinds}):")
    found = [
        f"{file}:{node.lineno} {node.value!r}"
        for file, tree in sources()
        if file != "store/keys.py"
        for node in strings(tree)
        if spelled.search(str(node.value))
    ]
    assert not found


def strings(tree: ast.Module) -> Iterator[ast.Constant]:
    """Give the strings of a module that are data: no docstrings, and no prose, which has a space in it."""
    documents = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or id(node) in documents:
            continue
        if isinstance(node.value, str) and " " not in node.value:
            yield node


def key_kinds() -> set[str]:
    """Give the first part of every key that `Keys` spells below a queue."""
    keys = Keys("aqueue", QueueName("q"))
    spelled = [
        keys.job(JobId("x")), keys.payload(JobId("x")), keys.unique("x"), keys.worker(WorkerId("x")),
        keys.inbox(WorkerId("x")), keys.held(WorkerId("x")), keys.channel("x"), keys.queued, keys.suspects,
        keys.scheduled, keys.workers, keys.failed, keys.pruned, keys.paused, keys.stats, keys.ranked, keys.held_back,
        keys.timers, keys.waiting("x"), keys.permits("x"), keys.pace("x"), keys.nowhere, keys.schedules,
        keys.schedule("x"), keys.holders("x"), keys.passes("x"), keys.line("x"), keys.patience("x"), keys.shelves,
        keys.shelf("x"), keys.changed, keys.user_made,
    ]  # fmt: skip
    members = {name for name in vars(Keys) if not name.startswith("_")} - {"registry", "places", "bell"}
    assert len(spelled) == len(members), f"this test is to know all of {sorted(members)}"
    return {key.removeprefix(keys.base).partition(":")[0] for key in spelled}


# scripts


def test_there_are_scripts() -> None:
    """The tests below would all pass on none."""
    assert len(SCRIPTS) >= 17


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_has_a_header_that_is_true(name: str) -> None:
    """The header is what callers and readers go by; a name in it that the body does not use is a lie."""
    path = LUA / f"{name}.lua"
    text, header = path.read_text("utf-8"), scripts.load(name).header
    assert text.startswith(f"-- {name}: ")
    assert "-- RETURNS " in text
    assert header.keys or header.each
    body = code(path)
    unused = [part for part in [*header.keys, *(n for n, _ in header.argv)] if not re.search(rf"\b{part}\b", body)]
    assert not unused
    assert bool(header.item or header.each) == ("in items() do" in body)
    for variables in re.findall(r"for (.+) in items\(\) do", body):
        assert len(variables.split(",")) <= len(header.item) + len(header.each)
    assert all(type_ in ("int", "str") for _, type_ in [*header.argv, *header.item])
    assert set(header.flags) <= {"allow-oom", "no-writes"}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_includes_what_it_needs_in_order_and_no_more(name: str) -> None:
    """A local of Lua that is missing, or comes too late, fails at run time only, on the path that calls it."""
    includes = scripts.load(name).header.includes
    texts = {path.stem: code(path) for path in (LUA / "include").glob("*.lua")}
    defined = {stem: set(re.findall(r"^local (?:function )?(\w+)", text, re.MULTILINE)) for stem, text in texts.items()}
    chain = [(include, texts[include]) for include in includes] + [("", code(LUA / f"{name}.lua"))]
    needed: set[str] = set()
    for place, (user, text) in enumerate(chain):
        for stem in set(defined) - {user}:
            if any(re.search(rf"(?<!')\b{local}\b(?!')", text) for local in defined[stem] - own_locals(text)):
                assert stem in includes[:place], f"{user or name} needs {stem}"
                needed.add(stem)
    assert needed == set(includes)
    late = scripts.load(name).header.late
    assert not late or late == includes[(first := includes.index(late[0])) : first + len(late)], (
        "late ones stand together"
    )


def own_locals(text: str) -> set[str]:
    """Names that a Lua text binds itself."""
    bound = re.findall(r"\blocal (?:function )?([\w, ]+)", text)
    return {name for names in bound for name in re.split(r",\s*", names.strip())}


def test_every_script_has_one_caller() -> None:
    """One verb, one file, one method."""
    called = Counter(
        node.args[0].value
        for file, tree in sources()
        if file.startswith("store/")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) == "self._run"
        and isinstance(node.args[0], ast.Constant)
    )
    assert called == Counter(SCRIPTS)


@pytest.mark.parametrize("path", EVERY_LUA_FILE, ids=lambda path: path.stem)
def test_bodies_count_no_positions(path: Path) -> None:
    """Names are bound by the loader; a number would go wrong with the next argument."""
    assert not re.search(r"\b(KEYS|ARGV)\s*\[", code(path))


def test_lua_and_python_know_the_same_states() -> None:
    """A state that only one side knows is a job that nobody finds again."""
    text = "\n".join(code(path) for path in EVERY_LUA_FILE)
    written = set(re.findall(r"'HSET',[^\n]*'state', '(\w+)'", text)) | set(
        re.findall(r"finish\([^\n]*?, '(\w+)'", text)
    )
    assert written == set(JobState)
    compared = set(re.findall(r"\bstate [~=]= '(\w+)'", text)) | set(re.findall(r"seen\[\d\] [~=]= '(\w+)'", text))
    listed = re.search(r"UNFINISHED = \{(.+?)\}", text)
    assert listed is not None
    compared |= set(re.findall(r"(\w+) = true", listed[1]))
    assert compared <= set(JobState)
    assert {state for state in JobState if not state.ended} == set(re.findall(r"(\w+) = true", listed[1]))


def test_lua_builds_only_keys_that_keys_spells() -> None:
    """Scripts build the keys of records whose ids they learn; those must be the same keys."""
    text = "\n".join(code(path) for path in EVERY_LUA_FILE)
    built = set(re.findall(r"prefix \.\. '(\w+):'", text))
    assert {
        "job", "payload", "held", "inbox", "worker", "unique", "channel", "waiting", "permits", "pace", "schedule",
        "shelf",
    } == built  # fmt: skip
    assert built <= key_kinds()


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_compiles(name: str, raw: redis.Redis) -> None:
    """A syntax error, or a flag that a server does not know, must not wait for the first call."""
    script = scripts.load(name)
    assert raw.script_load(script.text) == script.sha


# documents


def test_the_state_diagram_is_the_code() -> None:
    """A diagram that is wrong is worse than none."""
    drawn = {
        tuple(arrow)
        for arrow in re.findall(
            r"^\s*(\[\*\]|\w+) --> (\[\*\]|\w+): (\w+)$", (DOCS / "states.md").read_text("utf-8"), re.MULTILINE
        )
    }
    coded = {
        (str(start or "[*]"), str(end or "[*]"), verb) for verb, arrows in TRANSITIONS.items() for start, end in arrows
    }
    assert drawn == coded


def test_every_guarantee_names_a_test_that_exists() -> None:
    """A promise whose test was renamed away is a promise that nobody keeps."""
    rows = re.findall(r"^\|.+\| `(\S+)::(\w+)` \|$", (DOCS / "guarantees.md").read_text("utf-8"), re.MULTILINE)
    assert len(rows) >= 30
    tests = PACKAGE.parent / "tests"
    missing = [
        f"{file}::{name}"
        for file, name in rows
        if not (tests / file).exists() or f"def {name}(" not in (tests / file).read_text("utf-8")
    ]
    assert not missing


def test_the_data_model_names_every_key() -> None:
    """Operators look there when they look into Redis."""
    text = (DOCS / "data-model.md").read_text("utf-8")
    rows = re.findall(r"^\| `([\w]+)(?::<\w+>)?` \|", text, re.MULTILINE)
    assert sorted(rows) == sorted(key_kinds())
    assert f"`{Keys('aqueue', QueueName('q')).registry}`" in text


def test_the_data_model_names_every_field_of_a_job() -> None:
    """Fields appear in scripts one by one; the list of them exists in the document only."""
    text = (DOCS / "data-model.md").read_text("utf-8")
    section = re.search(r"## Fields of `job:<id>`\n(.+?)\n## ", text, re.DOTALL)
    assert section is not None
    named = set(re.findall(r"`(\w+)`", section[1]))
    lua = "\n".join(code(path) for path in EVERY_LUA_FILE)
    fields = "state|attempt|crashes|token|unique|scope|rank|limits|called|stands|cancel|waiters|rerun|result|error|task"
    fields += "|shelf|history|retimed|limited|limited_by"
    written = set(re.findall(rf"'((?:\w+_ms)|{fields})'", lua))
    of_schedules = {"declared_ms", "slot_ms", "removed_ms"}
    assert named == written - of_schedules
