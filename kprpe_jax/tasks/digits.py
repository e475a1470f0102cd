"""What the tasks on digits share: rows, their check, and evaluators."""

from collections.abc import Callable
from functools import partial

from ml_collections import ConfigDict

from kprpe_jax.data import order
from kprpe_jax.data.affnist import read_affnist
from kprpe_jax.data.check import check_batch
from kprpe_jax.data.store import open_split, read_all
from kprpe_jax.evaluation.conditions import (
    KEYPOINT_EVALUATORS,
    Condition,
    Evaluator,
    Predict,
    make_evaluators,
    standard_conditions,
)
from kprpe_jax.tasks import inputs
from kprpe_jax.tasks.task import TrainingRows


def open_training(config: ConfigDict, seed: int) -> TrainingRows:
    """The config's training split, shuffled."""
    source = open_split(config.data.dir, config.data.name, config.data.train_split)
    return TrainingRows(source, order.shuffled(len(source), seed=seed))


def batch_check(config: ConfigDict) -> Callable[[dict], None]:
    """`check_batch` with the sizes of the config's data."""
    return partial(
        check_batch,
        num_classes=config.data.num_classes,
        image_shape=tuple(config.data.image_shape),
        num_keypoints=config.data.num_keypoints,
    )


def evaluators(
    predict: Predict, config: ConfigDict, uses_keypoints: bool
) -> dict[str, Evaluator]:
    """Evaluators of `standard_conditions` on the test split, and `affnist`.

    A network that reads no keypoints (`uses_keypoints`) has none of
    KEYPOINT_EVALUATORS. `affnist` reads the official file that `data.affnist_file`
    names, if it does; its images are distorted already, and their keypoints are
    those of the upright box.
    """
    data, evals = config.data, config.evals
    conditions = standard_conditions(evals.severities, evals.alphas)
    if not uses_keypoints:
        for name in KEYPOINT_EVALUATORS:
            del conditions[name]
    built = make_evaluators(
        predict,
        partial(inputs.condition_inputs, config=config),
        read_all(open_split(data.dir, data.name, data.test_split)),
        conditions,
        repeats=evals.repeats,
        batch_size=evals.batch_size,
    )
    if data.affnist_file:
        built |= make_evaluators(
            predict,
            partial(inputs.ready_inputs, config=config),
            read_affnist(data.affnist_file),
            {"affnist": {"affnist": Condition()}},
            batch_size=evals.batch_size,
        )
    return built
