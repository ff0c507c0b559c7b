"""The sections of the model card that say how good, private, fair and robust the model is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.config import Config, malicious
from common.figures import MACRO_F1
from reporting.figures import gap_names, task_figures
from reporting.markdown import (
    code_list,
    escape,
    literal,
    noise,
    noisy,
    number,
    percent,
    points,
    table,
    with_interval,
)
from reporting.words import stage


def privacy(config: Config, results: Mapping[str, Any], simulated: bool) -> list[str]:
    """What was guaranteed, to whom, and under which assumptions."""
    head = ["## Privacy", ""]
    if not config.private:
        return [
            *head,
            "**No guarantee.** The model was trained without differential privacy, and may reveal "
            "what it was trained on.",
            *_client_level(results),
        ]
    spent = results["final"]["epsilon"]
    lines = [
        *head,
        f"Training was (ε, δ)-differentially private with **ε = {spent['max']:.3f}** (the largest "
        f"in any partner's ledger for this run; asked for: {config.privacy.epsilon:g}) and "
        f"**δ = {spent['delta']:g}**, for adding or removing **one record of one partner**.",
        "",
        f"Mechanism: DP-{config.train.optimizer.upper()} at the partner, with per-record gradients "
        f"clipped to norm {config.privacy.max_grad_norm:g} and Gaussian noise. The rounds are "
        "composed numerically (PRV); Rényi accounting cross-checks and bounds the result.",
        "",
        "This assumes that",
        "",
        "- every step samples each record independently (Poisson sampling), and the noise stays "
        "secret;",
        "- partners run the code that they installed; the coordinator and other partners may see "
        "every update;",
        f"- a person has one {unit(config)} at one partner; with several, their ε add up.",
        "",
        _covered(config),
    ]
    lines += _client_level(results)
    if simulated:
        lines += [
            "",
            "**In this simulation the noise was drawn from a seed.** Anyone who knows the seed and "
            "the settings can remove it. The figure is what the same settings guarantee in a "
            "deployment; it protects no record of this simulation.",
        ]
    return lines


def _client_level(results: Mapping[str, Any]) -> list[str]:
    found = results["final"].get("client_level")
    if not found:
        return []
    return [
        "",
        f"Whole partners are protected against those who see global models only: **ε = "
        f"{found['epsilon']:.3f}** at δ = {found['delta']:g}. The server clips updates to norm "
        f"{found['clip']:g} and adds noise of {found['noise_multiplier']:g} times that. This "
        "trusts the server, and does not cover the partners' reports on their validation rows.",
    ]


def _covered(config: Config) -> str:
    if not config.private_metrics:
        return (
            "It covers neither the counts and losses of validation rows, which are other records "
            "than those trained on, nor settings that were chosen by looking at private rows."
        )
    return (
        "It covers the number of training rows, and the counts and losses of validation rows, "
        f"which were released with noise (ε = {config.metrics_epsilon:g} asked for over the run). "
        "Validation rows are other records than those trained on, so a record bears the larger of "
        "the two. It does not cover settings that were chosen by looking at private rows."
    )


def evaluation(config: Config, results: Mapping[str, Any]) -> list[str]:
    """How good the model is, overall and at the partners."""
    final = results["final"]
    spread = final["fairness"]["partners"]
    data = final["data"]
    where = "held-out rows" if data["measured_on"] == "test" else "all partners' validation rows"
    task = config.about
    where = "words of " + where if task.target == "tags" else where
    own = [
        (f"{words} on the same", shown)
        for words, shown in task_figures(config, final)
        if words != MACRO_F1.words
    ]
    rows = [
        (
            f"accuracy on {data['measured_rows']:,.0f} {where}",
            noisy(final["accuracy"], final["accuracy_error"]),
        ),
        *(
            [(f"{MACRO_F1.words} on the same", MACRO_F1.show(final["macro_f1"]))]
            if task.classes
            else []
        ),
        *own,
        (
            "accuracy at the partners, mean ± standard deviation",
            f"{percent(spread['mean'])} ± {percent(spread['std'])}"
            f"{noise(final['mean_partner_accuracy_error'])}",
        ),
        (
            "worst partner",
            noisy(spread["worst"], final["worst_partner_accuracy_error"]),
        ),
        ("worst 10 % of partners", percent(spread["worst_decile"])),
        (
            "Jain's index, normalised entropy",
            f"{number(spread['jain'])}, {number(spread['entropy'])} (1 is even)",
        ),
    ]
    means = task.accuracy_means
    about = [] if means is None else [f"Accuracy here is {means}.", ""]
    return ["## Evaluation", "", *about, *table(("what", "value"), rows)]


def fairness(config: Config, results: Mapping[str, Any]) -> list[str]:
    """The figures of each group, and the largest differences between groups."""
    measured = results["final"]["fairness"]
    lines = ["## Fairness between groups", ""]
    if not measured["groups"]:
        return [*lines, "No group column was named, so nothing was measured."]
    labels = config.data.labels
    if config.task == "multilabel":
        kind = "; rates are of labels that a text has (TPR) and has not (FPR)"
    elif not config.about.classes:
        kind = ""
    elif len(labels) == 2:
        kind = f"; {code_list(labels[1:])} is the positive class"
    else:
        kind = "; rates are means over classes, each against the rest"
    lines.append(
        f"Brackets hold 95 % intervals (Wilson's for shares, Newcombe's for differences){kind}. "
        f"Groups of fewer than {measured['minimum_rows']} rows are marked and not compared."
    )
    for column, found in measured["groups"].items():
        rows = [
            (
                f"{literal(value) or '(none)'}{' (too few rows)' if row['small'] else ''}",
                f"{row['n']:,.0f}",
                with_interval(row["accuracy"], row["accuracy_interval"])
                + noise(row["accuracy_error"]),
                with_interval(row["tpr"], row.get("tpr_interval")) + noise(row.get("tpr_error")),
                with_interval(row["fpr"], row.get("fpr_interval")) + noise(row.get("fpr_error")),
            )
            for value, row in found["values"].items()
        ]
        gaps = [
            (
                name,
                points(gap["value"], gap["interval"]) + noise(gap["error"]),
                f"{literal(gap['high'])} over {literal(gap['low'])}",
            )
            if (gap := found["gaps"][key])
            else (name, "-", "too few rows to compare")
            for key, name in gap_names(config).items()
        ]
        lines += ["", f"### {escape(literal(column))}", ""]
        lines += table(("group", "rows", "accuracy", "TPR", "FPR"), rows)
        lines += ["", *table(("largest difference in", "value", "between"), gaps)]
    return lines


def robustness(config: Config, results: Mapping[str, Any]) -> list[str]:
    """How updates were merged, and what that tolerates."""
    strategy = config.strategy
    rule = strategy.get("robust") or {}
    pre = strategy.get("pre") or {}
    tolerated = (
        f"It is built to tolerate {rule['f']} malicious partner(s) in a round."
        if rule.get("f")
        else "It is **not** built to tolerate malicious partners."
    )
    refused = sum(row["refused"] for row in results["rounds"])
    rows = [
        ("before merging", ", ".join(stage(settings) for settings in pre.values()) or "nothing"),
        ("weights", stage(strategy.get("fair"))),
        ("rule", stage(rule)),
        ("appeal", stage(strategy.get("appeal"))),
    ]
    lines = ["## Robustness", "", *table(("stage", "setting"), rows), "", tolerated]
    lines += ["", f"{refused} update(s) were refused; `decisions.jsonl` of the run says why."]
    if config.attack.get("_target_"):
        names = malicious(config, sorted(results["final"]["partners"]))
        lines += [
            "",
            f"**This model was trained under a simulated attack**: {stage(config.attack)} by "
            f"{len(names)} partner(s). Use it only to study the attack.",
        ]
    return lines


def unit(config: Config) -> str:
    """What differential privacy protects one of, in words."""
    return config.data.unit if config.about.target == "tags" else "record"
