"""The best embedding model of a run, by what it is judged by during training."""

import contextlib
import os

from circle_tf import run_files
from circle_tf.utils.files import replacing
from trainers.datasets import inventory
from trainers.outputs import workdir as workdirs

__all__ = ["BestModel"]


class BestModel:
    """Keeps the model whose metric was highest: `best.keras`, and in `best.json` which it is.

    What was kept before counts on when a run is resumed, unless it was judged otherwise: by another
    metric, by more or fewer examples, or on other data.

    Args:
        files: trainers.outputs.workdir.Workdir, in which `data.json` is.
        metric: str, one of `trainers.evaluation.metrics.VALIDATED`.
        examples: int, at most so many are evaluated.
        step: int, the step at which the run goes on; at 0 what lies there is another run's.
    """

    def __init__(self, files, *, metric, examples, step):
        self._files, self._metric = files, metric
        parts = workdirs.read_json(files.data)["parts"]
        tested = {name: part for name, part in parts.items() if name != "train"}
        self._judge = {
            "metric": metric,
            "eval_examples": examples,
            "data": inventory.checksum(tested),
        }
        self._best = self._known() if step else float("-inf")

    def offer(self, model, *, step, metrics):
        """Saves the model if it is better than all before.

        Args:
            model: the embedding model.
            step: int.
            metrics: dict, what was measured after that step.
        """
        value = metrics[self._metric]
        if not value > self._best:  # NaN is not better.
            return
        with replacing(self._files.best) as partial:
            model.save(partial)
            # Wherever a kill comes, the record is that of the model, or there is none.
            with contextlib.suppress(FileNotFoundError):
                os.remove(self._files.best_record)
        record = {"step": step, "value": value, "metrics": {"step": step, **metrics}}
        workdirs.write_json(self._files.best_record, {**record, "judge": self._judge})
        self._best = value

    def _known(self):
        if not self._files.has_best:
            return float("-inf")
        record = run_files.read_best(self._files)
        return record["value"] if record["judge"] == self._judge else float("-inf")
