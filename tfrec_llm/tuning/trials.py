"""What a search found."""

import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfrec_llm.errors import DataFileError, NotFittedError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from tfrec_llm.recommender import Recommender

# Files of a trial, in its folder: what the tuner adds to KerasTuner's own.
RESULT = "result.json"
MODEL = "model.tfrec"


class Trials:
    """The trials of a KerasTuner search, read from its folder.

    While the search runs, after it was killed, and from every process that
    sees the folder. Of a search by other tuners than `RecommenderTuner` there
    are the table and the picture.

    Args:
        folder: The search's `project_dir`, `directory/project_name`.

    Attributes:
        best_trial: Name of the trial with the best score, None if none has one.

    Raises:
        DataFileError: If there is no such folder, or a file in it is damaged.

    Example:
        >>> Trials("nowhere")
        Traceback (most recent call last):
        ...
        tfrec_llm.errors.DataFileError: There is no search in nowhere.
    """

    def __init__(self, folder: str | os.PathLike[str]):
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise DataFileError(f"There is no search in {folder}.")
        self._rows = []
        self._failures = {}
        sign = self._sign()
        for path in sorted(self.folder.glob("trial_*")):
            trial = path.name.removeprefix("trial_")
            kept, result = _read(path / "trial.json"), _read(path / RESULT)
            values = kept.get("hyperparameters", {}).get("values", {})
            score = result.get("score", kept.get("score"))
            failure = result.get("failure") or kept.get("message")
            if failure:
                self._failures[trial] = str(failure)
            status = "failed" if failure else "done" if score is not None else "running"
            self._rows.append(
                {
                    "trial": trial,
                    "status": status,
                    "score": math.nan if score is None else float(score),
                    "epochs": result.get("epochs"),
                    "seconds": result.get("seconds"),
                    **values,
                }
            )
        # Ties and trials without a score stay in their order.
        self._rows.sort(key=lambda row: _rank(sign * row["score"]))
        first = self._rows[0] if self._rows else None
        scored = first is not None and not math.isnan(first["score"])
        self.best_trial: str | None = first["trial"] if first is not None and scored else None

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def table(self) -> "pd.DataFrame":
        """A row a trial, the best first: trial, status, score, epochs, seconds, what was chosen."""
        import pandas as pd

        columns = ["trial", "status", "score", "epochs", "seconds"]
        found = pd.DataFrame(self._rows)
        return found if len(found) else pd.DataFrame(columns=columns)

    @property
    def failures(self) -> dict[str, str]:
        """Why trials failed, by trial: the traceback."""
        return dict(self._failures)

    @property
    def best_setting(self) -> dict[str, Any]:
        """The configuration of the best trial, for `Recommender.from_config`.

        Raises:
            NotFittedError: If no trial of a recommender has ended yet.
        """
        return self._best_result()["setting"]

    def best_recommender(self) -> "Recommender":
        """Returns the best trial's recommender, as it was trained.

        Raises:
            NotFittedError: If no trial of a recommender has ended yet.
            SavedModelError: If its files are damaged.
        """
        from tfrec_llm.recommender import Recommender

        self._best_result()
        return Recommender.load(self.folder / f"trial_{self.best_trial}" / MODEL)

    def plot(self, path: str | os.PathLike[str] | None = None) -> "Figure":
        """Draws parallel coordinates: a line a trial through what was chosen, to its score.

        Args:
            path: Where to save the picture; its ending gives the format.

        Raises:
            NotFittedError: If no trial has ended yet.
        """
        from tfrec_llm.tuning.parallel_coordinates import draw_parallel_coordinates

        done = [row for row in self._rows if not math.isnan(row["score"])]
        if not done:
            raise NotFittedError(f"No trial in {self.folder} has ended yet.")
        beside = {"trial", "status", "epochs", "seconds"}
        rows = [
            {
                name: value
                for name, value in row.items()
                if name not in beside and not name.startswith("tuner/")
            }
            for row in done
        ]
        return draw_parallel_coordinates(rows, score="score", path=path)

    def __repr__(self) -> str:
        best = "" if self.best_trial is None else f", best {self._rows[0]['score']:.4f}"
        return f"<Trials: {len(self)}{best}>"

    def _best_result(self) -> dict[str, Any]:
        if self.best_trial is not None:
            result = _read(self.folder / f"trial_{self.best_trial}" / RESULT)
            if "setting" in result:
                return result
        raise NotFittedError(
            f"No trial of a recommender has ended in {self.folder}: run search() first, or see "
            "failures."
        )

    def _sign(self) -> int:
        """Returns 1 where low scores are good, else -1; KerasTuner notes it by metric."""
        for path in sorted(self.folder.glob("trial_*/trial.json")):
            kept = _read(path)
            for metric in kept.get("metrics", {}).get("metrics", {}).values():
                values = [value for each in metric["observations"] for value in each["value"]]
                if kept.get("score") in values:
                    return 1 if metric["direction"] == "min" else -1
        return -1


def _rank(score: float) -> float:
    return math.inf if math.isnan(score) else score


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataFileError(f"{path} is damaged ({error}). Delete its folder.") from error
