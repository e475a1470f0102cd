"""ROC curves of verification."""

import pathlib
from collections.abc import Mapping

import matplotlib

matplotlib.use("Agg")  # files only, on any machine
import matplotlib.pyplot as plt

from kprpe_jax.evaluation.roc import Roc


def plot_roc(curves: Mapping[str, Roc], path: pathlib.Path) -> None:
    """Plot TAR against FAR, logarithmic, from one impostor pair on.

    Args:
      curves: name -> curve.
      path: of the picture.
    """
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for name, roc in curves.items():
        seen = roc.far > 0
        axes.step(roc.far[seen], roc.tar[seen], where="post", label=name)
    axes.set_xscale("log")
    axes.set_xlabel("FAR")
    axes.set_ylabel("TAR")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=150)
    plt.close(figure)
