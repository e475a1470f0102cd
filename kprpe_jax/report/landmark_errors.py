"""Cumulative error curves of landmarks."""

import pathlib
from collections.abc import Mapping

import matplotlib

matplotlib.use("Agg")  # files only, on any machine
import matplotlib.pyplot as plt
import numpy as np

from kprpe_jax.evaluation.landmarks import cumulative_errors, summarize_errors


def plot_cumulative(
    errors: Mapping[str, np.ndarray],
    path: str | pathlib.Path,
    *,
    largest: float = 0.2,
) -> None:
    """Draw the share of faces below each error.

    Source: KP-RPE, Fig. 8.
    Args:
      errors: name -> [N], infinity for a face that was not found.
      path: of the picture.
      largest: error at the right end.
    """
    figure, axis = plt.subplots(figsize=(5, 3.6))
    thresholds = np.linspace(0, largest, 400)
    for name, values in errors.items():
        nme = summarize_errors(values)["nme"]
        curve = cumulative_errors(values, thresholds)
        axis.plot(thresholds, 100 * curve, label=f"{name}: mean {nme:.4f}")
    axis.set(xlabel="normalized error", ylabel="faces, %", ylim=(0, 100))
    axis.set_xlim(0, largest)
    axis.legend(fontsize=7, loc="lower right")
    axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)
