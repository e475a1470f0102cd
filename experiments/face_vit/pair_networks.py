"""Networks behind `pair_matching`: trained, restored, and seen as scores of pairs."""

import pathlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from ml_collections import ConfigDict

from kprpe_jax.core import mesh as mesh_lib
from kprpe_jax.core.features import Features
from kprpe_jax.core.input_spec import to_unit_range
from kprpe_jax.core.unit import unit
from kprpe_jax.data.rows import Rows
from kprpe_jax.matching.earth_movers import match_faces
from kprpe_jax.matching.sinkhorn import FAST
from kprpe_jax.matching.two_image import OneImage, score_pairs
from kprpe_jax.recognizers import load_matcher
from kprpe_jax.tasks import pair_matching
from kprpe_jax.training import loop
from kprpe_jax.training.runs import read_config


class Images(NamedTuple):
    """What networks see of N aligned photos.

    Attributes:
      pixels: uint8 [N, 112, 112, 3].
      keypoints: float32 [N, 5, 2].
      labels: int32 [N].
      embeddings: float32 [N, D], of the frozen CNN.
      patches: float32 [N, P, C], its last feature map.
    """

    pixels: np.ndarray
    keypoints: np.ndarray
    labels: np.ndarray
    embeddings: np.ndarray
    patches: np.ndarray

    def select(self, rows: np.ndarray) -> "Images":
        """Some of them."""
        return Images(*(x[rows] for x in self))


class Scorer(NamedTuple):
    """A way to compare.

    Attributes:
      represent: Images -> [N, ...], computed once per image.
      score: compiled; rows of these of both sides, [P, ...] each -> float32 [P].
    """

    represent: Callable[[Images], np.ndarray]
    score: Callable[[Array, Array], Array]


class Trained(NamedTuple):
    """A network of the task pair_matching.

    Attributes:
      model, variables: the transformer.
      inputs: Images -> what it reads, [N, ...].
      scorer: how it compares.
    """

    model: nn.Module
    variables: dict[str, Any]
    inputs: Callable[[Images], np.ndarray]
    scorer: Scorer


@jax.jit
def _dot(first: Array, second: Array) -> Array:
    return (first * second).sum(-1)


@partial(jax.jit, static_argnames="weighting")
def _flow(first: Array, second: Array, weighting: str) -> Array:
    sides = (Features(x[:, 0], x) for x in (first, second))
    return match_faces(*sides, weighting=weighting, solver=FAST).score


def cnn_scorer() -> Scorer:
    """C: cosine of the CNN's embeddings."""
    return Scorer(lambda images: np.asarray(unit(images.embeddings)), _dot)


def earth_movers_scorer(weighting: str = "uniform") -> Scorer:
    """D without its first stage: earth mover's similarity of the patches."""
    return Scorer(lambda images: images.patches, partial(_flow, weighting=weighting))


def network_config(config: ConfigDict, train: Images, seed: int) -> ConfigDict:
    """The config of a run on these people; labels are 0 .. people - 1."""
    config = config.copy_and_resolve_references()
    config.unlock()
    config.seed = seed
    config.data.name = config.evals.pairs.dataset = "memory"
    config.data.num_classes = int(train.labels.max()) + 1
    config.data.train_split, config.evals.pairs.split = "train", "test"
    config.data.train_identities = config.evals.pairs.identities = ()
    if not config.model.window_size:
        config.data.input = "patches"
        config.model.num_patches, config.model.width = train.patches.shape[1:]
    return config.lock()


def train_network(
    config: ConfigDict, workdir: pathlib.Path, train: Images, test: Images
) -> Trained:
    """Train a network of the task pair_matching, or read it where it is trained.

    Args:
      config: from `network_config`.
      workdir: of the run, which continues where it was stopped.
      train: images to train on.
      test: images to verify.
    Returns: the network after the last step.
    Raises: ValueError: as `loop.train`.
    """
    mesh = mesh_lib.make_mesh(config.mesh)
    task = pair_matching.build(config, mesh, partial(_rows, config, train, test))
    loop.train(config, workdir, task=task)
    return read_network(workdir)


def read_network(workdir: pathlib.Path) -> Trained:
    """Read the last checkpoint of a run without a CNN of its own.

    Raises: ValueError: as `load_matcher` and `read_config`.
    """
    config = read_config(workdir)
    model, variables, _ = load_matcher(f"{workdir}@last")
    inputs = _patches if config.data.input == "patches" else _pixels
    if isinstance(model, OneImage):
        embed = jax.jit(lambda x: unit(model.apply(variables, x)))
        scorer = Scorer(lambda images: _in_batches(embed, inputs(images)), _dot)
    else:
        compare = partial(score_pairs, model, variables)
        scorer = Scorer(inputs, jax.jit(compare))
    return Trained(model, variables, inputs, scorer)


def _rows(
    config: ConfigDict,
    train: Images,
    test: Images,
    name: str,
    split: str,
    identities: Sequence[int],
) -> tuple[Rows, np.ndarray]:
    """`pair_data.OpenRows` of what is in memory."""
    del name, identities
    images = train if split == "train" else test
    rows = {"label": images.labels, "id": np.arange(len(images.labels), dtype=np.int32)}
    if config.data.input == "patches":
        rows |= {"patches": images.patches, "embedding": images.embeddings}
    else:
        rows |= {"image": images.pixels, "keypoints": images.keypoints}
    return Rows(rows), images.labels


def _patches(images: Images) -> np.ndarray:
    return images.patches


def _pixels(images: Images) -> np.ndarray:
    return to_unit_range(images.pixels)


def _in_batches(
    embed: Callable[[Array], Array], inputs: np.ndarray, size: int = 64
) -> np.ndarray:
    parts = []
    for start in range(0, len(inputs), size):
        rows = np.minimum(np.arange(start, start + size), len(inputs) - 1)
        parts.append(np.asarray(embed(jnp.asarray(inputs[rows]))))
    return np.concatenate(parts)[: len(inputs)]
