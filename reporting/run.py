"""The report of one run: what was trained, by whom, at what cost in privacy, how good, how fair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from common.figures import MACRO_F1
from common.files import write_atomic
from reporting.charts import Point, Row, Series, figure, lines, room, rows, table
from reporting.decisions import decisions_section
from reporting.fairness import fairness_section
from reporting.figures import task_figures
from reporting.opening import opening
from reporting.page import Html, document, element, join
from reporting.source import Run, read_run
from reporting.words import count, decimal, duration, memory, percent, points, power, stage

NAME = "report.html"
MOST_ROWS = 60


def write_report(directory: Path) -> Path:
    """Write `report.html` into a run directory and return its path.

    Raises UserError when the directory does not hold a finished run.
    """
    path = directory / NAME
    write_atomic(path, run_report(read_run(directory)))
    return path


def run_report(run: Run) -> str:
    """The page; the same run gives the same text."""
    parts = [
        ("accuracy", "Accuracy", join(*_accuracy(run))),
        ("privacy", "Privacy", join(*_privacy(run))),
        ("fairness", "Fairness between groups", join(*fairness_section(run))),
        ("decisions", "Decisions", join(*decisions_section(run.decisions, run.everyone))),
        ("cost", "Cost", join(*_cost(run))),
        ("record", "Record", join(*_record(run))),
    ]
    return document(
        f"fedaccord report: {len(run.everyone)} partners",
        opening(run),
        parts,
        f"Made by fedaccord {version('fedaccord')} from results.json, decisions.jsonl, audit.jsonl "
        "and config.yaml of the run. This page loads nothing from anywhere.",
    )


def _accuracy(run: Run) -> list[Html]:
    final, history = run.final, run.results["rounds"]
    data, spread = final["data"], final["fairness"]["partners"]
    where = "held-out texts" if data["measured_on"] == "test" else "the partners' validation texts"
    own = task_figures(run.config, final)
    facts = [
        ["accuracy", percent(final["accuracy"], final["accuracy_error"])],
        *([[MACRO_F1.words, percent(final["macro_f1"])]] if run.config.about.classes else []),
        *([words, shown] for words, shown in own if words != MACRO_F1.words),
        ["loss", decimal(final["loss"], final["loss_error"])],
        ["mean over partners", percent(spread["mean"], final["mean_partner_accuracy_error"])],
        ["standard deviation over partners", points(spread["std"])],
        ["worst partner", percent(spread["worst"], final["worst_partner_accuracy_error"])],
        ["worst tenth of the partners", percent(spread["worst_decile"])],
        ["evenness (Jain's index, 1 is even)", decimal(spread["jain"])],
    ]
    found = [
        element(
            "p",
            f"The delivered model, measured on "
            f"{count(data['measured_rows'], data['measured_rows_error'])} {where}; "
            "partners each on validation texts of their own.",
        )
    ]
    if run.config.about.accuracy_means is not None:
        means = f"Accuracy here is {run.config.about.accuracy_means}."
        found.append(element("p", means, class_="note"))
    if history:
        found.append(_over_rounds(history))
    found.append(_by_partner(run))
    found.append(table(["figure", "value"], facts, "Final figures"))
    return found


def _over_rounds(history: Sequence[Mapping[str, Any]]) -> Html:
    columns = {
        "held-out texts": "accuracy",
        "mean of partners": "mean_partner_accuracy",
        "worst partner": "worst_partner_accuracy",
    }
    series = [
        Series(
            name,
            [r[key] for r in history],
            [r["partner_accuracy_std"] for r in history] if name == "mean of partners" else None,
        )
        for name, key in columns.items()
        if any(r[key] is not None for r in history)
    ]
    known = [y for one in series for y in one.ys if y is not None]
    known += [
        r["mean_partner_accuracy"] + sign * r["partner_accuracy_std"]
        for r in history
        for sign in (-1, 1)
        if r["mean_partner_accuracy"] is not None and r["partner_accuracy_std"] is not None
    ]
    alternative = table(
        ["round", *columns, "std of partners", "loss", "replies", "refused", "missing"],
        [
            [
                str(r["round"]),
                *(percent(r[key], r.get(f"{key}_error", 0.0)) for key in columns.values()),
                points(r["partner_accuracy_std"]),
                decimal(r["loss"]),
                str(r["replies"]),
                str(r["refused"]),
                str(r["missing"]),
            ]
            for r in history
        ],
        "Accuracy by round",
    )
    drawing = lines(
        [r["round"] for r in history],
        series,
        "Accuracy of the global model after each round",
        room(known, 0.1, 0.0, 1.0),
        show=lambda y: f"{100 * y:.3g} %",
        x_name="round",
    )
    return figure(
        "Accuracy after each round",
        "The band is one standard deviation over partners to each side of their mean.",
        drawing,
        alternative,
    )


def _worst_first(
    items: Mapping[str, Mapping[str, Any]], key: str, largest: bool = False
) -> tuple[list[str], int]:
    """At most MOST_ROWS names, by name, and how many are left out; the worst by `key` are kept."""
    names = sorted(items)
    if len(names) <= MOST_ROWS:
        return names, 0

    def rank(name: str) -> float:
        value = items[name][key]
        return 0.0 if value is None else (-value if largest else value)

    kept = sorted(names, key=rank)[:MOST_ROWS]
    return sorted(kept), len(names) - MOST_ROWS


def _left_out(count: int, what: str) -> str:
    return f" The table has {count} more partners, {what}." if count else ""


def _by_partner(run: Run) -> Html:
    partners = run.final["partners"]
    names, left = _worst_first(partners, "accuracy")
    known = [p["accuracy"] for p in partners.values() if p["accuracy"] is not None]
    items = [
        Row(
            name,
            _accuracy_points(partners[name]["accuracy"], name in run.attackers),
            percent(partners[name]["accuracy"], partners[name]["accuracy_error"]),
            "attacker" if name in run.attackers else "",
        )
        for name in names
    ]
    alternative = table(
        ["partner", "accuracy", "share of all weight", "rounds refused or missing"],
        [
            [
                name,
                percent(p["accuracy"], p["accuracy_error"]),
                percent(p["weight_share"]),
                str(p["refused_rounds"]),
            ]
            for name, p in sorted(partners.items())
        ],
        "Partners",
    )
    drawing = rows(
        items, room(known, 0.1, 0.0, 1.0), "Accuracy by partner", show=lambda v: f"{100 * v:.3g} %"
    )
    text = "Each partner's own validation texts." + _left_out(left, "all better than these")
    return figure("Accuracy at each partner", text, drawing, alternative)


def _accuracy_points(value: float | None, attacker: bool) -> list[Point]:
    if value is None:
        return []
    return [Point(value, tone=2, shape="triangle") if attacker else Point(value)]


def _privacy(run: Run) -> list[Html]:
    config, final = run.config, run.final
    if not config.private:
        return [
            element(
                "p",
                "The model was trained without differential privacy: nothing bounds how much the "
                "updates or the model reveal of a single text.",
                class_="notice",
            )
        ]
    epsilon = final["epsilon"]
    seeded = (
        " In a simulation the noise is seeded so that it can be repeated; a deployment takes it "
        "from each partner's operating system."
        if run.simulated
        else ""
    )
    return [
        element(
            "p",
            f"Every partner trained under differential privacy for single texts: "
            f"ε ≤ {epsilon['max']:.4f} at δ = {power(epsilon['delta'])}, by the partners' ledgers. "
            "It bounds how much any one text can change what its partner sends, for somebody who "
            "sees all rounds, and so how much the model can reveal of it.",
        ),
        element(
            "p",
            "The guarantee is per text, not per person: a person with several texts is protected "
            f"less.{seeded}",
            class_="note",
        ),
        *_other_noise(run),
        _spent_by_partner(run),
    ]


def _spent_by_partner(run: Run) -> Html:
    """The epsilon of each partner against the run's limit."""
    cap, partners = run.epsilon_cap, run.final["partners"]
    names, left = _worst_first(partners, "epsilon", largest=True)
    items = [
        Row(
            name,
            [
                Point(
                    partners[name]["epsilon"], title=f"{name}: ε = {partners[name]['epsilon']:.4f}"
                )
            ],
            f"{partners[name]['epsilon']:.2f}",
            bar=True,
        )
        for name in names
    ]
    top = 1.08 * max([cap, *(p["epsilon"] for p in partners.values())])
    alternative = table(
        ["partner", "ε spent", "ε allowed in this run", "share spent"],
        [
            [name, f"{p['epsilon']:.4f}", f"{cap:g}", percent(p["epsilon"] / cap)]
            for name, p in sorted(partners.items())
        ],
        "ε by partner",
    )
    drawing = rows(
        items,
        (0.0, top),
        "ε by partner",
        show=lambda v: f"{v:g}",
        limit=(cap, f"allowed: ε = {cap:g}"),
    )
    text = f"The ledger's ε for this run, against the {cap:g} that the run allows."
    return figure(
        "ε spent by each partner",
        text + _left_out(left, "with no more spent"),
        drawing,
        alternative,
    )


def _other_noise(run: Run) -> list[Html]:
    """What else is protected: the partners' measurements, and partners as a whole."""
    found = []
    if run.final["data"].get("partner_metrics") == "private":
        found.append(
            "The figures that partners report carry noise of their own, for validation texts: "
            f"ε ≤ {run.config.metrics_epsilon:g}. ± beside such a figure is the standard error of "
            "that noise, which intervals do not cover."
        )
    if level := run.final.get("client_level"):
        found.append(
            f"Whole partners are protected as well: ε = {level['epsilon']:.4f} at δ = "
            f"{power(level['delta'])}, by noise that the coordinator adds to the merged update."
        )
    return [element("p", text, class_="note") for text in found]


def _cost(run: Run) -> list[Html]:
    cost, rounds = run.results["cost"], len(run.results["rounds"])
    up, down = cost["bytes_up_per_partner_round"], cost["bytes_down_per_partner_round"]
    facts = [
        ["time from start to results", duration(cost["wall_seconds"])],
        ["partners' time in training steps, summed", duration(cost["train_seconds"])],
        [
            "partners' time in frozen layers, once for a training text",
            duration(cost["frozen_seconds"]),
        ],
        ["partners' time in all, summed", duration(cost["partner_seconds"])],
        ["training speed of one partner", f"{cost['train_examples_per_second']:,.0f} texts/s"],
        ["sent by a partner in a round", memory(up)],
        ["sent to a partner in a round", memory(down)],
        ["largest memory of all processes", memory(1e6 * cost["peak_rss_mb"])],
    ]
    seconds = [r["seconds"] for r in run.results["rounds"]]
    found = [table(["what", "figure"], facts, "Cost of the run")]
    if seconds:
        mean = sum(seconds) / len(seconds)
        found.append(
            element(
                "p",
                f"{rounds} rounds of {duration(mean)} on average, from {duration(min(seconds))} "
                f"to {duration(max(seconds))}.",
                class_="note",
            )
        )
    return found


def _record(run: Run) -> list[Html]:
    config, strategy = run.config, run.config.strategy
    pre = [stage(s) for s in (strategy.get("pre") or {}).values()]
    facts = [
        ["configuration", run.results["config_hash"]],
        ["seed", str(run.results["seed"])],
        [
            "base model",
            config.model.base if not Path(config.model.base).is_absolute() else "a local folder",
        ],
        [
            "trained part",
            f"{config.model.trainable}, {config.model.layers} layers, {config.model.head} head",
        ],
        ["data", config.data.source],
        ["before merging", ", ".join(pre) or "nothing"],
        ["weights", stage(strategy.get("fair"))],
        ["merging rule", stage(strategy.get("robust"))],
        ["appeal", stage(strategy.get("appeal"))],
        ["server optimiser", stage(strategy.get("server"))],
    ]
    if run.entries:
        facts.append(["audit log", f"{len(run.entries)} entries, last hash {run.entries[-1].hash}"])
    return [
        element(
            "p",
            "Verify the run directory against its audit log with ",
            element("code", "fedaccord verify RUNDIR"),
            ", and compare the last hash with a copy that was kept elsewhere. The model's card "
            "(model/README.md) says what the model is for.",
        ),
        table(["what", "value"], facts, "Settings and identity"),
    ]
