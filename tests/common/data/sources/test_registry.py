"""One list of sources: the registry; conf, docs and messages follow it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from common.data.check import check_data
from common.data.schema import DataConfig
from common.data.sources import SOURCES
from common.errors import UserError

ROOT = Path(__file__).parents[4]


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_has_its_file_of_conf_and_its_row_of_the_docs(name: str) -> None:
    settings = yaml.safe_load((ROOT / "conf" / "data" / f"{name}.yaml").read_text())
    assert settings["source"] == name
    assert f"\n| `{name}` |" in (ROOT / "docs" / "data.md").read_text()


def test_every_file_of_conf_is_a_source() -> None:
    names = {path.stem for path in (ROOT / "conf" / "data").glob("*.yaml")}
    assert names == {"base", *SOURCES}


def test_an_unknown_source_is_answered_with_all_names() -> None:
    with pytest.raises(UserError, match=rf"^data.source must be one of {', '.join(SOURCES)}$"):
        check_data(DataConfig(source="excel"))


def test_the_types_of_the_configuration_and_the_registry_import_nothing_heavy() -> None:
    code = (
        "import sys, common.data.schema, common.data.check\n"
        "heavy = {'torch', 'pyarrow', 'numpy', 'pandas', 'datasets', 'sqlalchemy'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
