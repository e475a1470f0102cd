"""How hard synthetic faces are: a network trained on some people verifies others.

Every test renders the same held-out identities with nuisances of another strength.
Plain pixels are compared, too.

    python -m experiments synthetic_difficulty --seeds 0,1,2 \
        --config configs/synthetic_faces.py:absolute --output reports/synthetic

A study that was stopped continues where it was.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence
from functools import partial

from jax import Array
from ml_collections import ConfigDict

from experiments import options as shared
from experiments.whole_run import check_different, train_and_measure
from kprpe_jax.backbones.network import Network
from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.core.input_spec import InputSpec
from kprpe_jax.report.robustness import mean_std
from kprpe_jax.training.evaluate import evaluate, evaluate_recognizer

_METRICS = {"accuracy": "accuracy", "tar_at_far_1e-2": "TAR at FAR 1 %"}


def at_difficulty(config: ConfigDict, level: float) -> ConfigDict:
    """The same people in pictures of another difficulty, in a folder of their own."""
    changed = config.copy_and_resolve_references()
    with changed.unlocked():
        changed.data.builder.difficulty = level
        changed.data.dir = f"{config.data.dir}/difficulty_{level:g}"
    return changed


def run_seed(
    config: ConfigDict, workdir: pathlib.Path, levels: Sequence[float]
) -> dict[str, dict[str, float]]:
    """Train and test one run, or read what it gave.

    Args:
      config: of the run, its data set the synthetic faces.
      workdir: of the run.
      levels: difficulties of the tests.
    Returns: level -> {"evaluator/metric": value}.
    Raises: StoppedError: SIGTERM ended the training. ValueError: a folder of a run
      with another config; as `loop.train`.
    """
    results = {}
    for level in levels:
        measure = partial(
            evaluate,
            at_difficulty(config, level),
            workdir,
            checkpoint="last",
            evaluators=("aligned",),
        )
        results[f"{level:g}"] = train_and_measure(
            config, workdir, measure, name=f"difficulty_{level:g}.json"
        )
    return results


class GrayPixels(Network):
    """Plain pixels as an embedding: the gray picture without its mean."""

    image_size: tuple[int, int]
    patch_map = "gray"

    def feature_maps(
        self, images: Array, keypoints: Array | None = None, *, train: bool = False
    ) -> dict[str, Array]:
        """The gray picture, as `Network.feature_maps`."""
        gray = images.mean(-1, keepdims=True)
        return {"gray": gray - gray.mean((1, 2, 3), keepdims=True)}

    def embed_map(self, patch_map: Array, *, train: bool = False) -> Array:
        """Every pixel, as `Network.embed_map`."""
        return patch_map.reshape(len(patch_map), -1)


def pixel_results(config: ConfigDict, level: float) -> dict[str, float]:
    """Verify by plain pixels: cosine of two gray pictures without their mean."""
    size = tuple(config.data.image_shape[:2])
    recognizer = Recognizer({}, GrayPixels(size), InputSpec(size), "pixels")
    changed = at_difficulty(config, level)
    return evaluate_recognizer(changed, recognizer, evaluators=("aligned",))


def table(
    runs: Sequence[dict[str, dict[str, float]]], pixels: dict[str, dict[str, float]]
) -> str:
    """Write a Markdown table: a difficulty per row."""
    # Few pairs have no rate of false alarms of 1 %.
    found = runs[0][next(iter(pixels))]
    metrics = {m: text for m, text in _METRICS.items() if f"aligned/{m}" in found}
    titles = [f"{who}, {m}" for m in metrics.values() for who in ("network", "pixels")]
    lines = ["| difficulty | " + " | ".join(titles) + " |"]
    lines.append("|---" * (1 + len(titles)) + "|")
    for level in runs[0]:
        cells = []
        for metric in metrics:
            cells.append(mean_std([run[level][f"aligned/{metric}"] for run in runs]))
            cells.append(mean_std([pixels[level][f"aligned/{metric}"]]))
        lines.append(f"| {level} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


TAKES_CONFIG = True


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    shared.add_config(parser, "configs/synthetic_faces.py:absolute")
    parser.add_argument(
        "--difficulties",
        type=shared.numbers,
        default=[0.5, 1.0, 2.0, 3.0],
        metavar="X,X",
        help="strengths of the tests (0.5,1,2,3)",
    )
    shared.add_seeds(parser)
    shared.add_report(parser, "reports/synthetic")


def run(options: argparse.Namespace) -> None:
    """Run the experiment."""
    config = shared.read_config(options)
    if config.data.name != "synthetic_faces":
        raise ValueError(
            "synthetic_difficulty: the config's data must be synthetic_faces; got "
            f"{config.data.name!r}; use configs/synthetic_faces.py"
        )
    levels = options.difficulties
    check_different("synthetic_difficulty", "difficulties", levels)
    check_different("synthetic_difficulty", "seeds", options.seeds)
    pixels = {f"{level:g}": pixel_results(config, level) for level in levels}
    runs = []
    for seed in options.seeds:
        with config.unlocked():
            config.seed = seed
        runs.append(run_seed(config, options.output / "runs" / str(seed), levels))
    text = table(runs, pixels)
    (options.output / "difficulty.md").write_text(text)
    sys.stdout.write(text)
