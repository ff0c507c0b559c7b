"""A finished run as data frames and as a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from common.errors import UserError
from common.tasks import TASKS
from results.run_directory import RESULTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from pandas import DataFrame
    from transformers import Pipeline

    from common.config import Config

_PIPELINES: dict[str, tuple[str, dict[str, Any]]] = {
    "classification": ("text-classification", {}),
    "multilabel": ("text-classification", {"top_k": None}),
    "regression": ("text-classification", {"function_to_apply": "none"}),
    "ner": ("token-classification", {"aggregation_strategy": "simple"}),
    "mlm": ("fill-mask", {}),
}


class Run:
    """A finished run in its directory. Files are read when they are first asked for.

    Attributes:
        directory: The absolute path of the run directory.
        figures: The content of `results.json` (docs/results.md).
    """

    def __init__(self, directory: Path, figures: dict[str, Any]) -> None:
        self.directory = directory
        self.figures = figures

    @classmethod
    def load(cls, directory: str | Path) -> Run:
        """Open the directory of a finished run.

        Args:
            directory: The run directory (`run.dir`).

        Raises:
            UserError: The directory holds no finished run.
        """
        path = Path(directory).expanduser().absolute()
        try:
            figures = json.loads((path / RESULTS).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise UserError(
                f"{path}: holds no finished run; name the folder with {RESULTS}, or finish the run "
                "with run.resume"
            ) from None
        return cls(path, figures)

    @property
    def config(self) -> Config:
        """The run's whole configuration."""
        from common.config_file import NAME, read_config

        return read_config(self.directory / NAME)

    @property
    def results(self) -> DataFrame:
        """The figures of the final model, one row for the federation and one for each part of it.

        The index is (`part`, `name`); `part` is `federation`, `partner` or `group`. The row of the
        federation is measured on the test rows, or where there are none on the partners'
        validation rows. Shares are between 0 and 1; a figure that a part lacks is NaN.
        """
        import pandas as pd

        final = self.figures["final"]
        plain = {key: value for key, value in final.items() if not isinstance(value, dict | list)}
        rows = {("federation", ""): {**plain, "epsilon": final["epsilon"]["max"]}}
        rows |= {("partner", name): row for name, row in final["partners"].items()}
        rows |= {("group", name): row for name, row in final["groups"].items()}
        index = pd.MultiIndex.from_tuples(list(rows), names=["part", "name"])
        return pd.DataFrame(list(rows.values()), index=index)

    @property
    def rounds(self) -> DataFrame:
        """The figures of each round, indexed by `round` (from 1).

        Accuracy, loss and partner figures describe the global model that the round produced.
        """
        import pandas as pd

        return pd.DataFrame(self.figures["rounds"]).set_index("round")

    @property
    def decisions(self) -> DataFrame:
        """What the server did with each update, indexed by (`round`, `partner`).

        The columns are those of a decision record (docs/strategies.md): outcome, reason, norm,
        weights and scores.

        Raises:
            UserError: The file of the decisions cannot be read.
        """
        import pandas as pd

        path = self.directory / "decisions.jsonl"
        try:
            # Not splitlines(), which would also split at other separators within a reason.
            lines = path.read_text(encoding="utf-8").split("\n")
            records = [json.loads(line) for line in lines if line]
        except (OSError, ValueError) as error:
            raise UserError(
                f"{path}: cannot be read ({type(error).__name__}); run `fedaccord verify`"
            ) from error
        return pd.DataFrame(records).set_index(["round", "partner"]).sort_index()

    def model(self) -> Pipeline:
        """The trained model as a pipeline of transformers for the run's task.

        No code from the model's folder is run. The pipeline's attributes `model` and `tokenizer`
        are the parts.

        Raises:
            UserError: The model cannot be loaded.
        """
        from transformers import pipeline

        from inspection.trained import load_delivered

        model, tokenizer = load_delivered(self.directory)
        task, settings = _PIPELINES[self.config.task]
        # The overloads of `pipeline` are by literal task names.
        make = cast("Callable[..., Pipeline]", pipeline)
        return make(task, model=model, tokenizer=tokenizer, device="cpu", **settings)

    @property
    def report(self) -> Path:
        """The path of the run's report, one HTML file."""
        return self.directory / "report.html"

    def __repr__(self) -> str:
        final = self.figures["final"]
        headline = TASKS[self.config.task].headline
        name = "accuracy" if headline is None else headline.name
        here = Path.cwd()
        inside = self.directory.is_relative_to(here)
        path = self.directory.relative_to(here) if inside else self.directory
        return f"Run({str(path)!r}, {name}={final[name]:.4g})"
