"""What is trained: each task is an `init`, a `loss` and its evaluators for one loop."""

from jax.sharding import Mesh
from ml_collections import ConfigDict

from kprpe_jax import registry
from kprpe_jax.tasks.task import Task

TASKS = {  # config.task -> builder
    name: f"kprpe_jax.tasks.{name}:build"
    for name in (
        "classification",
        "recognition",
        "face_recognition",
        "set_fusion",
        "joint_alignment",
        "landmarks",
        "gait",
        "pair_matching",
    )
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
    trained = config.data.get("train_identities", ())
    if len(trained) not in (0, 2):
        raise ValueError(
            "config.data.train_identities must be (first, last), of which the last is "
            f"left out, or () for all people; got {tuple(trained)}."
        )
    return registry.resolve(TASKS[config.task])(config, mesh)
