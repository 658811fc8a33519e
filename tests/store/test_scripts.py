"""Script headers are data: the loader turns them into locals, so a wrong header is a wrong script."""

from __future__ import annotations

import hashlib
import re

import pytest

from aqueue.store.scripts import Header, Script, load, names, parse_header

BODY = """\
-- do: something
--
-- FLAGS allow-oom,no-writes  why
-- KEYS queued     list  ids
-- KEYS failed     zset
-- EACH record     hash  the job
-- EACH payload    str
-- ARGV limit      int   how many
-- ARGV prefix     str
-- ITEM id         str
-- ITEM delay_ms   int
-- RETURNS nothing
--- @include clock
--- @include finish

-- KEYS late       str   after the header: a comment like any other
return 1
"""


def test_a_header_is_read_in_its_order() -> None:
    """Order is meaning: KEYS and ARGV are positions."""
    assert parse_header(BODY) == Header(
        flags=["allow-oom", "no-writes"],
        keys=["queued", "failed"],
        each=["record", "payload"],
        argv=[("limit", "int"), ("prefix", "str")],
        item=[("id", "str"), ("delay_ms", "int")],
        includes=["clock", "finish"],
    )


def test_a_script_without_a_header_takes_nothing() -> None:
    """And gets no flags."""
    assert parse_header("return 1") == Header()


@pytest.mark.parametrize("name", names())
def test_every_script_of_the_package_can_be_loaded(name: str) -> None:
    """A missing include or a header without a type would be found in production first."""
    script = load(name)
    assert script.sha == hashlib.sha1(script.text.encode(), usedforsecurity=False).hexdigest()
    assert script.text.startswith("#!lua")
    assert all(type_ in ("int", "str") for _, type_ in [*script.header.argv, *script.header.item])
    for position, key in enumerate(script.header.keys, 1):
        assert f"local {key} = KEYS[{position}]" in script.text
    assert load(name) is script


def test_a_call_is_laid_out_as_the_header_says() -> None:
    """Keys before the keys of the items, arguments before the items."""
    script = Script("do", parse_header(BODY), "", "")
    laid = script.arguments(["q", "f"], [7, "p:"], each=["r1", "p1", "r2", "p2"], items=["1", 0, "2", 5])
    assert laid == [7, "q", "f", "r1", "p1", "r2", "p2", "p:nowhere", 7, "p:", "1", 0, "2", 5]


def test_what_most_calls_do_not_need_is_made_by_who_calls_it() -> None:
    """Whoever calls a late function by its bare name would find nil, on a path that is seldom taken."""
    script = load("settle_and_claim")
    late, _, rest = script.text.partition("\nreturn made\nend\n")
    names_of_late = re.search(r"^made = \{ (.+) \}$", late, re.MULTILINE)
    assert names_of_late is not None
    assert script.header.late
    assert {"finish", "admit", "outcomes"} <= {pair.partition(" = ")[0] for pair in names_of_late[1].split(", ")}
    defined = re.findall(r"^local (?:function )?(\w+)", late.partition("local made\n")[2], re.MULTILINE)
    code = "\n".join(line.partition("--")[0] for line in rest.splitlines())
    assert not re.findall(rf"(?<![\w.'])(?:{'|'.join(set(defined) - {'later'})})\b(?!')", code)
    assert not [word for word in re.findall(r"later\(\)\.(\w+)", code) if f"{word} = {word}" not in names_of_late[1]]


@pytest.mark.parametrize("name", names())
def test_a_script_that_builds_keys_is_told_from_what(name: str) -> None:
    """By the argument `prefix` the loader knows who must name the key that never exists, and nobody can forget it."""
    script = load(name)
    assert (script.prefix is not None) == bool(re.search(r"\bprefix \.\.|prefix = prefix", script.text))
    assert script.header.item or not script.header.each, "items are counted by their arguments, not by their keys"


def test_a_call_with_the_wrong_number_is_refused() -> None:
    """Here, and not by a nil in the middle of a script that cannot be rolled back."""
    script = Script("do", parse_header(BODY), "", "")
    with pytest.raises(TypeError, match="do takes keys"):
        script.arguments(["q"], [7, "p"])
    with pytest.raises(TypeError, match="do takes keys"):
        script.arguments(["q", "f"], [7])


def test_items_are_visited_with_their_keys() -> None:
    """What the loader writes for `EACH` and `ITEM` is the only place that counts positions."""
    text = load("enqueue").text
    header = load("enqueue").header
    stride, width = len(header.item), len(header.each)
    assert f"(#ARGV - {len(header.argv)}) / {stride}" in text
    assert f"KEYS[{len(header.keys)} + i * {width} + {width}]" in text
    assert f"ARGV[{len(header.argv)} + i * {stride} + {stride}]" in text
