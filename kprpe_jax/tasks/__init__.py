"""What is trained: each task is an `init`, a `loss` and its evaluators for one loop."""

from jax.sharding import Mesh
from ml_collections import ConfigDict

from kprpe_jax.tasks import (
    classification,
    face_recognition,
    gait,
    joint_alignment,
    landmarks,
    pair_matching,
    recognition,
    set_fusion,
)
from kprpe_jax.tasks.task import Task

TASKS = {
    "classification": classification.build,
    "recognition": recognition.build,
    "face_recognition": face_recognition.build,
    "set_fusion": set_fusion.build,
    "joint_alignment": joint_alignment.build,
    "landmarks": landmarks.build,
    "gait": gait.build,
    "pair_matching": pair_matching.build,
}


def build(config: ConfigDict, mesh: Mesh) -> Task:
    """Build the task that `config.task` names.

    Args:
      config: the whole configuration.
      mesh: with axes data, fsdp and class.
    Raises: ValueError: unknown task; settings that do not fit together.
    """
    if config.task not in TASKS:
        raise ValueError(
            f"config.task: unknown task {config.task!r}; use one of {tuple(TASKS)}."
        )
    for section, field in (("data", "train_identities"), ("evals", "identities")):
        people = config[section].get(field, ())
        if len(people) not in (0, 2):
            raise ValueError(
                f"config.{section}.{field} must be (first, last), of which the last is "
                f"left out, or () for all people; got {tuple(people)}."
            )
    return TASKS[config.task](config, mesh)
