"""From `module:queue` on a command line to the Queue it names."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from aqueue.errors import ConfigurationError
from aqueue.queue import Queue
from aqueue.worker.lines import Line, parted


def load_lines(specs: list[str]) -> list[Line]:
    """Import each `module:queue=WEIGHT,max=JOBS`. Errors: as load_queues; what is wrong with numbers is said before."""
    parts = [parted(spec) for spec in specs]
    queues = load_queues([name for name, _, _ in parts])
    return [Line(queue, weight, cap) for queue, (_, weight, cap) in zip(queues, parts, strict=True)]


def load_queues(specs: list[str]) -> list[Queue]:
    """Import each `module:attribute`, or a module with exactly one Queue, and return the queues in that order.

    The working directory is on the path. Errors: ConfigurationError; whatever the module itself raises.
    """
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    return [_load(spec) for spec in specs]


def _load(spec: str) -> Queue:
    module_name, _, attribute = spec.partition(":")
    if not module_name or module_name.startswith("."):
        raise ConfigurationError(f"{spec!r} names no module; write module:queue, as in tasks:queue.")
    if module_name.endswith(".py"):
        raise ConfigurationError(
            f"{spec!r} names a file; write {module_name.removesuffix('.py').replace('/', '.')}:queue."
        )
    module = _import(module_name, spec)
    found = {name: value for name, value in vars(module).items() if isinstance(value, Queue)}
    if not attribute:
        if len(found) != 1:
            raise ConfigurationError(
                f"{spec!r} does not say which queue: module {module_name} has {', '.join(sorted(found)) or 'none'}; "
                f"write {module_name}:{min(found, default='queue')}."
            )
        return next(iter(found.values()))
    value: object = module
    for part in attribute.split("."):
        value = getattr(value, part, None)
    if not isinstance(value, Queue):
        what = "does not exist" if value is None else f"is a {type(value).__name__}"
        raise ConfigurationError(
            f"{spec!r} {what}, not a Queue; module {module_name} has {', '.join(sorted(found)) or 'no Queue'}."
        )
    return value


def _import(module_name: str, spec: str) -> object:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # a module that the app itself imports is missing: its traceback says where
        raise ConfigurationError(
            f"There is no module {error.name!r} for {spec!r} in {Path.cwd()} or on the Python path; "
            "run the command where the module is, or write its full dotted name."
        ) from None
