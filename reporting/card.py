"""The model card: `model/README.md` in the form of the Hugging Face hub.

Made from the configuration and results.json alone, so that it says nothing that those do not; of
the partners' data it knows totals only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from common.config import Config, malicious
from common.figures import MACRO_F1

EMBEDDED_BASE, EMBEDDED_LICENSE = "sentence-transformers/all-MiniLM-L6-v2", "apache-2.0"
GAP_NAMES = {
    "accuracy": "accuracy",
    "demographic_parity": "demographic parity (share predicted positive)",
    "equal_opportunity": "equal opportunity (TPR)",
    "equalized_odds": "equalised odds (TPR or FPR)",
}
# What Markdown gives a meaning within a line.
MARKDOWN = frozenset("\\`*_~[]()<>!&#:.@$|")


def gap_names(config: Config) -> dict[str, str]:
    """The gaps that mean something for the task of a run, in words."""
    return {k: v for k, v in GAP_NAMES.items() if config.about.classes or k == "accuracy"}


def model_card(config: Config, results: Mapping[str, Any], simulated: bool) -> str:
    """The card of the model that a run delivered; `results` is what results.json holds."""
    sections = (
        _opening(config, results, simulated),
        _use(config),
        _data(config, results),
        _procedure(config, results),
        _privacy(config, results, simulated),
        _evaluation(config, results),
        _fairness(config, results),
        _robustness(config, results),
        _reproduce(results, simulated),
    )
    text = "\n\n".join("\n".join(section) for section in sections)
    return f"---\n{_metadata(config, results).to_yaml()}\n---\n\n{text}\n"


def _metadata(config: Config, results: Mapping[str, Any]) -> ModelCardData:
    final = results["final"]
    found = {"accuracy": final["accuracy"], "f1": final["macro_f1"]}
    kind = config.about.pipeline
    where = "held-out rows" if final["data"]["measured_on"] == "test" else "partners' rows"
    evaluated = [
        EvalResult(
            task_type=kind,
            task_name=kind.replace("-", " ").capitalize(),
            dataset_type="federated",
            dataset_name=f"{where} ({config.data.source})",
            metric_type=metric,
            metric_name={"f1": "Macro F1"}.get(metric, "Accuracy"),
            metric_value=round(value, 4),
        )
        for metric, value in found.items()
        if value is not None
    ]
    base = _hub_base(config)
    return ModelCardData(
        model_name=f"fedaccord-{results['config_hash'][:8]}",
        base_model=base,
        library_name="transformers",
        pipeline_tag=kind,
        license=EMBEDDED_LICENSE if config.model.base == "embedded" else None,
        datasets=[config.data.path] if config.data.source == "hub" and config.data.path else None,
        tags=[
            "fedaccord",
            "federated-learning",
            *(["differential-privacy"] if config.private else []),
        ],
        eval_results=evaluated or None,
    )


def _hub_base(config: Config) -> str | None:
    """The hub id of the base model; None where it was a folder, whose name means nothing there."""
    if config.model.base == "embedded":
        return EMBEDDED_BASE
    return None if Path(config.model.base).is_dir() else config.model.base


def _opening(config: Config, results: Mapping[str, Any], simulated: bool) -> list[str]:
    data = results["final"]["data"]
    base = _hub_base(config)
    remote = ", trust_remote_code=True" if config.model.head == "mean" else ""
    privacy = (
        f"under differential privacy (ε = {results['final']['epsilon']['max']:.2f}, "
        f"δ = {results['final']['epsilon']['delta']:g}, per {_unit(config)})"
        if config.private
        else "**without** differential privacy"
    )
    task = config.about
    head, names = task.names(config.data)
    return [
        f"# {task.noun[0].upper()}{task.noun[1:]} trained by a federation of {data['partners']} "
        "partners",
        "",
        f"{f'[{base}](https://huggingface.co/{base})' if base else 'A BERT-family encoder'}, "
        f"fine-tuned with fedaccord {version('fedaccord')} on texts that never left their "
        f"partners, {privacy}. {head}: {_list(names)}.",
        *(["", "The federation was a **simulation** on one machine."] if simulated else []),
        "",
        "```python",
        "from transformers import pipeline",
        "",
        task.use(remote),
        "```",
    ]


def _unit(config: Config) -> str:
    return config.data.unit if config.about.target == "tags" else "record"


def _purpose(config: Config) -> str:
    return config.about.purpose(_list(config.about.names(config.data)[1]))


def _reach(config: Config) -> str:
    length = config.model.max_length
    if config.about.target == "tags":
        return f"It was trained on {length} tokens at a time; give it longer texts in pieces."
    end = "last" if config.model.truncation == "left" else "first"
    return f"Only the {end} {length} tokens of a text are read."


def _use(config: Config) -> list[str]:
    return [
        "## Intended use and limits",
        "",
        f"For {_purpose(config)} texts like those of the partners, "
        "with a person answerable for what is decided from it. Not for decisions about people "
        "without that, and not for texts of another kind, domain or language without measuring "
        "first.",
        "",
        f"- {_reach(config)}",
        "- It can be no better than the partners' labels, and repeats their errors and biases and "
        "those of the base model.",
        "- The fairness figures below are of groups that somebody recorded, on a limited number "
        "of rows; other groups may fare worse.",
        *(
            ["- The score it gives is not a calibrated probability."]
            if config.about.classes
            else []
        ),
    ]


def _data(config: Config, results: Mapping[str, Any]) -> list[str]:
    data = results["final"]["data"]
    rows = data["training_rows"]
    groups = config.data.columns.groups
    return [
        "## Training data",
        "",
        f"{data['partners']} partners held {'-' if rows is None else f'{rows:,.0f}'} training rows "
        f"in all (as they report it). Each keeps about {100 * config.data.validation_fraction:g} % "
        "of its texts for validation unless its data say which. Rows, labels and group values stay "
        "with the partners, who send model updates and counts. Group columns: "
        f"{_list(groups) if groups else 'none'}.",
        *_data_noise(data),
    ]


def _data_noise(data: Mapping[str, Any]) -> list[str]:
    if data["partner_metrics"] != "private":
        return []
    return [
        "",
        "What partners tell of their rows carries noise; its standard error stands behind each "
        f'number as "noise ±". Training rows: noise ±{data["training_rows_error"]:,.0f}.',
    ]


def _procedure(config: Config, results: Mapping[str, Any]) -> list[str]:
    model, train, run = config.model, config.train, config.run
    trained = {
        "lora": f"LoRA (r = {model.lora.r}) on {_list(model.lora.targets)}",
        "last_k": "all parameters",
        "full": "all parameters",
        "bitfit": "the biases",
        "ia3": "IA³ scales",
    }[model.trainable]
    layers = "every layer" if model.trainable == "full" or not model.layers else f"{model.layers}"
    rows = [
        ("rounds", f"{len(results['rounds'])} of {run.rounds}"),
        ("partners asked in a round", f"{100 * run.fraction:g} %"),
        ("trained", f"{trained}, upper encoder layers: {layers}; head: {model.head}"),
        (
            "at the partner",
            f"{train.local_steps} step(s) of {train.optimizer.upper()}, learning rate "
            f"{train.lr:g}, expected batch {train.batch_size}",
        ),
        ("at the server", _stage(config.strategy.get("server"))),
        ("delivered", "the average of the last models" if run.average_last else "the last model"),
    ]
    return ["## Training procedure", "", *_table(("what", "setting"), rows)]


def _privacy(config: Config, results: Mapping[str, Any], simulated: bool) -> list[str]:
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
        f"Training was (ε, δ)-differentially private with **ε = {spent['max']:.3f}** (the most "
        f"that any partner's ledger holds for this run; asked for: {config.privacy.epsilon:g}) and "
        f"**δ = {spent['delta']:g}**, for adding or removing **one record of one partner**.",
        "",
        f"Mechanism: DP-{config.train.optimizer.upper()} at the partner, per-record gradients "
        f"clipped to norm {config.privacy.max_grad_norm:g}, Gaussian noise, composed over "
        f"all rounds by "
        "numerical composition (PRV), cross-checked with and bounded by Rényi accounting.",
        "",
        "This assumes that",
        "",
        "- every step samples each record independently (Poisson sampling), and the noise stays "
        "secret;",
        "- partners run the code that they installed, while the coordinator and other partners may "
        "see every update;",
        f"- a person has one {_unit(config)} at one partner: the ε of several add up.",
        "",
        _covered(config),
    ]
    lines += _client_level(results)
    if simulated:
        lines += [
            "",
            "**In this simulation the noise was drawn from a seed.** Who knows the seed and the "
            "settings can take it away: the figure says what the same settings guarantee in a "
            "deployment, and protects no record of this one.",
        ]
    return lines


def _client_level(results: Mapping[str, Any]) -> list[str]:
    found = results["final"].get("client_level")
    if not found:
        return []
    return [
        "",
        f"For whole partners, against those who see global models only: **ε = "
        f"{found['epsilon']:.3f}** at δ = {found['delta']:g}, by updates clipped to "
        f"{found['clip']:g} and noise of {found['noise_multiplier']:g} times that at the server. "
        "It trusts the server, and does not cover what partners report of their validation rows.",
    ]


def _covered(config: Config) -> str:
    if not config.private_metrics:
        return (
            "It does not cover the counts and losses of validation rows, which are other records "
            "than those trained on, nor a choice of settings that was made by looking at private "
            "rows."
        )
    return (
        "It covers the counts and losses of validation rows, which were released with noise "
        f"(ε = {config.metrics_epsilon:g} asked for over the run; other records than those trained "
        "on, so a record bears the larger of the two), and the number of training rows. It does "
        "not cover a choice of settings that was made by looking at private rows."
    )


def _evaluation(config: Config, results: Mapping[str, Any]) -> list[str]:
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
            _noisy(final["accuracy"], final["accuracy_error"]),
        ),
        *(
            [(f"{MACRO_F1.words} on the same", MACRO_F1.show(final["macro_f1"]))]
            if task.classes
            else []
        ),
        *own,
        (
            "accuracy at the partners, mean ± standard deviation",
            f"{_percent(spread['mean'])} ± {_percent(spread['std'])}"
            f"{_noise(final['mean_partner_accuracy_error'])}",
        ),
        (
            "worst partner",
            _noisy(spread["worst"], final["worst_partner_accuracy_error"]),
        ),
        ("worst 10 % of partners", _percent(spread["worst_decile"])),
        (
            "Jain's index, normalised entropy",
            f"{_figure(spread['jain'])}, {_figure(spread['entropy'])} (1 is even)",
        ),
    ]
    means = task.accuracy_means
    about = [] if means is None else [f"Accuracy here is {means}.", ""]
    return ["## Evaluation", "", *about, *_table(("what", "value"), rows)]


def task_figures(config: Config, final: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The task's own figures in words, the one to look at first in the first place."""
    return [
        (figure.words, figure.show(final[figure.name]))
        for figure in config.about.own_figures
        if final.get(figure.name) is not None
    ]


def _fairness(config: Config, results: Mapping[str, Any]) -> list[str]:
    fairness = results["final"]["fairness"]
    lines = ["## Fairness between groups", ""]
    if not fairness["groups"]:
        return [*lines, "No group column was named, so nothing was measured."]
    labels = config.data.labels
    if config.task == "multilabel":
        kind = "; rates are of labels that a text has (TPR) and has not (FPR)"
    elif not config.about.classes:
        kind = ""
    elif len(labels) == 2:
        kind = f"; {_list(labels[1:])} is the positive class"
    else:
        kind = "; rates are means over classes, each against the rest"
    lines.append(
        f"In brackets 95 % intervals (Wilson's for shares, Newcombe's for differences){kind}. "
        f"Groups of fewer than {fairness['minimum_rows']} rows are marked and not compared."
    )
    for column, found in fairness["groups"].items():
        rows = [
            (
                f"{_literal(value) or '(none)'}{' (too few rows)' if row['small'] else ''}",
                f"{row['n']:,.0f}",
                _with_interval(row["accuracy"], row["accuracy_interval"])
                + _noise(row["accuracy_error"]),
                _with_interval(row["tpr"], row.get("tpr_interval")) + _noise(row.get("tpr_error")),
                _with_interval(row["fpr"], row.get("fpr_interval")) + _noise(row.get("fpr_error")),
            )
            for value, row in found["values"].items()
        ]
        gaps = [
            (
                name,
                _points(gap["value"], gap["interval"]) + _noise(gap["error"]),
                f"{_literal(gap['high'])} over {_literal(gap['low'])}",
            )
            if (gap := found["gaps"][key])
            else (name, "-", "too few rows to compare")
            for key, name in gap_names(config).items()
        ]
        lines += ["", f"### {_escape(_literal(column))}", ""]
        lines += _table(("group", "rows", "accuracy", "TPR", "FPR"), rows)
        lines += ["", *_table(("largest difference in", "value", "between"), gaps)]
    return lines


def _robustness(config: Config, results: Mapping[str, Any]) -> list[str]:
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
        ("before merging", ", ".join(_stage(stage) for stage in pre.values()) or "nothing"),
        ("weights", _stage(strategy.get("fair"))),
        ("rule", _stage(rule)),
        ("appeal", _stage(strategy.get("appeal"))),
    ]
    lines = ["## Robustness", "", *_table(("stage", "setting"), rows), "", tolerated]
    lines += ["", f"{refused} update(s) were refused; `decisions.jsonl` of the run says why."]
    if config.attack.get("_target_"):
        names = malicious(config, sorted(results["final"]["partners"]))
        lines += [
            "",
            f"**This model was trained under a simulated attack**: {_stage(config.attack)} by "
            f"{len(names)} partner(s). Do not use it for anything but studying that.",
        ]
    return lines


def _reproduce(results: Mapping[str, Any], simulated: bool) -> list[str]:
    lines = [
        "## How to reproduce",
        "",
        f"Configuration `{results['config_hash']}`, seed {results['seed']}, fedaccord "
        f"{version('fedaccord')}; the digest of the code and the versions of the libraries are in "
        "the run's `audit.jsonl`.",
    ]
    if simulated:
        lines += [
            "",
            "```bash",
            "mkdir again && cp RUNDIR/config.yaml again/",
            "fedaccord simulate run.resume=again",
            "fedaccord verify again",
            "```",
            "",
            "The same data, code and kind of machine give the same parameters: compare the "
            "`parameters` of the rounds in both `audit.jsonl`.",
        ]
    else:
        lines += [
            "",
            "`fedaccord verify RUNDIR` holds the run against its audit log. Noise in a deployment "
            "comes from the partners' operating systems, so another run gives another model.",
        ]
    return lines


def _stage(settings: Any) -> str:
    """`strategies.robust.krum.Krum` and f=1 as "Krum (f = 1)"."""
    if not settings:
        return "none"
    who = ("_target_", "partners", "count")
    given = ", ".join(f"{k} = {v}" for k, v in settings.items() if k not in who)
    return f"{settings['_target_'].rpartition('.')[2]}{f' ({given})' if given else ''}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(_escape(cell) for cell in line)} |" for line in lines]


def _escape(text: str) -> str:
    return " ".join(text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").split())


def _literal(text: str) -> str:
    """A partner's word as Markdown shows it unchanged: no emphasis, link, image, code or HTML.

    As character references, which stand in tables as well as in headings; `.` and `:` would make
    links of bare addresses.
    """
    return "".join(f"&#{ord(c)};" if c in MARKDOWN else c for c in text)


def _list(names: Sequence[str]) -> str:
    return ", ".join(f"`{' '.join(name.replace('`', chr(39)).split())}`" for name in names)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _noise(error: float | None) -> str:
    """The standard error of privacy noise behind a share; nothing where there is none."""
    return f" (noise ±{100 * error:.1f})" if error else ""


def _noisy(value: float | None, error: float | None) -> str:
    return _percent(value) + _noise(error)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _with_interval(value: float | None, interval: Sequence[float | None] | None) -> str:
    if value is None or interval is None or None in interval:
        return _percent(value)
    low, high = interval
    return f"{100 * value:.1f} % [{100 * (low or 0):.1f}, {100 * (high or 0):.1f}]"


def _points(value: float, interval: Sequence[float]) -> str:
    low, high = interval
    return f"{100 * value:.1f} points [{100 * low:.1f}, {100 * high:.1f}]"
