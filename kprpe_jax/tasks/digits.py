"""What the tasks on digits share: rows, their check, and evaluators."""

from collections.abc import Callable
from functools import partial

from ml_collections import ConfigDict

from kprpe_jax.data import order
from kprpe_jax.data.check import check_batch
from kprpe_jax.data.store import open_split, read_all
from kprpe_jax.evaluation.evaluators import Evaluator, build_evaluators
from kprpe_jax.evaluation.evaluators.accuracy import DigitData, Predict
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
    """The evaluators of `config.evals`, on the test split.

    Those of keypoints are left out for a network that reads none (`uses_keypoints`).
    """
    data = config.data
    return build_evaluators(
        config.evals,
        "digits",
        DigitData(
            predict,
            partial(inputs.condition_inputs, config=config),
            read_all(open_split(data.dir, data.name, data.test_split)),
            batch_size=config.evals.batch_size,
            uses_keypoints=uses_keypoints,
        ),
    )
