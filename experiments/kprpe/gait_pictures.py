"""Draw what a run on gait has learned: offsets in a window, and what a search finds.

    python -m experiments gait_pictures --workdir reports/gait/runs/kprpe-0 \
        --output docs/figures

Of a run without keypoints only the search is drawn.
"""

import argparse
import pathlib
import sys

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments import options as shared
from kprpe_jax import tasks
from kprpe_jax.core import mesh as mesh_lib
from kprpe_jax.data.gait import GaitSplit
from kprpe_jax.evaluation.evaluators.gait_search import make_embedder
from kprpe_jax.evaluation.gait import part_distances
from kprpe_jax.report.contact_sheet import plot_contact_sheet
from kprpe_jax.report.gait import plot_window_offsets, with_joints
from kprpe_jax.report.heat_maps import framed
from kprpe_jax.tasks import gait
from kprpe_jax.training.checkpoint import restore_for_eval
from kprpe_jax.training.runs import read_config
from kprpe_jax.training.state import abstract_state

_FOUND = 6  # sequences of a search
_COLORS = {True: (40, 200, 80), False: (230, 60, 50)}


def draw_offsets(
    config: ConfigDict,
    variables: dict,
    split: GaitSplit,
    path: pathlib.Path,
    *,
    query: tuple[int, int],
    head: int,
) -> None:
    """Draw the offsets of one query in four frames of the first test sequence."""
    model = gait.make_model(config)
    row = split.source[0]
    frames = np.linspace(0, len(row["keypoints"]) - 1, 4).astype(int)
    joints = row["keypoints"][frames]
    stages = model.apply(variables, joints, method="bias")
    plot_window_offsets(
        [np.asarray(bias) for stage in stages for bias in stage],
        [plan for stage in (0, 1) for plan in model.plans(stage)],
        row["silhouettes"][frames],
        joints,
        path,
        query=query,
        head=head,
        titles=[
            f"stage {stage + 1}, block {index + 1}"
            for stage in (0, 1)
            for index in range(model.depths[stage])
        ],
    )


def draw_searches(
    config: ConfigDict,
    state,
    task_embed,
    split: GaitSplit,
    path: pathlib.Path,
    mesh,
    *,
    count: int,
) -> None:
    """Draw probes with the nearest sequences: green = the same person, red = another.

    The probes are spread over the test people, whatever the search makes of them.
    """
    embed_all = make_embedder(
        task_embed,
        split,
        lengths=config.evals.aligned.lengths,
        batch_size=config.evals.batch_size,
    )
    embeddings = embed_all(state.params, state.collections, mesh)
    probes, gallery = np.flatnonzero(split.probes), np.flatnonzero(~split.probes)
    chosen = probes[np.linspace(0, len(probes) - 1, count).astype(int)]
    distances = part_distances(embeddings[chosen], embeddings[gallery])
    nearest = gallery[np.argsort(distances, 1, kind="stable")[:, :_FOUND]]

    def picture(row: int) -> np.ndarray:
        example = split.source[row]
        middle = len(example["silhouettes"]) // 2
        known = example["joint_mask"][middle]
        image = with_joints(
            example["silhouettes"][middle], example["keypoints"][middle][known]
        )
        return np.repeat(np.repeat(image, 3, 0), 3, 1)

    sheet = [
        [picture(probe)]
        + [
            framed(
                picture(row),
                _COLORS[bool(split.labels[row] == split.labels[probe])],
                2,
            )
            for row in found
        ]
        for probe, found in zip(chosen, nearest, strict=True)
    ]
    plot_contact_sheet(
        np.array(sheet),
        path,
        row_titles=[f"person {split.labels[probe]}" for probe in chosen],
        column_titles=["probe", *(f"rank {i + 1}" for i in range(_FOUND))],
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    shared.add_workdir(parser)
    shared.add_report(parser, "docs/figures")
    parser.add_argument(
        "--query",
        type=shared.place,
        default=(5, 3),
        metavar="ROW,COLUMN",
        help="the query token (5,3)",
    )
    parser.add_argument("--head", type=int, default=0, help="head to draw (0)")
    parser.add_argument("--probes", type=int, default=8, help="searches to draw (8)")


def run(options: argparse.Namespace) -> None:
    """Draw the pictures of a run."""
    config, output = read_config(options.workdir), options.output
    output.mkdir(parents=True, exist_ok=True)
    mesh = mesh_lib.make_mesh({"data": 1, "fsdp": 1, "class": 1}, jax.devices()[:1])
    task = tasks.build(config, mesh)
    abstract = abstract_state(task, mesh)
    state = restore_for_eval(options.workdir, "last", abstract, config)
    split = gait.open_split(config, config.evals.aligned.split)
    model = gait.make_model(config)
    if model.uses_keypoints:
        variables = {"params": state.params, **state.collections}
        draw_offsets(
            config,
            variables,
            split,
            output / "gait_offsets.png",
            query=options.query,
            head=options.head,
        )
    draw_searches(
        config,
        state,
        gait.make_embed(model),
        split,
        output / "gait_searches.png",
        mesh,
        count=options.probes,
    )
    sys.stdout.write(f"written to {output}\n")
