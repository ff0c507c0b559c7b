"""Every file of conf/sweep: it composes, and so does every trial that it stands for."""

from __future__ import annotations

from itertools import product

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode

from scripts.compose import CONF, compose_config
from scripts.sweep import create_hydra, typed
from strategies.attacks.simulate import build_attack
from strategies.build import build
from sweeps.plan import first_value, plan
from sweeps.study import space

SWEEPS = sorted(path.stem for path in (CONF / "sweep").glob("*.yaml"))
PARTNERS = 8


def test_all_are_there() -> None:
    assert {"privacy_utility", "robustness", "fairness", "tune_dp", "quick"} <= set(SWEEPS)


@pytest.mark.parametrize("name", SWEEPS)
def test_every_trial_composes(name: str) -> None:
    hydra = create_hydra()
    document = plan(hydra, [f"sweep={name}"], typed)
    tree = hydra.compose_config("config", [f"sweep={name}"], RunMode.MULTIRUN, False)
    params = [f"{key}={value}" for key, value in tree.hydra.sweeper.params.items()]
    parsed = OverridesParser.create().parse_overrides(params)
    assert document.swept == sorted(o.get_key_element() for o in parsed)
    choices = [
        [f"{o.get_key_element()}={x}" for x in o.sweep_string_iterator()]
        if o.is_discrete_sweep()
        else [first_value(o)]
        for o in parsed
    ]
    every = list(product(*choices))
    if "trials" not in tree.hydra.sweeper:
        assert document.planned == len(every)
    else:
        # The ends of the intervals are values too.
        assert set(space(parsed)[0]) == set(document.swept)
    for overrides in every:
        config = compose_config([f"sweep={name}", *overrides])
        build_attack(config.attack)
        build(config.strategy).check(PARTNERS)
