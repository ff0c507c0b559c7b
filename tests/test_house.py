"""The rules of the source tree, and the program that checks them."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts import house

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def sources() -> house.Sources:
    return house.read_sources(ROOT)


def test_no_file_takes_part_in_an_import_cycle(sources: house.Sources) -> None:
    assert house.import_cycles(house.import_graph(sources)) == []


def test_no_file_or_function_is_too_long(sources: house.Sources) -> None:
    assert house.oversized(sources) == []


def test_no_import_points_up_the_layers() -> None:
    assert house.broken_layers(ROOT) == []


def test_every_top_level_package_is_read(sources: house.Sources) -> None:
    tops = {path.split("/")[0] for path in sources}
    assert {"bench", "client", "hydra_plugins", "scripts", "strategies", "tests"} <= tops
    assert "tests/test_house.py" in sources
    assert "scripts/house.py" in sources


def test_the_graph_knows_every_form_of_import() -> None:
    sources = {
        "a/__init__.py": "from .b import name\n",
        "a/b.py": "import a.c\n\nname = 1\n",
        "a/c.py": "def later():\n    from a import d\n",
        "a/d.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from . import e\n",
        "a/e.py": "import torch\nfrom a import not_a_module\n",
    }
    assert house.import_graph(sources) == {
        "a": {"a.b"},
        "a.b": {"a.c"},
        "a.c": {"a.d"},
        "a.d": {"a.e"},
        "a.e": {"a"},
    }


def test_a_cycle_that_only_a_type_checker_sees_is_found() -> None:
    sources = {
        "p/one.py": "import p.two\n",
        "p/two.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import p.one\n",
        "p/three.py": "import p.one\n",
    }
    assert house.import_cycles(house.import_graph(sources)) == [["p.one", "p.two"]]


def test_cycles_that_touch_are_one_and_others_are_apart() -> None:
    edges = {"a": "b", "b": "ac", "c": "b", "d": "ae", "e": "d", "f": "abcdef", "g": ""}
    graph = {module: frozenset(imported) - {module} for module, imported in edges.items()}
    assert house.import_cycles(graph) == [["a", "b", "c"], ["d", "e"]]


def test_long_files_and_functions_and_parameter_lists_are_found() -> None:
    parameters = ", ".join(f"x{i}" for i in range(12))
    short, long = ("def it():\n" + "    x = 1\n" * lines for lines in (59, 60))
    sources = {
        "just_short.py": "x = 1\n" * 400,
        "long.py": "x = 1\n" * 401,
        "functions.py": short + long,
        "parameters.py": f"async def wide({parameters}): ...\ndef narrow({parameters[:-5]}): ...\n",
    }
    assert house.oversized(sources) == [
        "long.py: 401 lines; divide it (at most 400)",
        "functions.py:61: it has 61 lines; divide it (at most 60)",
        "parameters.py:1: wide has 12 parameters; group them (at most 11)",
    ]


def test_an_import_up_the_layers_is_found(tmp_path: Path) -> None:
    for folder, text in (("low", "import high\n"), ("high", "")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").write_text(text)
    (tmp_path / "pyproject.toml").write_text(
        '[tool.importlinter]\nroot_packages = ["low", "high"]\n[[tool.importlinter.contracts]]\n'
        'name = "one way"\ntype = "layers"\nlayers = ["high", "low"]\n'
    )
    (report,) = house.broken_layers(tmp_path)
    assert "low is not allowed to import high" in report
