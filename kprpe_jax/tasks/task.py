"""What the one training loop needs to know of a task."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import grain
import jax
from jax.sharding import Mesh, PartitionSpec

from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.evaluation.evaluators import Evaluator


class TrainingRows(NamedTuple):
    """What training reads.

    Attributes:
      source: rows with random access.
      order: endless stream of row numbers (`data.order`).
    """

    source: Sequence
    order: grain.MapDataset


class Task(NamedTuple):
    """A network with its data, its loss and its evaluators.

    Attributes:
      init: rng key -> variables {"params": tree, other collections: trees}.
      loss: (params, collections, batch, rng, *, train) -> (float32 scalar, (new
        collections, metrics {name: float32 scalar})). Augmentation is part of it.
      open_training: seed -> TrainingRows.
      check_batch: host batch -> None; raises ValueError, one sentence, for rows that
        the loss cannot take.
      evaluators: name -> (recognizer, mesh) -> {metric: float}, of `config.evals`;
        where the task has no `recognizer`, they take the state instead.
      recognizer: state -> the Recognizer that it holds; None = no recognizer.
      sharding_rules: (regex over the parameter's path, PartitionSpec), first match
        wins; parameters that match none follow the mesh's default.
      sample_classes: (batch, rng) -> ClassSample: the class centers that a step updates
        (`training.sampled_rows`); None = all.
      import_weights: file of published weights -> variables for the evaluators,
        {"params": tree, other collections}; None = the task reads no such files.
      origin: facts about the data that the network depends on, JSON values; the run
        keeps them, so that it is read without its data, and refuses to continue on
        data with other ones.
      places: kind of a network (`published_networks.KINDS`) -> function: its variables
        -> those of the task that they are, for `config.model.weights`.
      grid: (rows, columns) of tokens of the trained network; None = it has none.
      row: shapes of a row of training, for programs compiled without data; {} = the
        data have them.
    """

    init: Callable[..., Any]
    loss: Callable[..., Any]
    open_training: Callable[[int], TrainingRows]
    check_batch: Callable[[dict], None]
    evaluators: dict[str, Evaluator]
    sharding_rules: tuple[tuple[str, PartitionSpec], ...] = ()
    sample_classes: Callable[..., Any] | None = None
    import_weights: Callable[[str], dict[str, Any]] | None = None
    origin: Mapping[str, Any] = MappingProxyType({})
    recognizer: Callable[[Any], Recognizer] | None = None
    places: Mapping[str, Callable[[Any], dict[str, Any]]] = MappingProxyType({})
    grid: tuple[int, int] | None = None
    row: Mapping[str, jax.ShapeDtypeStruct] = MappingProxyType({})


def run_evaluators(
    task: Task, names: Iterable[str], state: Any, mesh: Mesh
) -> dict[str, float]:
    """Run some of a task's evaluators; returns {"evaluator/metric": value}."""
    subject = task.recognizer(state) if task.recognizer else state
    return evaluate_all({name: task.evaluators[name] for name in names}, subject, mesh)


def evaluate_all(
    evaluators: Mapping[str, Evaluator], subject: Any, mesh: Mesh
) -> dict[str, float]:
    """Run evaluators on a recognizer (or a state): {"evaluator/metric": value}."""
    return {
        f"{name}/{metric}": value
        for name, evaluate in evaluators.items()
        for metric, value in evaluate(subject, mesh).items()
    }
