"""The composed stages: config to pipeline, a round end to end, records, resume."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from safetensors.torch import load, save

from common.errors import UserError
from strategies.attacks.simulate import build_attack
from strategies.build import build
from strategies.pipeline import Outcome, Pipeline, TooFewUpdates
from strategies.records import OUTCOMES, Decision, missing, refused
from strategies.updates import Cohort, Layout, Reply

CONF = Path(__file__).parents[2] / "conf"
LAYOUT = Layout(("a", "b"), ((5, 10), (14,)))
NAMES = [f"p{i}" for i in range(9)]
RULES = sorted(p.stem for p in (CONF / "strategy/robust").glob("*.yaml"))
FAIR = sorted(p.stem for p in (CONF / "strategy/fair").glob("*.yaml"))
SERVERS = sorted(p.stem for p in (CONF / "strategy/server").glob("*.yaml"))
ATTACKS = sorted(p.stem for p in (CONF / "attack").glob("*.yaml"))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("conf")
    (folder / "config.yaml").write_text(
        "defaults:\n  - strategy: plain\n  - attack: none\n  - _self_\n"
        f"hydra:\n  searchpath:\n    - file://{CONF}\n"
    )
    return folder


def composed(root: Path, *overrides: str) -> dict[str, Any]:
    with initialize_config_dir(str(root), version_base=None):
        config = compose("config", overrides=list(overrides))
    tree = OmegaConf.to_container(config, resolve=True)
    assert isinstance(tree, dict)
    # The stages have read it; the command removes it likewise (scripts/compose.py).
    tree["strategy"].pop("f", None)
    return tree


def pipeline(root: Path, *overrides: str) -> Pipeline:
    return build(composed(root, *overrides)["strategy"])


def replies(round: int, bad: int = 1, scale: float = 1.0) -> list[Reply]:
    g = torch.Generator().manual_seed(round)
    out = []
    for i, name in enumerate(NAMES):
        flat = 0.01 * torch.randn(LAYOUT.size, generator=g) + 0.02
        if i >= len(NAMES) - bad:
            flat = -30 * scale * flat
        metrics = {"loss": 0.4 + 0.1 * i, "examples": 100.0 + i, "gap": 0.02 * i, "accuracy": 0.5}
        out.append(Reply(name, LAYOUT.unflatten(flat), metrics))
    return out


def play(p: Pipeline, state=None, params=None, rounds=range(1, 4), total=3, **kwargs) -> Outcome:
    state = p.init(LAYOUT, NAMES) if state is None else state
    params = torch.zeros(LAYOUT.size) if params is None else params
    for r in rounds:
        cohort = Cohort(LAYOUT, NAMES)
        for reply in replies(r, **kwargs):
            if p.screening.check(reply, LAYOUT) is None:
                cohort.put(reply)
        outcome = p.aggregate(
            cohort,
            params,
            state,
            r,
            total,
            torch.Generator().manual_seed(r),
            evaluate=lambda u: float((u - 0.05).square().mean()),
            reference=torch.full((LAYOUT.size,), 0.02),
        )
        params, state = outcome.params, outcome.state
    return outcome


def test_the_users_words_choose_groups(root):
    tree = composed(
        root,
        "strategy/robust=geometric_median",
        "strategy/pre=[arc,nnm]",
        "strategy/fair=qffl",
        "strategy/appeal=on",
        "strategy/server=fedadam",
        "strategy.robust.f=2",
        "strategy.pre.nnm.f=2",
        "strategy.server.warmup_rounds=4",
    )["strategy"]
    p = build(tree)
    assert list(p.pre) == ["arc", "nnm"]
    assert [type(s).__name__ for s in p.pre.values()] == ["ARC", "NNM"]
    assert type(p.robust).__name__ == "GeometricMedian"
    assert p.robust.f == 2
    assert p.pre["nnm"].f == 2
    assert p.appeal is not None
    assert p.server.warmup_rounds == 4
    assert p.screening.required == ("loss",)
    turned = pipeline(root, "strategy/pre=[nnm,arc]")
    assert list(turned.pre) == ["nnm", "arc"]


def test_plain_is_plain(root):
    p = pipeline(root)
    assert (type(p.robust).__name__, type(p.fair).__name__) == ("Mean", "Uniform")
    assert p.pre == {}
    assert p.appeal is None
    assert p.screening.required == ()


def test_recommended_holds_for_ten_partners(root):
    p = pipeline(root, "strategy=recommended")
    p.check(10)
    assert p.appeal is not None


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_with_every_fair_weight_and_server(root, rule):
    for i, fair in enumerate(FAIR):
        # One malicious row in buckets of two holds the weight of two, which must stay under half.
        cap = [] if fair == "uniform" else ["strategy.fair.cap=0.2"]
        p = pipeline(
            root,
            *cap,
            f"strategy/robust={rule}",
            f"strategy/fair={fair}",
            f"strategy/server={SERVERS[i % len(SERVERS)]}",
            f"strategy/pre={['none', '[arc,nnm]', 'bucketing', 'static_clipping'][i % 4]}"
            if rule not in ("bulyan",)
            else f"strategy/pre={['none', '[arc,nnm]'][i % 2]}",
            f"strategy/appeal={['on', 'off'][i % 2]}",
        )
        p.check(len(NAMES))
        outcome = play(p)
        assert bool(torch.isfinite(outcome.params).all())
        assert [d.partner for d in outcome.decisions] == NAMES
        json.dumps([d.to_json() for d in outcome.decisions])
        assert all(d.outcome in OUTCOMES and d.reason.endswith(".") for d in outcome.decisions)
        total = sum(d.weight_given for d in outcome.decisions)
        assert total <= 1 + 1e-5
        assert sum(d.weight_asked for d in outcome.decisions) == pytest.approx(1.0)


@pytest.mark.parametrize("rule", RULES)
def test_a_resumed_run_equals_the_uninterrupted_one(root, rule):
    p = pipeline(
        root, f"strategy/robust={rule}", "strategy/fair=afl", "strategy/server=fedadam",
        "strategy/pre=bucketing" if rule != "bulyan" else "strategy/pre=none",
    )  # fmt: skip
    whole = play(p, total=4, rounds=range(1, 5))
    half = play(p, total=4, rounds=range(1, 3))
    saved = load(save({k: v.contiguous() for k, v in half.state.items()}))
    resumed = play(p, state=saved, params=half.params.clone(), total=4, rounds=range(3, 5))
    assert torch.equal(resumed.params, whole.params)
    assert resumed.decisions == whole.decisions


@pytest.mark.parametrize(
    ("overrides", "n", "message"),
    [
        (["strategy/robust=multi_krum"], 4, r"multi_krum needs n >= 2f\+3.*n=4, f=1"),
        (["strategy/robust=bulyan", "strategy.robust.f=2"], 10, r"bulyan needs n >= 4f\+3.*11"),
        (["strategy/robust=median", "strategy.robust.f=3"], 6, "median needs n > 2f.*n=6, f=3"),
        (["strategy/pre=nnm", "strategy.pre.nnm.f=5"], 10, "nnm needs n > 2f"),
        (["strategy/pre=[bucketing]", "strategy/robust=krum"], 8, "krum needs.*n=4, f=1"),
        (["strategy/fair=qffl"], 2, r"strategy\.fair\.cap.*0\.5 for n=2"),
        (["strategy/fair=qffl", "strategy/robust=median", "strategy.robust.f=2"], 9,
         r"strategy\.fair\.cap: 2 malicious partners could .* with 0\.4 .* below 0\.25"),
        (["strategy/fair=qffl", "strategy/robust=median", "strategy/pre=bucketing"], 9,
         r"1 malicious partners in their buckets .* below 0\.25"),
        (["strategy/robust=dnc", "strategy.robust.f=3", "strategy.robust.iterations=3"], 9,
         "dnc needs n > iterations"),
        (["strategy/robust=monna", "strategy.robust.pivot=9"], 9, "pivot < n"),
    ],
)  # fmt: skip
def test_preconditions_are_checked_before_the_first_round(root, overrides, n, message):
    p = pipeline(root, *overrides)
    with pytest.raises(UserError, match=message):
        p.check(n)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"robust": {"_target_": "strategies.robust.median.Median", "f": -1}},
         r"^strategy\.robust\.f: must be >= 0, got -1$"),
        ({"robust": {"_target_": "strategies.robust.median.Median", "g": 1}},
         r"^strategy\.robust\.g: is not a setting of Median; use one of f$"),
        ({"robust": {"_target_": "strategies.robust.median.Median", "f": "two"}},
         r"strategy\.robust\.f: must be a whole number, got 'two'"),
        ({"robust": {"_target_": "os.system"}}, r"strategy\.robust\._target_: must name a class"),
        ({"robust": {"_target_": "strategies.fair.uniform.Uniform"}}, "under strategies.robust"),
        ({"robust": {"_target_": "strategies.robust.no.No"}}, "no class strategies.robust.no"),
        ({"robust": {"_target_": "strategies.robust.median.torch"}}, "not a stage"),
        ({"robust": {"f": 1}}, r"strategy\.robust\._target_"),
        ({"robust": None}, r"strategy\.robust: is missing"),
        ({"robust": "median"}, r"strategy\.robust: must be a mapping"),
        ({"pre": {"nnm": {"_target_": "strategies.pre.nnm.NNM", "f": 0.5}}},
         r"strategy\.pre\.nnm\.f: must be a whole number"),
        ({"fairness": {}}, r"strategy\.fairness: unknown"),
        ({"appeal": {"_target_": "strategies.appeal.Verdict"}}, r"strategy\.appeal\."),
    ],
)  # fmt: skip
def test_wrong_settings_are_one_line_that_names_the_key(root, change, message):
    tree = {**composed(root)["strategy"], **change}
    with pytest.raises(UserError, match=message) as error:
        build(tree)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("attack", ATTACKS)
def test_every_attack_has_a_configuration(root, attack):
    tree = composed(root, f"attack={attack}")["attack"]
    assert {"_target_", "partners", "count"} <= set(tree)
    # Attacks on data belong to the partners.
    assert (build_attack(tree) is None) == (attack in ("none", "label_flip", "backdoor"))


def test_records_say_what_happened_in_words(root):
    p = pipeline(root, "strategy/robust=multi_krum", "strategy/pre=arc", "strategy/appeal=on")
    decisions = {d.partner: d for d in play(p).decisions}
    bad = decisions["p8"]
    assert bad.outcome == "dropped"
    assert bad.weight_given == 0
    assert bad.weight_asked == pytest.approx(1 / 9)
    assert bad.score_name == "distance score"
    accepted = [d.score for d in decisions.values() if d.partner != "p8"]
    assert bad.score > max(accepted)
    assert "Multi-Krum left it out: its distance score" in bad.reason
    assert "above the 8 accepted" in bad.reason
    assert "its appeal failed, it hurt on public data" in bad.reason
    assert bad.clipped_to < bad.norm
    assert decisions["p0"].outcome == "merged"
    assert sum(d.weight_given for d in decisions.values()) == pytest.approx(1.0)


def test_a_clipped_update_is_recorded_as_clipped(root):
    p = pipeline(root, "strategy/pre=static_clipping", "strategy.pre.static_clipping.max_norm=0.5")
    decisions = {d.partner: d for d in play(p).decisions}
    assert decisions["p8"].outcome == "clipped"
    assert decisions["p8"].clipped_to == pytest.approx(0.5)
    assert "clipping its norm" in decisions["p8"].reason
    assert decisions["p0"].outcome == "merged"


def test_mixing_is_traced_back_to_partners(root):
    p = pipeline(root, "strategy/pre=nnm")
    decisions = {d.partner: d for d in play(p).decisions}
    # Of nine mixed rows each averages eight: the odd one out is in its own mixture only.
    assert decisions["p8"].weight_given == pytest.approx(1 / 9 / 8)
    assert decisions["p8"].outcome == "down-weighted"


def test_refused_and_missing_partners_have_records():
    assert refused("p1", 3, "the update holds NaN").to_json()["outcome"] == "refused"
    record = missing("p1", 3, "no reply before the deadline").to_json()
    assert (record["partner"], record["round"], record["norm"]) == ("p1", 3, None)
    with pytest.raises(ValueError, match="unknown outcome"):
        Decision("p1", 1, "lost", "?")


@given(
    value=st.sampled_from([math.nan, math.inf, -math.inf, 3e38, -1e30]),
    where=st.integers(0, 63),
    who=st.integers(0, 8),
    rule=st.sampled_from(RULES),
)
@settings(max_examples=60, deadline=None)
def test_nan_and_inf_never_reach_the_merge_even_unscreened(root, value, where, who, rule):
    p = pipeline(root, f"strategy/robust={rule}") if rule not in CACHE else CACHE[rule]
    CACHE[rule] = p
    cohort = Cohort(LAYOUT, NAMES)
    for i, reply in enumerate(replies(1, bad=0)):
        flat = LAYOUT.flatten(reply.delta)
        if i == who:
            flat[where] = value
        cohort.put(Reply(reply.partner, LAYOUT.unflatten(flat), reply.metrics))
    outcome = p.aggregate(
        cohort, torch.zeros(64), p.init(LAYOUT, NAMES), 1, 1, torch.Generator(),
        reference=torch.full((64,), 0.02),
    )  # fmt: skip
    assert bool(torch.isfinite(outcome.params).all())
    assert outcome.decisions[who].outcome == "refused"
    assert [d.partner for d in outcome.decisions] == NAMES
    assert float(outcome.update.norm()) < 1.0


CACHE: dict[str, Pipeline] = {}


def test_too_few_replies_is_an_error_that_changes_nothing(root):
    p = pipeline(root, "strategy/robust=multi_krum")
    cohort = Cohort(LAYOUT, NAMES)
    state, params = p.init(LAYOUT, NAMES), torch.zeros(LAYOUT.size)
    args = (params, state, 1, 1, torch.Generator())
    with pytest.raises(UserError, match="round 1: no update was accepted"):
        p.aggregate(cohort, *args)
    for reply in replies(1)[:4]:
        cohort.put(reply)
    with pytest.raises(TooFewUpdates, match="multi_krum needs"):
        p.aggregate(cohort, *args)


def test_a_skipped_round_changes_nothing_and_says_why(root):
    p = pipeline(root, "strategy/robust=multi_krum", "strategy/server=fedadam")
    state, params = p.init(LAYOUT, NAMES), torch.ones(LAYOUT.size)
    cohort = Cohort(LAYOUT, NAMES)
    for reply in replies(1)[:4]:
        cohort.put(reply)
    cohort.matrix[3, 0] = math.inf
    outcome = p.skipped(cohort, params, state, 2, "multi_krum needs n >= 2f+3")
    assert torch.equal(outcome.params, params)
    assert outcome.state.keys() == state.keys()
    assert not bool(outcome.update.any())
    assert [d.outcome for d in outcome.decisions] == ["dropped"] * 3 + ["refused"]
    assert outcome.decisions[0].reason == "The round merged nothing: multi_krum needs n >= 2f+3."
    assert outcome.decisions[0].weight_given == 0


def test_equal_weights_where_too_few_are_left_for_the_cap(root):
    # Nobody may hold more than 0.4; of two that are left each holds half, whatever they claim.
    p = pipeline(root, "strategy/fair=qffl")
    cohort = Cohort(LAYOUT, NAMES)
    for reply in replies(1)[:2]:
        cohort.put(reply)
    args = (torch.zeros(LAYOUT.size), p.init(LAYOUT, NAMES), 1, 1, torch.Generator())
    outcome = p.aggregate(cohort, *args)
    assert [d.weight_asked for d in outcome.decisions] == [0.5, 0.5]


def test_what_a_stage_needs_is_asked_for(root):
    cohort = Cohort(LAYOUT, NAMES)
    for reply in replies(1):
        cohort.put(reply)
    args = (torch.zeros(LAYOUT.size), {}, 1, 1, torch.Generator())
    trusting = pipeline(root, "strategy/robust=fltrust", "strategy/server=fedavg")
    assert trusting.needs_reference
    with pytest.raises(UserError, match="fltrust needs the server's own update"):
        trusting.aggregate(cohort, *args)
    with pytest.raises(UserError, match="public validation set"):
        pipeline(root, "strategy/appeal=on").aggregate(cohort, *args)


def test_aggregate_changes_neither_the_cohort_nor_the_parameters_nor_the_state(root):
    p = pipeline(root, "strategy=recommended")
    cohort = Cohort(LAYOUT, NAMES)
    for reply in replies(1):
        cohort.put(reply)
    before = cohort.matrix.clone()
    params, state = torch.zeros(LAYOUT.size), p.init(LAYOUT, NAMES)
    kept = {k: v.clone() for k, v in state.items()}
    p.aggregate(cohort, params, state, 1, 2, torch.Generator(), lambda u: float(u.norm()))
    assert torch.equal(cohort.matrix, before)
    assert not bool(params.any())
    assert all(torch.equal(state[k], kept[k]) for k in kept)


def test_the_aggregator_for_tuned_attacks_is_the_rule_in_use(root):
    p = pipeline(root, "strategy/robust=trimmed_mean", "strategy/pre=[arc,nnm]")
    cohort = Cohort(LAYOUT, NAMES)
    for reply in replies(1):
        cohort.put(reply)
    state = p.init(LAYOUT, NAMES)
    outcome = p.aggregate(
        cohort, torch.zeros(LAYOUT.size), state, 1, 1, torch.Generator().manual_seed(4)
    )
    told = dict(zip(cohort.partners, cohort.metrics, strict=True))
    merged = p.aggregator(told, state, seed=4)
    assert torch.equal(merged(cohort.matrix), outcome.update)


def test_the_aggregator_for_tuned_attacks_weighs_as_the_round_does(root):
    # AFL remembers partners: in the second round the weights hang on its state.
    p = pipeline(root, "strategy/fair=afl", "strategy.fair.lr=1.0")
    state = play(p, rounds=range(1, 2)).state
    cohort = Cohort(LAYOUT, NAMES)
    for reply in replies(2):
        cohort.put(reply)
    outcome = p.aggregate(cohort, torch.zeros(LAYOUT.size), state, 2, 2, torch.Generator())
    told = dict(zip(cohort.partners, cohort.metrics, strict=True))
    turned = dict(reversed(told.items()))
    merged = p.aggregator(turned, state, seed=0)
    torch.testing.assert_close(merged(cohort.matrix.flip(0)), outcome.update)
    # One that tells nothing (it has no validation rows) leaves equal weights.
    lacking = p.aggregator({**told, NAMES[0]: {"examples": 9.0}}, state, seed=0)
    torch.testing.assert_close(lacking(cohort.matrix), cohort.matrix.mean(0))
