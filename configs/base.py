"""Fields that every run has: optimiser, mesh, checkpoints and log, with usual values.

A config starts from these and states its own beside them.
"""

from ml_collections import ConfigDict


def make_base(task: str, *, steps: int) -> ConfigDict:
    """Fields of a run of one of the tasks in `kprpe_jax.tasks`.

    Args:
      task: name of its file.
      steps: of the optimiser; not to be mixed up with epochs.
    """
    config = ConfigDict()
    config.task = task
    config.seed = 0
    config.steps = steps

    config.optimizer = ConfigDict()
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.end_learning_rate = 0.0
    config.optimizer.schedule = "cosine"
    config.optimizer.schedule_unit = "steps"
    config.optimizer.warmup = 0.0
    config.optimizer.power = 1.0
    config.optimizer.boundaries = ()
    config.optimizer.step_factor = 0.1
    config.optimizer.weight_decay = 0.05
    config.optimizer.b1 = 0.9
    config.optimizer.b2 = 0.999
    config.optimizer.momentum = 0.9
    config.optimizer.clip_norm = 0.0
    config.optimizer.position_factor = 1.0
    config.optimizer.accumulate_steps = 1

    config.mesh = ConfigDict()
    config.mesh.data = -1
    config.mesh.fsdp = 1
    config.mesh["class"] = 1

    config.checkpoint = ConfigDict()
    config.checkpoint.every_steps = 400
    config.checkpoint.keep_last = 2
    config.checkpoint.best_metric = ""
    config.checkpoint.best_mode = "max"

    config.log = ConfigDict()
    config.log.every_steps = 50
    return config
