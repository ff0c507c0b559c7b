"""The four-way study's figures, from results that are made up cell by cell."""

from __future__ import annotations

import json
from typing import Any
from xml.etree import ElementTree

import pytest

from sweeps.fourway import CELLS, FIGURES, HEAD, Cell, cells_of, markdown, rows
from sweeps.fourway_figure import draw, svg


def results(cell: Cell, seed: int) -> dict[str, Any]:
    accuracy = 0.8 - 0.05 * cell.dp - 0.2 * cell.attack + 0.1 * (cell.attack and cell.fair)
    accuracy += 0.01 * seed
    return {
        "config_hash": f"{cell.name}-{seed}",
        "final": {
            "accuracy": accuracy,
            "partners": {
                "a": {"accuracy": 0.1},
                "b": {"accuracy": accuracy - 0.1},
                "c": {"accuracy": accuracy + 0.1},
                "d": {"accuracy": None},
            },
            "fairness": {
                "groups": {
                    "g": {
                        "worst": "x",
                        "values": {"x": {"accuracy": accuracy - 0.2}},
                        "gaps": {"equalized_odds": {"value": 0.12 - 0.05 * cell.fair}},
                    },
                    "tiny": {"worst": None, "values": {}, "gaps": {"equalized_odds": None}},
                }
            },
            "epsilon": {"max": 7.9 if cell.dp else 0.0, "delta": 1e-5 if cell.dp else 0.0},
        },
    }


def document(seeds: list[int], left_out: tuple[Cell, int] | None = None) -> dict[str, Any]:
    found = {(cell, seed): results(cell, seed) for cell in CELLS for seed in seeds}
    if left_out:
        del found[left_out]
    switch = {"on": ["x=on"], "off": ["x=off"]}
    return {
        "base": ["run.rounds=3"],
        "switches": {"dp": switch, "attack": switch, "fair": switch},
        "seeds": seeds,
        "attackers": ["a"],
        "cells": cells_of(found, seeds, ["a"]),
    }


def test_the_eight_cells_and_their_names() -> None:
    assert sorted(cell.name for cell in CELLS) == sorted(
        ["none", "dp", "attack", "fair", "dp-attack", "dp-fair", "attack-fair", "dp-attack-fair"]
    )
    for quiet, attacked in zip(CELLS[::2], CELLS[1::2], strict=True):
        assert attacked.quiet == quiet


def test_figures_of_a_cell() -> None:
    cells = {cell["name"]: cell for cell in document([0, 2])["cells"]}
    mean, std = cells["dp-attack-fair"]["mean"], cells["dp-attack-fair"]["std"]
    assert mean["accuracy"] == pytest.approx(0.66)
    # The attacker's 0.1 is in no figure over partners, in any cell.
    assert mean["mean_partner_accuracy"] == pytest.approx(0.66)
    assert mean["worst_partner_accuracy"] == pytest.approx(0.56)
    assert mean["worst_group_accuracy"] == pytest.approx(0.46)
    assert mean["gap"] == pytest.approx(0.07)
    assert mean["epsilon"] == 7.9
    assert mean["attack_loss"] == pytest.approx(0.1)
    assert cells["dp-attack"]["mean"]["attack_loss"] == pytest.approx(0.2)
    assert cells["dp"]["mean"]["attack_loss"] is None
    assert std["accuracy"] == pytest.approx(0.02 / 2**0.5)
    assert [run["seed"] for run in cells["none"]["runs"]] == [0, 2]


def test_what_is_not_there_yet_is_null() -> None:
    found = document([0], (Cell(False, False, False), 0))
    cells = {cell["name"]: cell for cell in found["cells"]}
    assert cells["none"]["mean"] == dict.fromkeys(FIGURES)
    assert cells["attack"]["mean"]["attack_loss"] is None
    assert cells["attack"]["mean"]["accuracy"] == pytest.approx(0.6)
    assert cells["attack"]["std"]["accuracy"] is None
    json.dumps(found, allow_nan=False)
    assert rows(found)[0] == ["off", "off", "off", "0/1", *["-"] * len(FIGURES)]
    svg(found)


def test_the_table_shows_each_cell_once() -> None:
    text = markdown(document([0, 1]))
    lines = [line for line in text.splitlines() if line.startswith("| o")]
    assert len(lines) == 8
    assert all(line.count("|") == len(HEAD) + 1 for line in lines)
    assert lines[0].startswith("| off | off | off | 2/2 | 80.5 ± 0.7 |")
    assert "∞" in lines[0]
    assert "7.90 ± 0.00" in lines[-1]
    assert "`run.rounds=3`" in text


def test_the_figure_is_whole_and_the_same_every_time() -> None:
    found = document([0, 1])
    text = svg(found)
    assert text == svg(found)
    words = "".join(ElementTree.fromstring(text).itertext())
    for word in ("worst partner", "worst group", "private, ε = 7.9 + fair + attack", "no privacy"):
        assert word in words
    wide, gap, loss = draw(found).axes
    assert wide.get_yticklabels()[0].get_text() == "no privacy"
    means = wide.containers[0].lines[0].get_xdata()
    assert means[:4] == pytest.approx([80.5, 60.5, 80.5, 70.5])
    assert gap.containers[0].lines[0].get_xdata() == pytest.approx([12, 12, 7, 7] * 2)
    assert loss.containers[0].lines[0].get_xdata() == pytest.approx([20, 10] * 2)
