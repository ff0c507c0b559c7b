"""The aggregation bench at a size that says nothing but that it runs."""

from __future__ import annotations

import json
from importlib.util import find_spec

import pytest

from bench.aggregation import CASES, main

KEYS = {
    "rule", "n", "d", "ours_s", "flower_s", "byzfl_s", "read_s", "gram_s", "extra_bytes_ratio",
}  # fmt: skip


def test_the_table_has_every_rule_and_its_peers(tmp_path):
    out = tmp_path / "table.json"
    main(["--json", str(out), "--sizes", "11x2000", "--repeats", "1"])
    rows = json.loads(out.read_text())["rows"]
    assert [row["rule"] for row in rows] == list(CASES)
    for row in rows:
        assert set(row) == KEYS
        assert row["ours_s"] > 0
        case = CASES[row["rule"]]
        assert (row["flower_s"] is not None) == (case.flower is not None), row["rule"]
        if find_spec("byzfl"):
            assert (row["byzfl_s"] is not None) == (case.byzfl is not None), row["rule"]


def test_an_unknown_rule_is_an_error(tmp_path, capsys):
    with pytest.raises(SystemExit) as error:
        main(["--json", str(tmp_path / "t.json"), "--rules", "mode"])
    assert error.value.code == 2
    assert "unknown rules ['mode']" in capsys.readouterr().err
