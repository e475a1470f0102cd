"""Draw the attention offsets B_ij that a run has learned.

Source: KP-RPE, Figs. 12 and 13.

    python -m experiments offsets --workdir runs/digits --query 1,1 \
        --layers 0,1,2,3 --heads 0,1
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments import options as shared
from kprpe_jax import tasks
from kprpe_jax.core import mesh as mesh_lib
from kprpe_jax.data.store import open_split
from kprpe_jax.evaluation.evaluators.accuracy import Condition
from kprpe_jax.report.offsets import plot_offsets
from kprpe_jax.tasks import digits, networks
from kprpe_jax.training.checkpoint import restore_for_eval
from kprpe_jax.training.runs import read_config
from kprpe_jax.training.state import abstract_state


def draw(
    config: ConfigDict,
    workdir: pathlib.Path,
    path: pathlib.Path,
    *,
    query: tuple[int, int],
    layers: Sequence[int],
    heads: Sequence[int],
    num_images: int,
) -> None:
    """Draw the offsets of the last checkpoint for the first test images.

    Args:
      config: of the run.
      workdir: the run's folder.
      path: of the picture.
      query: (row, column) of the query token.
      layers, heads: which to draw.
      num_images: how many test images, distorted as in the affine test.
    Raises: ValueError: the encoding has no offsets; no checkpoint; a query, layer or
      head that the model does not have.
    """
    model = networks.make_network(config)
    if not model.has_bias:
        raise ValueError(
            f"offsets: position {model.position!r} has no offsets B_ij to draw; take a "
            "run with rpe or one of the kprpe forms."
        )
    for name, chosen, size in (
        ("layers", layers, model.depth),
        ("heads", heads, model.num_heads),
    ):
        if not set(chosen) <= set(range(size)):
            raise ValueError(
                f"offsets: {name} must lie in 0..{size - 1}; got {list(chosen)}."
            )
    mesh = mesh_lib.make_mesh({"data": 1, "fsdp": 1, "class": 1}, jax.devices()[:1])
    task = tasks.build(config, mesh)
    state = restore_for_eval(workdir, "last", abstract_state(task, mesh), config)

    data = config.data
    rows = open_split(data.dir, data.name, data.test_split).__getitems__(
        range(num_images)
    )
    batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    images, keypoints = digits.condition_inputs(
        batch, jax.random.key(0), 1.0, 0.0, condition=Condition(), config=config
    )
    variables = {"params": state.params["backbone"], **_backbone(state.collections)}
    bias = model.apply(variables, keypoints, method="bias")
    plot_offsets(
        [np.asarray(layer) for layer in bias],
        np.asarray(images),
        np.asarray(keypoints),
        path,
        grid=model.grid,
        query=query,
        layers=layers,
        heads=heads,
    )


def _backbone(collections: dict) -> dict:
    """Collections of the backbone alone, in both tasks' layouts."""
    return {name: tree.get("backbone", tree) for name, tree in collections.items()}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    shared.add_workdir(parser)
    parser.add_argument(
        "--query",
        type=shared.place,
        default=(2, 2),
        metavar="ROW,COLUMN",
        help="the query token (2,2)",
    )
    parser.add_argument(
        "--layers",
        type=shared.whole_numbers,
        default=[0, 1, 2, 3],
        metavar="N,N",
        help="layers to draw (0,1,2,3)",
    )
    parser.add_argument(
        "--heads",
        type=shared.whole_numbers,
        default=[0],
        metavar="N,N",
        help="heads to draw (0)",
    )
    parser.add_argument(
        "--images",
        type=int,
        default=4,
        help="test images, distorted at severity 1 (4)",
    )
    parser.add_argument("--output", help="picture to write (WORKDIR/offsets.png)")


def run(options: argparse.Namespace) -> None:
    """Draw the offsets of a run."""
    workdir = pathlib.Path(options.workdir)
    path = pathlib.Path(options.output or workdir / "offsets.png")
    draw(
        read_config(workdir),
        workdir,
        path,
        query=options.query,
        layers=options.layers,
        heads=options.heads,
        num_images=options.images,
    )
    sys.stdout.write(f"written to {path}\n")
