"""The model card: `model/README.md` in the form of the Hugging Face hub.

It is made from the configuration and results.json alone, so that it says nothing beyond them; of
the partners' data it has totals only.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from common.config import Config
from common.models.packaged import PACKAGED
from reporting.card_sections import evaluation, fairness, privacy, robustness, unit
from reporting.markdown import code_list, table
from reporting.words import stage


def model_card(config: Config, results: Mapping[str, Any], simulated: bool) -> str:
    """The card of the model that a run delivered.

    Args:
        config: the run.
        results: the content of results.json.
        simulated: whether the partners were simulated on one machine.
    """
    sections = (
        _opening(config, results, simulated),
        _use(config),
        _data(config, results),
        _procedure(config, results),
        privacy(config, results, simulated),
        evaluation(config, results),
        fairness(config, results),
        robustness(config, results),
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
        license=PACKAGED[config.model.base].license if config.model.base in PACKAGED else None,
        datasets=[config.data.path] if config.data.source == "hub" and config.data.path else None,
        tags=[
            "fedaccord",
            "federated-learning",
            *(["differential-privacy"] if config.private else []),
        ],
        eval_results=evaluated or None,
    )


def _hub_base(config: Config) -> str | None:
    """The hub id of the base model; None for a local folder, whose name means nothing there."""
    if config.model.base in PACKAGED:
        return PACKAGED[config.model.base].hub
    return None if Path(config.model.base).is_dir() else config.model.base


def _opening(config: Config, results: Mapping[str, Any], simulated: bool) -> list[str]:
    data = results["final"]["data"]
    base = _hub_base(config)
    remote = ", trust_remote_code=True" if config.model.head == "mean" else ""
    protection = (
        f"under differential privacy (ε = {results['final']['epsilon']['max']:.2f}, "
        f"δ = {results['final']['epsilon']['delta']:g}, per {unit(config)})"
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
        f"partners, {protection}. {head}: {code_list(names)}.",
        *(["", "The federation was a **simulation** on one machine."] if simulated else []),
        "",
        "```python",
        "from transformers import pipeline",
        "",
        task.use(remote),
        "```",
    ]


def _purpose(config: Config) -> str:
    return config.about.purpose(code_list(config.about.names(config.data)[1]))


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
        "with a person answerable for the decisions that use it. Do not use it for decisions about "
        "people without such a person, nor for texts of another kind, domain or language without "
        "measuring first.",
        "",
        f"- {_reach(config)}",
        "- It can be no better than the partners' labels. It repeats their errors and biases and "
        "those of the base model.",
        "- The fairness figures below cover recorded groups on a limited number of rows; the model "
        "may be worse for other groups.",
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
        "of its texts for validation, unless its data name the validation rows. Rows, labels and "
        "group values stay with the partners, who send model updates and counts. Group columns: "
        f"{code_list(groups) if groups else 'none'}.",
        *_data_noise(data),
    ]


def _data_noise(data: Mapping[str, Any]) -> list[str]:
    if data["partner_metrics"] != "private":
        return []
    return [
        "",
        "The partners' counts carry noise; its standard error follows each number as "
        f'"noise ±". Training rows: noise ±{data["training_rows_error"]:,.0f}.',
    ]


def _procedure(config: Config, results: Mapping[str, Any]) -> list[str]:
    model, train, run = config.model, config.train, config.run
    trained = {
        "lora": f"LoRA (r = {model.lora.r}) on {code_list(model.lora.targets)}",
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
        ("at the server", stage(config.strategy.get("server"))),
        ("delivered", "the average of the last models" if run.average_last else "the last model"),
    ]
    return ["## Training procedure", "", *table(("what", "setting"), rows)]


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
            "`fedaccord verify RUNDIR` verifies the run against its audit log. Noise in a "
            "deployment comes from the partners' operating systems, so another run gives another "
            "model.",
        ]
    return lines
