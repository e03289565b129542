"""A search as a picture."""

import numpy as np

from circle_tf import plots

__all__ = ["draw"]


def draw(search, path):
    """Draws what was measured against each field that was searched; the best trial is ringed.

    Args:
        search: what `study.tune` runs.
        path: the PNG file.
    """
    from matplotlib import ticker
    from matplotlib.figure import Figure

    trials, fields = search.completed(), list(search.space)
    values = np.array([trial.value for trial in trials])
    spreads = [np.std(trial.user_attrs["scores"], ddof=1) for trial in trials]
    best = int(values.argmax())
    figure = Figure(figsize=(3.4 * len(fields) + 0.6, 3.6), layout="constrained")
    for panel, field in zip(figure.subplots(1, len(fields), squeeze=False)[0], fields, strict=True):
        kind = search.space[field]
        found = [trial.params[field] for trial in trials]
        if hasattr(kind, "values"):  # A choice: its values side by side, in their order.
            panel.set_xticks(range(len(kind.values)), [str(value) for value in kind.values])
            found = [kind.values.index(value) for value in found]
        panel.errorbar(found, values, spreads, fmt="o", ms=4, color="#0072B2", ecolor="#B0C8DC")
        panel.plot(found[best], values[best], "o", ms=11, mfc="none", mec="#D55E00", mew=2)
        if getattr(kind, "log", False):
            panel.set_xscale("log")
            panel.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
            panel.xaxis.set_major_formatter("{x:g}")
            panel.xaxis.set_minor_locator(ticker.NullLocator())
        panel.set_xlabel(field)
        panel.grid(alpha=0.25)
    figure.axes[0].set_ylabel(f"{search.metric.removeprefix('val_').replace('_', ' ')}")
    figure.suptitle(
        f"Mean and standard deviation over {search.folds} folds; ringed: the best of {len(trials)}",
        fontsize=10,
    )
    plots.save_png(figure, path)
