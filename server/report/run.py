"""The report of one run: what was trained, by whom, at what cost in privacy, how good, how fair."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from common.files import write_atomic
from server.card import GAP_NAMES
from server.report.charts import (
    Point,
    Row,
    Series,
    figure,
    lines,
    percent,
    room,
    rows,
    table,
)
from server.report.decisions import decisions_section
from server.report.page import Html, document, element, join
from server.report.source import Run, read_run

NAME = "report.html"
MOST_CHIPS, MOST_ROWS = 40, 60


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
        ("fairness", "Fairness between groups", join(*_fairness(run))),
        ("decisions", "Decisions", join(*decisions_section(run.decisions, _everyone(run)))),
        ("cost", "Cost", join(*_cost(run))),
        ("record", "Record", join(*_record(run))),
    ]
    return document(
        f"fedaccord report: {_task(run)}",
        _opening(run),
        parts,
        f"Made by fedaccord {version('fedaccord')} from results.json, decisions.jsonl, audit.jsonl "
        "and config.yaml of the run. This page loads nothing from anywhere.",
    )


def _everyone(run: Run) -> list[str]:
    started = [e.body["partners"] for e in run.entries if e.kind == "started"]
    return sorted({*run.final["partners"], *(name for names in started for name in names)})


def _task(run: Run) -> str:
    labels = run.config.data.labels
    return " / ".join(labels) if len(labels) <= 4 else f"{len(labels)} labels"


def _opening(run: Run) -> Html:
    final, config = run.final, run.config
    everyone = _everyone(run)
    kind = "Simulation" if run.simulated else "Deployed run"
    times = [e.body["time"] for e in run.entries]
    day = f" · {datetime.fromisoformat(times[-1]):%-d %B %Y}" if times else ""
    where = (
        "All partners were simulated on one machine."
        if run.simulated
        else "The texts stayed with the partners; what left them were model updates and counts."
    )
    return join(
        element("p", f"fedaccord · {kind}{day}", class_="over"),
        element("h1", f"A text classifier trained by {len(everyone)} partners"),
        element(
            "p",
            f"In {len(run.results['rounds'])} rounds {len(everyone)} partners trained one model "
            f"that assigns a text to one of {len(config.data.labels)} labels "
            f"({', '.join(config.data.labels)}). {where}",
            class_="lead",
        ),
        _attack_notice(run),
        element(
            "dl",
            _tile("How good", *_goodness(final)),
            _tile("What it cost in privacy", *_spent(run)),
            _tile("How fair", *_evenness(final)),
            _tile("Attacks and refusals", *_trouble(run)),
            class_="tiles",
        ),
        element("h2", "Who took part"),
        _chips(everyone, run.attackers),
    )


def _tile(title: str, value: str, more: str, tone: str = "") -> Html:
    return element(
        "div",
        element("dt", title),
        element("dd", value, class_="figure"),
        element("dd", more, class_="more"),
        class_=f"tile {tone}".strip(),
    )


def _goodness(final: Mapping[str, Any]) -> tuple[str, str]:
    data = final["data"]
    where = "held-out texts" if data["measured_on"] == "test" else "the partners' own texts"
    return percent(final["accuracy"]), (
        f"of {data['measured_rows']:,.0f} {where} were classified correctly. Macro F1 "
        f"{percent(final['macro_f1'])}; partners from {percent(final['worst_partner_accuracy'])}, "
        f"on average {percent(final['mean_partner_accuracy'])}."
    )


def _spent(run: Run) -> tuple[str, str, str]:
    epsilon = run.final["epsilon"]
    if not run.config.private:
        return "No guarantee", "The model was trained without differential privacy.", "warn"
    return (
        f"ε = {epsilon['max']:.2f}",
        f"at most, at δ = {epsilon['delta']:g}, of the {run.config.privacy.epsilon:g} allowed: "
        "how much one text at one partner can show in what that partner sent. Smaller is more "
        "private.",
        "",
    )


def _evenness(final: Mapping[str, Any]) -> tuple[str, str]:
    found = [
        (gap["value"], column, gap)
        for column, groups in final["fairness"]["groups"].items()
        if (gap := groups["gaps"]["accuracy"]) is not None
    ]
    worst = (
        f"The worst partner is at {percent(final['worst_partner_accuracy'])}, the spread over "
        f"partners {_points(final['partner_accuracy_std'])}."
    )
    if not found:
        return "-", f"No two groups were large enough to compare. {worst}"
    value, column, gap = max(found, key=lambda f: f[0])
    return _points(value), (
        f"between the accuracies for {column} {gap['high']} and {gap['low']} "
        f"(95 % interval {_interval_points(gap['interval'])}). {worst}"
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


def _accuracy(run: Run) -> list[Html]:
    final, history = run.final, run.results["rounds"]
    data, spread = final["data"], final["fairness"]["partners"]
    where = "held-out texts" if data["measured_on"] == "test" else "the partners' validation texts"
    facts = [
        ["accuracy", percent(final["accuracy"])],
        ["macro F1", percent(final["macro_f1"])],
        ["loss", _figure(final["loss"])],
        ["mean over partners", percent(spread["mean"])],
        ["standard deviation over partners", _points(spread["std"])],
        ["worst partner", percent(spread["worst"])],
        ["worst tenth of the partners", percent(spread["worst_decile"])],
        ["evenness (Jain's index, 1 is even)", _figure(spread["jain"])],
    ]
    found = [
        element(
            "p",
            f"The delivered model, measured on {data['measured_rows']:,.0f} {where}; "
            "partners each on validation texts of their own.",
        )
    ]
    found.append(table(["figure", "value"], facts, "Final figures"))
    if history:
        found.append(_over_rounds(history))
    found.append(_by_partner(run))
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
                *(percent(r[key]) for key in columns.values()),
                _points(r["partner_accuracy_std"]),
                _figure(r["loss"]),
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
    return f" {count} more partners, {what}, stand in the table." if count else ""


def _by_partner(run: Run) -> Html:
    partners = run.final["partners"]
    names, left = _worst_first(partners, "accuracy")
    known = [p["accuracy"] for p in partners.values() if p["accuracy"] is not None]
    items = [
        Row(
            name,
            _accuracy_points(partners[name]["accuracy"], name in run.attackers),
            percent(partners[name]["accuracy"]),
            "attacker" if name in run.attackers else "",
        )
        for name in names
    ]
    alternative = table(
        ["partner", "accuracy", "share of all weight", "rounds refused or missing"],
        [
            [
                name,
                percent(p["accuracy"]),
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
                "The model was trained without differential privacy: nothing bounds how much of a "
                "single text can be found out from the updates or from the model.",
                class_="notice",
            )
        ]
    epsilon, cap, partners = final["epsilon"], config.privacy.epsilon, final["partners"]
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
            f"ε ≤ {epsilon['max']:.4f} at δ = {epsilon['delta']:g}, from each partner's ledger. "
            "It bounds how much the presence of any one text can change what its partner sent, "
            "for whoever sees all rounds, and so what the model can show of it.",
        ),
        element(
            "p",
            "The guarantee is per text, not per person: somebody with several texts is protected "
            f"less.{seeded}",
            class_="note",
        ),
        figure(
            "ε spent by each partner",
            f"What the ledger holds for this run, against the {cap:g} that the run allows."
            + _left_out(left, "with no more spent"),
            rows(
                items,
                (0.0, top),
                "ε by partner",
                show=lambda v: f"{v:g}",
                limit=(cap, f"allowed: ε = {cap:g}"),
            ),
            alternative,
        ),
    ]


def _fairness(run: Run) -> list[Html]:
    fairness = run.final["fairness"]
    if not fairness["groups"]:
        return [
            element(
                "p",
                "No group column was named (data.columns.groups), so nothing can be said about "
                "groups.",
            )
        ]
    data = run.final["data"]
    found = [
        element(
            "p",
            f"Measured on {data['measured_rows']:,.0f} texts. Whiskers and brackets are 95 % "
            f"intervals for which texts happened to be measured. A group of fewer than "
            f"{fairness['minimum_rows']} texts is marked small, and enters no ranking and no gap.",
        )
    ]
    for column, groups in fairness["groups"].items():
        found += _column(column, groups)
    return found


def _column(column: str, groups: Mapping[str, Any]) -> list[Html]:
    values = groups["values"]
    names = sorted(values, key=lambda v: (values[v]["small"], values[v]["accuracy"] or 0.0))
    known = [
        end
        for name in names[:MOST_ROWS]
        for end in _known_interval(values[name]["accuracy_interval"]) or ()
    ]
    items = []
    for name in names[:MOST_ROWS]:
        row = values[name]
        note = f"{row['n']:,.0f} texts"
        if row["small"]:
            note += ", small: not ranked"
        elif name == groups["worst"]:
            note += ", the lowest"
        items.append(Row(name, _group_points(row), percent(row["accuracy"]), note))
    alternative = table(
        [column, "texts", "accuracy", "95 % interval", "TPR", "FPR", "note"],
        [
            [
                name,
                f"{values[name]['n']:,.0f}",
                percent(values[name]["accuracy"]),
                _interval(values[name]["accuracy_interval"]),
                percent(values[name]["tpr"]),
                percent(values[name]["fpr"]),
                "small" if values[name]["small"] else "",
            ]
            for name in names
        ],
        f"Groups of {column}",
    )
    more = f" The {MOST_ROWS} lowest of {len(names)}." if len(names) > MOST_ROWS else ""
    drawing = rows(
        items,
        room(known, 0.1, 0.0, 1.0),
        f"Accuracy by {column}",
        show=lambda v: f"{100 * v:.3g} %",
    )
    text = f"Filled marks: groups that are large enough to compare; hollow: small.{more}"
    return [
        element("h3", f"Groups of {column}"),
        figure(f"Accuracy by {column}", text, drawing, alternative),
        *_gaps(column, groups),
    ]


def _group_points(row: Mapping[str, Any]) -> list[Point]:
    if row["accuracy"] is None:
        return []
    interval = _known_interval(row["accuracy_interval"])
    if row["small"]:
        return [Point(row["accuracy"], interval, tone=5, shape="diamond", hollow=True)]
    return [Point(row["accuracy"], interval)]


def _gaps(column: str, groups: Mapping[str, Any]) -> list[Html]:
    items, lines_ = [], []
    for name, words in GAP_NAMES.items():
        gap = groups["gaps"][name]
        if gap is None:
            items.append(Row(words, [], "-", "not enough texts"))
            lines_.append([words, "-", "-", "-"])
            continue
        pair = f"{gap['high']} over {gap['low']}"
        low, high = gap["interval"]
        items.append(
            Row(words, [Point(gap["value"], (low, high), 4, "square")], _points(gap["value"]), pair)
        )
        lines_.append([words, _points(gap["value"]), _interval_points(gap["interval"]), pair])
    ends = [
        end
        for gap in groups["gaps"].values()
        if gap is not None
        for end in (*gap["interval"], gap["value"], 0.0)
    ]
    alternative = table(["gap", "points", "95 % interval", "between"], lines_, f"Gaps of {column}")
    drawing = rows(
        items,
        room(ends, 0.1, -1.0, 1.0),
        f"Gaps between groups of {column}",
        show=lambda v: f"{100 * v:.3g}",
    )
    distance = (
        f"Distance between the groups' predictions: mean absolute "
        f"{_figure(groups['prediction_absolute'])}, KL {_figure(groups['prediction_kl'])} nats."
    )
    text = (
        "The largest difference between two groups, in points of 100; none would be 0. The pair is "
        "chosen because it is far apart, so with many groups a gap leans to the large side."
    )
    return [
        figure(f"Gaps between groups of {column}", text, drawing, alternative),
        element("p", distance, class_="note"),
    ]


def _cost(run: Run) -> list[Html]:
    cost, rounds = run.results["cost"], len(run.results["rounds"])
    up, down = cost["bytes_up_per_partner_round"], cost["bytes_down_per_partner_round"]
    facts = [
        ["time from start to results", _duration(cost["wall_seconds"])],
        ["partners' time in training, summed", _duration(cost["train_seconds"])],
        ["partners' time in all, summed", _duration(cost["partner_seconds"])],
        ["training speed of one partner", f"{cost['train_examples_per_second']:,.0f} texts/s"],
        ["sent by a partner in a round", _bytes(up)],
        ["sent to a partner in a round", _bytes(down)],
        ["largest memory of all processes", _bytes(1e6 * cost["peak_rss_mb"])],
    ]
    seconds = [r["seconds"] for r in run.results["rounds"]]
    found = [table(["what", "figure"], facts, "Cost of the run")]
    if seconds:
        mean = sum(seconds) / len(seconds)
        found.append(
            element(
                "p",
                f"{rounds} rounds of {_duration(mean)} on average, from {_duration(min(seconds))} "
                f"to {_duration(max(seconds))}.",
                class_="note",
            )
        )
    return found


def _record(run: Run) -> list[Html]:
    config, strategy = run.config, run.config.strategy
    pre = [_stage(s) for s in (strategy.get("pre") or {}).values()]
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
        ["weights", _stage(strategy.get("fair"))],
        ["merging rule", _stage(strategy.get("robust"))],
        ["appeal", _stage(strategy.get("appeal"))],
        ["server optimiser", _stage(strategy.get("server"))],
    ]
    if run.entries:
        facts.append(["audit log", f"{len(run.entries)} entries, last hash {run.entries[-1].hash}"])
    return [
        element(
            "p",
            "Hold the run directory against its audit log with ",
            element("code", "fedaccord verify RUNDIR"),
            ", and compare the last hash with a copy that was kept elsewhere. The model's card "
            "(model/README.md) says what the model is for.",
        ),
        table(["what", "value"], facts, "Settings and identity"),
    ]


def _stage(settings: Mapping[str, Any] | None) -> str:
    if not settings:
        return "none"
    given = ", ".join(f"{k} = {v}" for k, v in settings.items() if k != "_target_")
    return f"{str(settings['_target_']).rpartition('.')[2]}{f' ({given})' if given else ''}"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _points(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} points"


def _known_interval(interval: Sequence[float | None]) -> tuple[float, float] | None:
    low, high = interval
    return None if low is None or high is None else (low, high)


def _interval(interval: Sequence[float | None]) -> str:
    known = _known_interval(interval)
    return "-" if known is None else f"[{100 * known[0]:.1f}, {100 * known[1]:.1f}]"


def _interval_points(interval: Sequence[float]) -> str:
    return f"[{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"


def _bytes(count: float) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:.0f} B"
