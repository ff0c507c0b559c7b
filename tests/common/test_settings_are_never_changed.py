"""A configuration that a run was composed to is never changed: what differs is another one.

Workers, checkpoints and the audit log identify a run by the hash of its configuration, and many
partners of a simulation share one object, so nobody may change it in place.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path

from common.config import Config

ROOT = Path(__file__).parents[2]
SECTIONS = {
    f.name: {g.name for g in fields(section)} if is_dataclass(section) else set()
    for f in fields(Config)
    for section in [getattr(Config(), f.name)]
}


def changes(tree: ast.AST) -> Iterator[ast.Attribute]:
    """Every assignment to, or deletion of, a setting: config.SECTION or X.SECTION.SETTING."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id="setattr"), args=[ast.Attribute() as section, *_]):
                if section.attr in SECTIONS and "config" in ast.unparse(section.value):
                    yield section
                continue
            case ast.Attribute(attr=name, value=ast.Attribute(attr=section), ctx=context):
                changed = name in SECTIONS.get(section, ())
            case ast.Attribute(attr=name, value=ast.Name(id=whole), ctx=context):
                changed = name in SECTIONS and "config" in whole
            case _:
                continue
        if changed and not isinstance(context, ast.Load):
            yield node


def test_the_search_finds_a_change_of_each_kind() -> None:
    found = [
        *("config.run.dir = 'x'", "self.config.data.labels: list = []", "del asked.run.seed"),
        *("config.train = other", "config.run.rounds += 1", "a, config.run.dir = 1, 2"),
        "setattr(config.data, key, value)",
    ]
    for text in found:
        assert len(list(changes(ast.parse(text)))) == 1, text
    for text in ("config.run.dir", "run = config.run", "self.model.layers_ = 1", "config = other"):
        assert not list(changes(ast.parse(text))), text


def test_no_code_changes_a_setting_in_place() -> None:
    guilty = []
    for path in sorted(ROOT.glob("[!.]*/**/*.py")):
        place = path.relative_to(ROOT)
        if place.parts[0] == "tests":
            continue
        for node in changes(ast.parse(path.read_text(encoding="utf-8"))):
            guilty.append(f"{place}:{node.lineno}: {ast.unparse(node)}")
    assert guilty == []
