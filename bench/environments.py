"""A virtual environment for every peer, since their dependencies conflict; made once, and again when pins change."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, Final

from bench.records import AQUEUE, BARE

ROOT: Final = Path(__file__).parent.parent
CACHE: Final = ROOT / ".bench"
VERSIONS: Final = Path(__file__).parent / "peers" / "versions.toml"
INSTALL_SECONDS: Final = 600.0
OWN: Final = frozenset({AQUEUE.peer, BARE.peer})
"""These run in the environment of the harness itself."""


ERROR_CHARS: Final = 1_500


class EnvironmentFailed(Exception):
    """A peer cannot be installed; carries what the installer said."""


def scrubbed(text: str) -> str:
    """Give the end of an error without what is known only on this machine: its paths and package indexes."""
    for prefix in (f"{ROOT}/", f"{Path.home()}/", f"{Path(sys.base_prefix)}/"):
        text = text.replace(prefix, "")
    return re.sub(r"\b(https?|file)://\S+", r"\1://...", text).strip()[-ERROR_CHARS:]


def pins(peer: str) -> list[str]:
    """Give the exact requirements of a peer. Errors: EnvironmentFailed for a peer without any."""
    versions: dict[str, Any] = tomllib.loads(VERSIONS.read_text("utf-8"))
    if peer not in versions["peers"]:
        raise EnvironmentFailed(f"{VERSIONS.name} has no versions for {peer}")
    return [*versions["peers"][peer], *versions["common"]]


def interpreter(peer: str) -> Path:
    """Give the Python of a peer's environment, made if need be. Errors: EnvironmentFailed."""
    if peer in OWN:
        return Path(sys.executable)
    wanted = pins(peer)
    directory = _directory(peer, wanted)
    python = directory / "bin" / "python"
    if not (directory / ".ready").exists():
        for outdated in CACHE.glob(f"env-{peer}-*"):
            shutil.rmtree(outdated)
        _make(directory, python, wanted)
        (directory / ".ready").touch()
    return python


def _directory(peer: str, wanted: list[str]) -> Path:
    digest = hashlib.sha256(json.dumps([wanted, sys.version]).encode()).hexdigest()[:10]
    return CACHE / f"env-{peer}-{digest}"


def _make(directory: Path, python: Path, wanted: list[str]) -> None:
    if shutil.which("uv"):
        _call("uv", "venv", "--quiet", "--python", sys.executable, str(directory))
        _call("uv", "pip", "install", "--quiet", "--python", str(python), *wanted)
    else:
        _call(sys.executable, "-m", "venv", str(directory))
        _call(str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted)


def _call(*command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise EnvironmentFailed(f"{command[0]} took longer than {INSTALL_SECONDS:g} s") from None
    if done.returncode:
        raise EnvironmentFailed(scrubbed(f"{' '.join(command)}\n{done.stderr}"))
