"""Lua scripts whose headers are data.

A script's header names its keys and arguments; the loader turns that into the local variables the body uses, so
that no body counts positions in KEYS or ARGV and no caller can mix them up:

    -- FLAGS allow-oom       what the server is told about the script
    -- KEYS queued           a key, bound to a local of that name
    -- EACH record           a key that comes once per item
    -- ARGV limit int        an argument; `int` arrives as a number
    -- ITEM id str           a field of each item; `for id, record in items() do` visits them
    -- RETURNS …             for the reader
    --- @include finish      shared steps from lua/include
    --- @include bury late   the same, made only by the call that needs them; late ones stand together

A script that is given the `prefix` builds keys that its caller cannot name. Each call of one names a key that never
exists, too: while a slot moves between nodes of a Cluster, the server refuses who names a key that it does not have,
before anything is done. Else a script that names only what is there would run, and fail at a key that has left.

Scripts are called by the hash of their text, so that two versions of this package can work side by side.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Final, TypeAlias

from aqueue.store.keys import nowhere

Arg: TypeAlias = str | bytes | int

_LINE: Final = re.compile(r"^-- (FLAGS|KEYS|EACH|ARGV|ITEM) +(\S+)(?: +(\S+))?")
_INCLUDE: Final = re.compile(r"^--- @include (\w+)( late)?$")
_LOCAL: Final = re.compile(r"^local (?:function )?(\w+)", re.MULTILINE)
_LUA: Final = resources.files("aqueue.store") / "lua"


@dataclass(frozen=True, slots=True)
class Header:
    """What a script says of itself, in the order in which it says it."""

    flags: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    each: list[str] = field(default_factory=list)
    argv: list[tuple[str, str]] = field(default_factory=list)
    item: list[tuple[str, str]] = field(default_factory=list)
    includes: list[str] = field(default_factory=list)
    late: list[str] = field(default_factory=list)
    """Those of the includes that stand together and that most calls do not need."""


@dataclass(frozen=True, slots=True)
class Script:
    """One transition, ready to be called."""

    name: str
    header: Header
    text: str
    sha: str
    prefix: int | None = field(init=False)
    """The position of the argument from which the script builds keys, if it does."""

    def __post_init__(self) -> None:
        found = (n for n, (name, _) in enumerate(self.header.argv) if name == "prefix")
        object.__setattr__(self, "prefix", next(found, None))

    def arguments(
        self, keys: Sequence[str], argv: Sequence[Arg], each: Iterable[str] = (), items: Iterable[Arg] = ()
    ) -> list[Arg]:
        """Lay out one call: number of keys, keys, keys of the items, the key that never exists, arguments, items."""
        if len(keys) != len(self.header.keys) or len(argv) != len(self.header.argv):
            raise TypeError(f"{self.name} takes keys {self.header.keys} and arguments {self.header.argv}")
        flat = [*keys, *each]
        if self.prefix is not None:
            flat.append(nowhere(str(argv[self.prefix])))
        return [len(flat), *flat, *argv, *items]


@cache
def load(name: str) -> Script:
    """Read lua/<name>.lua, resolve its includes and write its bindings."""
    body = (_LUA / f"{name}.lua").read_text("utf-8")
    header = parse_header(body)
    shebang = f"#!lua flags={','.join(header.flags)}" if header.flags else "#!lua"
    text = "\n".join([shebang, *_included(header, f"{_bindings(header)}\n{body}")])
    return Script(name, header, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


def names() -> list[str]:
    """List every script of the package."""
    return sorted(entry.name.removesuffix(".lua") for entry in _LUA.iterdir() if entry.name.endswith(".lua"))


def parse_header(body: str) -> Header:
    header = Header()
    for line in body.splitlines():
        if not line.startswith("--"):
            break
        if include := _INCLUDE.match(line):
            header.includes.append(include[1])
            if include[2]:
                header.late.append(include[1])
        elif found := _LINE.match(line):
            kind, name, type_ = found.groups()
            match kind:
                case "FLAGS":
                    header.flags.extend(name.split(","))
                case "KEYS":
                    header.keys.append(name)
                case "EACH":
                    header.each.append(name)
                case "ARGV":
                    header.argv.append((name, type_))
                case _:
                    header.item.append((name, type_))
    return header


def _included(header: Header, body: str) -> list[str]:
    """Give the includes and the body.

    The server makes every function of a script anew with each call, which for fifty takes longer than to settle a job.
    Late ones are made when the first of them is called.
    """
    texts = {name: (_LUA / "include" / f"{name}.lua").read_text("utf-8") for name in header.includes}
    if not header.late:
        return [*texts.values(), body]
    first = header.includes.index(header.late[0])
    early, others = header.includes[:first], header.includes[first + len(header.late) :]
    late = "\n".join(texts[name] for name in header.late)
    names = "|".join(_LOCAL.findall(late))
    use = re.compile(rf"(?<![\w.'])({names})\b(?!')")
    rest = [
        "\n".join(line if line.startswith("--") else use.sub(r"later().\1", line) for line in text.splitlines())
        for text in (*(texts[name] for name in others), body)
    ]
    told = ", ".join(f"{name} = {name}" for name in sorted(set(re.findall(r"later\(\)\.(\w+)", "\n".join(rest)))))
    made = f"local made\nlocal function later()\nif not made then\n{late}\nmade = {{ {told} }}\nend\nreturn made\nend"
    return [*(texts[name] for name in early), made, *rest]


def _bindings(header: Header) -> str:
    """Write the locals and the item iterator that a header promises."""
    lines = [f"local {name} = KEYS[{i}]" for i, name in enumerate(header.keys, 1)]
    lines += [f"local {name} = {_read(f'ARGV[{i}]', type_)}" for i, (name, type_) in enumerate(header.argv, 1)]
    if header.item or header.each:
        lines.append(_iterator(header))
    return "\n".join(lines)


def _iterator(header: Header) -> str:
    keys, width, stride = len(header.keys), len(header.each), len(header.item)
    skip = len(header.argv)
    count = f"(#ARGV - {skip}) / {stride}" if stride else f"(#KEYS - {keys}) / {width}"
    values = [_read(f"ARGV[{skip} + i * {stride} + {n}]", type_) for n, (_, type_) in enumerate(header.item, 1)]
    values += [f"KEYS[{keys} + i * {width} + {n}]" for n in range(1, width + 1)]
    return (
        "local function items()\n  local i, count = -1, " + count + "\n  return function()\n"
        "    i = i + 1\n    if i < count then\n      return " + ", ".join(values) + "\n    end\n  end\nend"
    )


def _read(place: str, type_: str) -> str:
    return f"tonumber({place})" if type_ == "int" else place
