"""Run a config's evaluators on a run or on any recognizer, on any mesh."""

import os
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from kprpe_jax import registry, tasks
from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.core import mesh as mesh_lib
from kprpe_jax.core.mesh import replicated
from kprpe_jax.evaluation.evaluators import check_names
from kprpe_jax.tasks import faces, gait, pair_matching
from kprpe_jax.tasks.networks import START_FIELDS
from kprpe_jax.tasks.task import Task, evaluate_all, run_evaluators
from kprpe_jax.training.checkpoint import restore_for_eval
from kprpe_jax.training.loop import prepare_data
from kprpe_jax.training.runs import NETWORK
from kprpe_jax.training.state import abstract_state


def evaluate(
    config: ConfigDict,
    workdir: str | os.PathLike,
    *,
    checkpoint: int | str = "best",
    evaluators: Sequence[str] = (),
    weights: str | None = None,
) -> dict[str, float]:
    """Restore a checkpoint, or read published weights, and run evaluators.

    Args:
      config: of the run; what `runs.NETWORK` does not name may differ from training.
      workdir: the run's folder; nothing in it is changed.
      checkpoint: a step, "last" or "best", as `restore_for_eval`.
      evaluators: names; all of the config's by default.
      weights: file of published weights (`Task.import_weights`) in place of a
        checkpoint; for recognizers see `evaluate_recognizer`.
    Returns: {"evaluator/metric": value}, and `step`, the checkpoint's.
    Raises: ValueError: unknown evaluator, or none at all; no such checkpoint, or
      another network's; weights of another network, or of a task that reads none.
    """
    mesh = prepare(config)
    task = tasks.build(config, mesh)
    names = choose_evaluators(evaluators, task.evaluators)
    if weights is not None:
        return run_evaluators(task, names, _published(task, weights, mesh), mesh)
    state = restore_for_eval(workdir, checkpoint, abstract_state(task, mesh), config)
    return {"step": int(state.step), **run_evaluators(task, names, state, mesh)}


def evaluate_recognizer(
    config: ConfigDict, recognizer: Recognizer, *, evaluators: Sequence[str] = ()
) -> dict[str, float]:
    """Run the evaluators of faces of a config on any recognizer.

    Args:
      config: reads data, evals and mesh; what it says of a network is not looked at.
      recognizer: from `load_recognizer`.
      evaluators: names; all of the config's by default.
    Returns: {"evaluator/metric": value}.
    Raises: ValueError: as `evaluate`; images of another size than the recognizer's.
    """
    mesh = prepare(config)
    built = faces.evaluators(config, needs_keypoints=recognizer.uses_keypoints)
    names = choose_evaluators(evaluators, built)
    return evaluate_all({name: built[name] for name in names}, recognizer, mesh)


def with_network(config: ConfigDict, run: ConfigDict) -> ConfigDict:
    """A config whose fields of `runs.NETWORK` are those of a run.

    Raises: ValueError: a config of another task than the run's.
    """
    if config.task != run.task:
        raise ValueError(
            f"--config must be of the run's task {run.task}; got one of {config.task}"
        )
    joined = ConfigDict(config.to_dict())
    for field in NETWORK:
        section, _, name = field.partition(".")
        if name:
            joined[section][name] = run[section][name]
        elif section in run:
            joined[section] = run[section]
        elif section in joined:
            del joined[section]
    return joined


def with_published(config: ConfigDict, network: str) -> ConfigDict:
    """A config whose network is a published one of its task.

    Args:
      config: whose data and evaluators are wanted.
      network: of `registry.NETWORKS`: a pair matcher or a gait network; others change
        nothing.
    Raises: ValueError: a config of another task.
    """
    published = registry.NETWORKS[network]
    task = {"pair matcher": "pair_matching", "gait": "gait"}.get(published.kind)
    if task is None:
        return config
    if config.task != task:
        raise ValueError(
            f"--config must be of the task {task}, which {network} is for; got one of "
            f"{config.task}"
        )
    config, module = ConfigDict(config.to_dict()), published.make()
    if task == "gait":
        kept = [k for k in config.model if k in ("dtype", *START_FIELDS)]
        section = gait.model_section(module) | {k: config.model[k] for k in kept}
        config.backbone = next(
            n for n, path in registry.GAIT_NETWORKS.items() if path == published.build
        )
        config.model = ConfigDict(section)
        if hasattr(module, "num_classes"):
            config.data.num_classes = module.num_classes
    else:
        config.model.update(pair_matching.model_section(module))
        config.data.image_shape = (*published.input_spec.image_size, 3)
        config.train_backbone = not config.model.window_size  # it is in the file
    return config


def prepare(config: ConfigDict) -> Mesh:
    """Prepare the data that a config names; give the mesh, on which a batch fits."""
    prepare_data(config)
    mesh = mesh_lib.make_mesh(config.mesh)
    mesh_lib.check_batch_size(
        config.evals.batch_size, 1, mesh, field="evals.batch_size"
    )
    return mesh


def choose_evaluators(names: Sequence[str], known: Iterable[str]) -> Sequence[str]:
    """The asked evaluators, or all; ValueError: an unknown one, or none at all."""
    known = list(known)
    check_names(names, known)
    if not known:
        raise ValueError(
            "evaluate: the config must name something to evaluate in its section "
            "evals; got nothing."
        )
    return names or known


class PublishedState(NamedTuple):
    """What evaluators read of a state."""

    params: Any
    collections: dict[str, Any]


def _published(task: Task, weights: str, mesh: Mesh) -> PublishedState:
    if task.import_weights is None:
        raise ValueError("evaluate: this task reads no published weights; name a run")
    variables = jax.device_put(dict(task.import_weights(weights)), replicated(mesh))
    return PublishedState(variables.pop("params"), variables)
