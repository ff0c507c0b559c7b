"""The first screen: what was trained, by whom, what it cost in privacy, how good, how fair."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from common.config import Config
from common.figures import ENTITY_F1
from reporting.figures import task_figures
from reporting.page import Html, element, join
from reporting.source import Run
from reporting.words import count, interval, percent, points, power

MOST_CHIPS = 40


def opening(run: Run) -> Html:
    """Title, four figures and the partners."""
    final, config = run.final, run.config
    everyone = run.everyone
    kind = "Simulation" if run.simulated else "Deployed run"
    times = [e.body["time"] for e in run.entries]
    day = f" · {datetime.fromisoformat(times[-1]):%-d %B %Y}" if times else ""
    where = (
        "All partners were simulated on one machine."
        if run.simulated
        else "The texts stayed with the partners; what left them were model updates and counts."
    )
    task = config.about
    names = "" if not config.data.labels else f" ({', '.join(config.data.labels)})"
    return join(
        element("p", f"fedaccord · {kind}{day}", class_="over"),
        element("h1", f"A {task.noun} trained by {len(everyone)} partners"),
        element(
            "p",
            f"In {len(run.results['rounds'])} rounds {len(everyone)} partners trained one model "
            f"that {task.does(config.data)}{names}. {where}",
            class_="lead",
        ),
        _attack_notice(run),
        element(
            "dl",
            tile("How good", *_goodness(config, final)),
            tile("What it cost in privacy", *_spent(run)),
            tile("How fair", *_evenness(final)),
            tile("Attacks and refusals", *_trouble(run)),
            class_="tiles",
        ),
        element("h2", "Who took part"),
        _chips(everyone, run.attackers),
    )


def tile(title: str, value: str, more: str, tone: str = "") -> Html:
    """A figure with a title above and words below it."""
    return element(
        "div",
        element("dt", title),
        element("dd", value, class_="figure"),
        element("dd", more, class_="more"),
        class_=f"tile {tone}".strip(),
    )


def _goodness(config: Config, final: Mapping[str, Any]) -> tuple[str, str]:
    data = final["data"]
    if "entities" in final:
        where = "held-out texts" if data["measured_on"] == "test" else "the partners' own texts"
        return percent(final["entity_f1"]), (
            f"{ENTITY_F1.words} on {where}: the type and both ends of an entity must be right. "
            f"{percent(final['accuracy'])} of {data['measured_rows']:,.0f} words have the right "
            f"tag; the worst partner's F1 is {percent(final['worst_partner_entity_f1'])}."
        )
    headline = config.about.headline
    if headline is not None:
        own = task_figures(config, final)
        rest = "; ".join(f"{words} {shown}" for words, shown in own if words != headline.words)
        where = "held-out texts" if data["measured_on"] == "test" else "the partners' own texts"
        return headline.show(final[headline.name]), (
            f"{headline.words} on {count(data['measured_rows'], data['measured_rows_error'])} "
            f"{where}{f'; {rest}' if rest else ''}. Accuracy "
            f"{percent(final['accuracy'], final['accuracy_error'])}, where accuracy is "
            f"{config.about.accuracy_means}; worst partner's {headline.words} "
            f"{headline.show(final[f'worst_partner_{headline.name}'])}."
        )
    where = "held-out texts" if data["measured_on"] == "test" else "the partners' own texts"
    return percent(final["accuracy"], final["accuracy_error"]), (
        f"of {count(data['measured_rows'], data['measured_rows_error'])} {where} were classified "
        "correctly. Macro F1 "
        f"{percent(final['macro_f1'])}; partners from "
        f"{percent(final['worst_partner_accuracy'], final['worst_partner_accuracy_error'])}, on "
        f"average {percent(final['mean_partner_accuracy'], final['mean_partner_accuracy_error'])}."
    )


def _spent(run: Run) -> tuple[str, str, str]:
    epsilon = run.final["epsilon"]
    if not run.config.private:
        return "No guarantee", "The model was trained without differential privacy.", "warn"
    return (
        f"ε = {epsilon['max']:.2f}",
        f"at most, at δ = {power(epsilon['delta'])}, of the {run.epsilon_cap:g} "
        "allowed: how much one text at one partner can show in what that partner sent. Smaller "
        "is more private.",
        "",
    )


def _evenness(final: Mapping[str, Any]) -> tuple[str, str]:
    found = [
        (gap["value"], column, gap)
        for column, groups in final["fairness"]["groups"].items()
        if (gap := groups["gaps"]["accuracy"]) is not None
    ]
    worst = (
        "The worst partner is at "
        f"{percent(final['worst_partner_accuracy'], final['worst_partner_accuracy_error'])}, the "
        f"spread over partners {points(final['partner_accuracy_std'])}."
    )
    if not found:
        named = bool(final["fairness"]["groups"])
        why = "No two groups were large enough to compare" if named else "No groups were named"
        return "Not measured", f"{why}. {worst}"
    value, column, gap = max(found, key=lambda f: f[0])
    return points(value, gap["error"]), (
        f"between the accuracies for {column} {gap['high']} and {gap['low']} "
        f"(95 % interval {interval(gap['interval'])}). {worst}"
    )


def _trouble(run: Run) -> tuple[str, str, str]:
    counts = Counter(d["outcome"] for d in run.decisions)
    out = counts["refused"] + counts["dropped"]
    rest = (
        f"{counts['refused']} updates refused, {counts['dropped']} left out by the robust rule, "
        f"{counts['down-weighted']} given less weight, {counts['readmitted']} readmitted, "
        f"{counts['missing']} not received."
    )
    if run.attackers:
        return f"{len(run.attackers)} attacked", f"{_attack(run)} (simulated). {rest}", "warn"
    return (f"{out} rejected" if out else "None"), rest, "warn" if out else "good"


def _attack(run: Run) -> str:
    name = str(run.config.attack["_target_"]).rpartition(".")[2]
    spaced = "".join(f" {c.lower()}" if c.isupper() else c for c in name).strip()
    return spaced.capitalize()


def _attack_notice(run: Run) -> Html | None:
    if not run.attackers:
        return None
    return element(
        "p",
        element("b", "This model was trained under a simulated attack"),
        f" ({_attack(run).lower()}) by {', '.join(run.attackers)}. Use it for studying that only.",
        class_="notice",
    )


def _chips(names: Sequence[str], attackers: Sequence[str]) -> Html:
    def chip(name: str) -> Html:
        bad = name in attackers
        return element("li", f"{name} (attacker)" if bad else name, class_="warn" if bad else None)

    first = element("ul", *map(chip, names[:MOST_CHIPS]), class_="chips")
    if len(names) <= MOST_CHIPS:
        return first
    rest = element("ul", *map(chip, names[MOST_CHIPS:]), class_="chips")
    return join(
        first,
        element("details", element("summary", f"{len(names) - MOST_CHIPS} more partners"), rest),
    )
