"""The report of a sweep: the best settings, all trials, parameter importance, privacy cost."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from common.files import write_atomic
from reporting.charts import Point, Row, Series, figure, lines, room, rows, table
from reporting.opening import tile
from reporting.page import Html, document, element, join
from reporting.words import duration, percent, power
from sweeps.analysis import LEAST_SETTINGS, Analysis, Setting, short
from sweeps.objectives import OBJECTIVES
from sweeps.parallel_chart import Axis, parallel
from sweeps.privacy import Composed
from sweeps.records import State, Sweep, Trial

NAME = "report.html"
BEST = "best.txt"


def write_sweep_report(sweep: Sweep, composed: Composed | None) -> Path:
    """Write `report.html` and, if a trial is finished, `best.txt`.

    Args:
        sweep: The directory of the sweep.
        composed: The privacy lost to all trials together; None before the first trial.

    Returns:
        The path of the page.
    """
    analysis = Analysis(sweep)
    if analysis.best is not None:
        write_atomic(sweep.directory / BEST, best_text(analysis))
    path = sweep.directory / NAME
    write_atomic(path, sweep_report(analysis, composed))
    return path


def best_text(analysis: Analysis) -> str:
    """The overrides of the best setting, one per line; `fedaccord simulate @best.txt` runs it."""
    assert analysis.best is not None
    first = analysis.objectives[0] if analysis.objectives else "accuracy"
    told = f"{OBJECTIVES[first].title} {shown(first, analysis.best.values.get(first))}"
    head = [
        f"# Trial {analysis.best.trials[0]} of {analysis.sweep.directory.name}: {told}.",
        "# fedaccord simulate @best.txt",
    ]
    return "\n".join([*head, *analysis.best_overrides()]) + "\n"


def shown(name: str, value: float | None, std: float | None = None) -> str:
    """The value of an objective as text, with its standard deviation over seeds."""
    if value is None:
        return "-"
    if not math.isfinite(value):
        return "∞"
    if OBJECTIVES[name].share:
        return percent(value) if std is None else f"{100 * value:.1f} ± {100 * std:.1f}\u00a0%"
    return f"{value:.2f}" if std is None else f"{value:.2f} ± {std:.2f}"


def sweep_report(analysis: Analysis, composed: Composed | None) -> str:
    """The page as HTML.

    Args:
        analysis: The evaluated sweep.
        composed: The privacy lost to all trials together; None before the first trial.
    """
    parts = [
        ("front", "The best settings", join(*_front(analysis))),
        ("parallel", "All trials at once", join(*_parallel(analysis))),
        ("importance", "Parameter importance", join(*_importance(analysis))),
        ("trials", "Trials", join(*_trials(analysis))),
        ("privacy", "The privacy cost of the sweep", join(*_privacy(composed))),
        ("record", "Record", join(*_record(analysis))),
    ]
    return document(
        "fedaccord report: sweep",
        _opening(analysis, composed),
        parts,
        f"Made by fedaccord {version('fedaccord')} from sweep.json, trials.jsonl and the trials' "
        "results.json. This page loads nothing from the network.",
    )


def _opening(analysis: Analysis, composed: Composed | None) -> Html:
    sweep = analysis.sweep
    states = Counter(t.state for t in sweep.trials.values())
    told = ", ".join(f"{states[s]} {words}" for s, words in STATES.items() if states[s])
    over = sweep.document.planned - sum(n for s, n in states.items() if s != "running")
    swept = ", ".join(sweep.document.swept) or "nothing"
    seconds = sum(t.seconds for t in sweep.trials.values())
    best = analysis.best
    return join(
        element("p", "fedaccord · sweep", class_="over"),
        element("h1", f"{len(sweep.trials)} trials of one federation"),
        element(
            "p",
            f"The same federation was trained with different settings of {swept}. Each trial has "
            "its own report.",
            class_="lead",
        ),
        element(
            "p",
            f"{over} of {sweep.document.planned} trials have not been run; the same command "
            "continues the sweep.",
            class_="notice",
        )
        if over > 0
        else None,
        element(
            "dl",
            tile("Best setting", *_best_tile(analysis, best)),
            tile("Trials", str(len(sweep.trials)), f"{told or 'none'}."),
            tile("Privacy cost of the sweep", *_cost_tile(composed)),
            tile("Time", duration(seconds), "in total over all trials."),
            class_="tiles",
        ),
    )


STATES: dict[State, str] = {
    "finished": "finished",
    "same": "equal to an earlier trial and not run again",
    "pruned": "ended early",
    "failed": "failed",
    "running": "not finished",
}


def _best_tile(analysis: Analysis, best: Setting | None) -> tuple[str, str]:
    if best is None or not analysis.objectives:
        return "-", "No trial is finished."
    first = analysis.objectives[0]
    seeds = f", mean of {len(best.trials)} seeds" if len(best.trials) > 1 else ""
    return shown(first, best.values[first]), (
        f"{OBJECTIVES[first].title}{seeds}, with {best.name}. The setting was selected on the rows "
        "on which it is measured, so this figure is slightly optimistic."
    )


def _cost_tile(composed: Composed | None) -> tuple[str, str, str]:
    if composed is None:
        return "-", "No trial has begun.", ""
    if composed.private == 0:
        return "No guarantee", composed.words(), "warn"
    return f"ε = {composed.epsilon:.2f}", composed.words(), "warn" if composed.open else ""


def _front(analysis: Analysis) -> list[Html]:
    if not analysis.settings or not analysis.objectives:
        return [element("p", "No trial is finished.")]
    first, *others = analysis.objectives
    found = [
        figure_ for other in others if (figure_ := _trade(analysis, first, other)) is not None
    ] or [_ranking(analysis, first)]
    head = ["setting", *(OBJECTIVES[n].title for n in analysis.objectives)]
    lines_ = [
        [s.name, *(shown(n, s.values[n], s.stds[n]) for n in analysis.objectives)]
        for s in analysis.front
    ]
    names = ", ".join(OBJECTIVES[n].title for n in analysis.objectives)
    told = (
        f"Pareto front over {names}: no other setting is at least as good in every objective and "
        "better in one."
        if len(analysis.objectives) > 1
        else "The best setting by the only objective."
    )
    return [
        *found,
        element("h3", "The front"),
        element("p", told),
        table(head, lines_, "The front"),
    ]


def _trade(analysis: Analysis, first: str, other: str) -> Html | None:
    """The first objective against another one; settings with an infinite ε become a level line."""
    placed = [s for s in analysis.settings if math.isfinite(s.values[other])]
    if len({s.values[other] for s in placed}) < 2:
        return None
    placed.sort(key=lambda s: s.values[other])
    xs = [s.values[other] * (100 if OBJECTIVES[other].share else 1) for s in placed]
    front = {s.trials for s in analysis.front}

    def ys(inside: bool) -> list[float | None]:
        return [s.values[first] if (s.trials in front) == inside else None for s in placed]

    series = [
        Series("on the front", ys(True), joined=False),
        Series("others", ys(False), joined=False),
    ]
    level = [s.values[first] for s in analysis.settings if not math.isfinite(s.values[other])]
    if level:
        top = max(level) if OBJECTIVES[first].direction == "maximize" else min(level)
        series.append(Series("best without privacy", [top] * len(xs)))
    title = f"{OBJECTIVES[first].title.capitalize()} against {OBJECTIVES[other].title}"
    unit = " (%)" if OBJECTIVES[other].share else ""
    drawing = lines(
        xs,
        series,
        title,
        room([*(s.values[first] for s in placed), *level], *_least(first)),
        show=lambda v: _tick(first, v),
        x_name=f"{OBJECTIVES[other].title}{unit}",
        x_bounds=room(xs, 0.01, 0.0, math.inf),
    )
    alternative = table(
        ["setting", OBJECTIVES[other].title, OBJECTIVES[first].title],
        [
            [s.name, *(shown(n, s.values[n], s.stds[n]) for n in (other, first))]
            for s in analysis.settings
        ],
        title,
    )
    return figure(title, "One mark per setting; means over seeds.", drawing, alternative)


def _tick(name: str, value: float) -> str:
    return f"{100 * value:.3g}\u00a0%" if OBJECTIVES[name].share else f"{value:.3g}"


def _least(name: str) -> tuple[float, float, float]:
    return (0.02, 0.0, 1.0) if OBJECTIVES[name].share else (0.01, 0.0, math.inf)


def _ranking(analysis: Analysis, first: str) -> Html:
    """One row per setting, the best first."""
    sign = -1 if OBJECTIVES[first].direction == "maximize" else 1
    order = sorted(analysis.settings, key=lambda s: sign * s.values[first])
    items = []
    for setting in [s for s in order if math.isfinite(s.values[first])][:MOST_ROWS]:
        value, std = setting.values[first], setting.stds[first]
        around = None if std is None else (value - std, value + std)
        point = Point(value, around, 1, "circle", shown(first, value, std))
        items.append(Row(setting.name, [point], shown(first, value, std)))
    ends = [end for i in items for p in i.points for end in (p.value, *(p.interval or ()))]
    title = OBJECTIVES[first].title.capitalize()
    drawing = rows(items, room(ends, *_least(first)), title, show=lambda v: shown(first, v))
    alternative = table(
        ["setting", OBJECTIVES[first].title],
        [[s.name, shown(first, s.values[first], s.stds[first])] for s in order],
        title,
    )
    return figure(
        f"{title} of each setting",
        "Means over seeds; whiskers show one standard deviation if there are several seeds.",
        drawing,
        alternative,
    )


MOST_ROWS = 40


def _parallel(analysis: Analysis) -> list[Html]:
    settings = analysis.settings
    axes = [Axis(key, [s.varied.get(key, "") for s in settings]) for key in analysis.keys] + [
        Axis(OBJECTIVES[name].title, [_plain(name, s.values[name]) for s in settings])
        for name in analysis.objectives
    ]
    if len(settings) < 2 or len(axes) < 2:
        return [element("p", "There is nothing to compare yet.")]
    front = {s.trials for s in analysis.front}
    title = "Settings and their objectives"
    drawing = parallel(
        axes, [s.trials in front for s in settings], title, ("on the front", "others")
    )
    head = ["setting", *(axis.name for axis in axes)]
    lines_ = [
        ["front" if s.trials in front else "other", *(short(axis.values[n]) for axis in axes)]
        for n, s in enumerate(settings)
    ]
    text = "One line per setting, through its value on each axis."
    return [figure("Parallel coordinates", text, drawing, table(head, lines_, title))]


def _plain(name: str, value: float) -> str:
    """A number for an axis."""
    if not math.isfinite(value):
        return "∞"
    return f"{100 * value:.2f}" if OBJECTIVES[name].share else f"{value:.4g}"


def _importance(analysis: Analysis) -> list[Html]:
    found = analysis.importance
    if not found:
        return [
            element(
                "p",
                f"Importance requires at least {LEAST_SETTINGS} settings of two or more keys, with "
                "different results.",
            )
        ]
    first = OBJECTIVES[analysis.objectives[0]].title
    items = [
        Row(key, [Point(value, tone=1, title=f"{key}: {percent(value)}")], percent(value), bar=True)
        for key, value in found.items()
    ]
    text = (
        f"Share of each key in reaching the best third by {first} (PED-ANOVA). This is an estimate "
        f"from {len(analysis.settings)} settings: it does not cover keys that were never varied, "
        "and with one seed it does not separate the effect of the key from that of the seed."
    )
    drawing = rows(items, (0.0, 1.0), "Importance", show=lambda v: f"{100 * v:.0f} %")
    alternative = table(["setting", "share"], [[r.name, r.shown] for r in items], "Importance")
    return [figure("Importance", text, drawing, alternative)]


def _trials(analysis: Analysis) -> list[Html]:
    sweep = analysis.sweep
    keys = sweep.document.swept
    names = list(dict.fromkeys([*analysis.objectives, "accuracy", "worst_partner", "epsilon"]))
    head = ["trial", "state", *keys, *(OBJECTIVES[n].title for n in names), "time"]
    lines_ = [_trial(analysis, trial, keys, names) for trial in sweep.trials.values()]
    told = [
        element("li", f"Trial {t.number}: {t.reason}") for t in sweep.trials.values() if t.reason
    ]
    return [
        element(
            "p",
            "ε is that of the single trial; the next section composes all trials.",
        ),
        table(head, lines_, "Trials"),
        *([element("ul", *told)] if told else []),
    ]


def _trial(
    analysis: Analysis, trial: Trial, keys: Sequence[str], names: Sequence[str]
) -> list[object]:
    sweep = analysis.sweep
    place = trial.number if trial.same_as is None else trial.same_as
    page = sweep.directory / str(place) / NAME
    name: object = trial.number
    if page.exists():
        name = element("a", trial.number, href=f"{place}/{NAME}")
    values = sweep.measured.get(trial.number, {})
    varied = analysis.varied(trial.number)
    state = trial.state if trial.same_as is None else f"same as {trial.same_as}"
    return [
        name,
        state,
        *(short(varied.get(key, "-")) for key in keys),
        *(shown(n, values.get(n)) for n in names),
        duration(trial.seconds),
    ]


def _privacy(composed: Composed | None) -> list[Html]:
    if composed is None:
        return [element("p", "No trial has begun.")]
    lines_ = [
        ["trials with privacy", str(composed.private)],
        ["trials without privacy", str(composed.open)],
        ["largest ε of one trial", f"{composed.single:.4f}"],
        ["ε of all private trials together", f"{composed.epsilon:.4f}"],
        ["δ", power(composed.delta)],
        ["accountant", composed.accountant.upper()],
    ]
    return [
        element("p", composed.words()),
        element(
            "p",
            "Publishing the best of several trials on the same texts spends the privacy of all of "
            "them. In a simulation each trial has its own ledgers, and the figure above composes "
            "them. In a deployment every trial is charged to the partner's one ledger.",
        ),
        table(["figure", "value"], lines_, "Privacy of the sweep"),
    ]


def _record(analysis: Analysis) -> list[Html]:
    sweep = analysis.sweep
    command = " ".join(sweep.document.arguments) or "(no overrides)"
    found = [
        element("p", "The sweep: ", element("code", f"fedaccord simulate --multirun {command}")),
        element("p", f"Identity {sweep.document.identity}."),
    ]
    if analysis.best is not None:
        found += [
            element(
                "p",
                "Run the best setting from the sweep's folder: ",
                element("code", f"fedaccord simulate @{BEST}"),
                ". Its overrides:",
            ),
            element("ul", *(element("li", element("code", o)) for o in analysis.best_overrides())),
        ]
    return found
