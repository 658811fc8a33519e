"""The README and docs: what people copy from them parses, what they import exists, and links lead somewhere."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import aqueue

ROOT = Path(str(aqueue.__file__)).parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
each_document = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)


def headings(path: Path) -> set[str]:
    """Give what a link may name behind its #."""
    titles = re.findall(r"^#+ (.+)$", path.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@each_document
def test_code_parses_and_imports_what_there_is(path: Path) -> None:
    """A snippet that fails at its first line is the first thing that a newcomer sees."""
    for block in re.findall(r"```python\n(.+?)```", path.read_text("utf-8"), re.DOTALL):
        tree = compile(block, str(path), "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        imported = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module == "aqueue"]
        for name in [alias.name for node in imported for alias in node.names]:
            assert hasattr(aqueue, name), f"aqueue has no {name}"


@each_document
def test_links_lead_somewhere(path: Path) -> None:
    """Files get other names, and headings too."""
    links = re.findall(r"\]\(([^)\s#]*)(?:#([^)\s]+))?\)", path.read_text("utf-8"))
    inside = [(path.parent / target if target else path, heading) for target, heading in links if ":" not in target]
    assert not [target for target, _ in inside if not target.exists()]
    assert not [(target.name, heading) for target, heading in inside if heading and heading not in headings(target)]
