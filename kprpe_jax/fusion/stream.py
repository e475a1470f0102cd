"""Fuse streams of images of any length: the state of a set is all that is kept.

The images of a set come in order and are fused in groups of BATCH_IMAGES, counted from
the first one, whatever the batches in which they arrive: what comes out depends on the
images and their order alone.
"""

import functools
import itertools
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from kprpe_jax.core.features import Features, take
from kprpe_jax.fusion.cluster_aggregate import Fused, ImageSets

BATCH_IMAGES = 256  # N', images of a set that see each other
_BATCH_SETS = 32  # sets at once, at most
_WINDOW = 4096  # images in memory, beside a group that is not complete


class ImageRows(NamedTuple):
    """Images of several sets in a row.

    Attributes:
      sets: int [n], the set of each image, ascending.
      features: [n, ...], host arrays; patches are not read.
      scores: float32 [n] in [0, 1], the detector's; None = 1.
    """

    sets: np.ndarray
    features: Features
    scores: np.ndarray | None = None


def fuse_rows(
    model: nn.Module,
    variables: Any,
    parts: Iterable[ImageRows],
    *,
    batch_images: int = BATCH_IMAGES,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Fuse sets whose images come one set after the other.

    Memory does not depend on the number of images, of a set or in all: groups of like
    size are fused together, and the states of a set's groups are merged.

    Args:
      model: `ClusterAggregate`, `WeightedFusion`, or another with their functions.
      variables: of the model, in evaluation.
      parts: of any lengths; a set may go on in the next one.
      batch_images: N', images of a set that see each other.
    Yields: sets int [k] as they are complete, in order, and their embeddings float32
      [k, D], not normalized.
    Raises: ValueError: sets that do not ascend; sizes that do not fit the model.
    """
    merge, opened, last = partial(_merge, model), None, None
    for rows, final in _windows(parts, batch_images):
        sets = rows.sets
        if (np.diff(sets) < 0).any() or (last is not None and sets[0] < last):
            raise ValueError(
                "fuse_rows: the images of a set must stand side by side and the sets "
                f"ascend; got set {sets.min()} after others; sort the images by set."
            )
        states, owners = _group_states(model, variables, rows, batch_images)
        done, complete = [], []
        starts = np.flatnonzero(np.diff(owners, prepend=owners[0] - 1))
        for begin, end in itertools.pairwise([*starts, len(owners)]):
            own = [jax.tree.map(lambda x, n=n: x[n], states) for n in range(begin, end)]
            if opened is not None and last == owners[begin]:
                own.insert(0, opened)
            elif opened is not None:
                done.append(last)
                complete.append(opened)
            last, opened = owners[begin], functools.reduce(merge, own)
        if final:
            done.append(last)
            complete.append(opened)
        if done:
            yield np.array(done), _embeddings(model, variables, complete)


def merge_images(
    model: nn.Module,
    variables: Any,
    state: Any,
    features: Features,
    scores: np.ndarray | None = None,
) -> Any:
    """Add images to the state of one set.

    Args:
      model, variables: as `fuse_rows`.
      state: of one set.
      features: [n, ...], host arrays, n at most BATCH_IMAGES: they see each other.
      scores: float32 [n], as `ImageRows`.
    Returns: the state of all images, on the host.
    """
    count = len(features.embeddings)
    rows = ImageRows(np.zeros(count, np.int64), features, scores)
    (group,) = _pad_groups(rows, [(0, count)], _padded(count, BATCH_IMAGES), 1)
    return jax.device_get(_update(model, variables, state, group))


def finalize(model: nn.Module, variables: Any, state: Any) -> Fused:
    """What the images of a state become; compiled once for each model."""
    return jax.device_get(_finalize(model, variables, state))


def _windows(
    parts: Iterable[ImageRows], batch_images: int
) -> Iterator[tuple[ImageRows, bool]]:
    """Rows to work on at once, cut where a group of the last set ends; is it the end?

    Groups are counted from the first image of a set.
    """
    held: list[ImageRows] = []
    for part in parts:
        if not len(part.sets):
            continue
        held.append(part)
        if sum(len(x.sets) for x in held) < _WINDOW + batch_images:
            continue
        rows = _concatenate(held)
        own = len(rows.sets) - np.searchsorted(rows.sets, rows.sets[-1])
        # One group at least stays, so that the last window is never empty.
        stay = own % batch_images or batch_images
        end = len(rows.sets) - stay
        yield jax.tree.map(lambda x, end=end: x[:end], rows), False
        held = [jax.tree.map(lambda x, end=end: x[end:], rows)]
    if held:
        yield _concatenate(held), True


def _group_states(
    model: nn.Module, variables: Any, rows: ImageRows, batch_images: int
) -> tuple[Any, np.ndarray]:
    """States [G, 1, ...] of the groups of a window, and the set of each, in order."""
    starts = np.flatnonzero(np.diff(rows.sets, prepend=rows.sets[0] - 1))
    groups = [
        (begin, min(begin + batch_images, end))
        for start, end in itertools.pairwise([*starts, len(rows.sets)])
        for begin in range(start, end, batch_images)
    ]
    sizes = np.array([end - begin for begin, end in groups])
    widths = np.array([_padded(size, batch_images) for size in sizes])
    order, parts = [], []
    for width in np.unique(widths):
        chosen = np.flatnonzero(widths == width)
        sets = max(1, min(_BATCH_SETS, _WINDOW // width))
        batches = _pad_groups(rows, [groups[n] for n in chosen], width, sets)
        empty = model.init_state(sets)
        states = [jax.device_get(_update(model, variables, empty, b)) for b in batches]
        joined = jax.tree.map(lambda *x: np.concatenate(x), *states)
        order.append(chosen)
        count = len(chosen)
        parts.append(jax.tree.map(lambda x, n=count: x[:n, None], joined))
    place = np.argsort(np.concatenate(order))
    states = jax.tree.map(lambda *x: np.concatenate(x)[place], *parts)
    return states, rows.sets[[begin for begin, _ in groups]]


def _pad_groups(
    rows: ImageRows, groups: list[tuple[int, int]], width: int, sets: int
) -> list[ImageSets]:
    """Batches of `sets` groups, padded to `width` images."""
    features = rows.features._replace(patches=None)
    batches = []
    for first in range(0, len(groups), sets):
        chosen = np.array(groups[first : first + sets])
        chosen = np.pad(chosen, ((0, sets - len(chosen)), (0, 0)))
        place = chosen[:, :1] + np.arange(width)
        mask = place < chosen[:, 1:]
        place = np.where(mask, place, 0)
        scores = None if rows.scores is None else rows.scores[place]
        batches.append(ImageSets(take(features, place), mask, scores))
    return batches


def _embeddings(model: nn.Module, variables: Any, states: list[Any]) -> np.ndarray:
    """Fused embeddings float32 [k, D] of k states of one set each."""
    found = []
    for first in range(0, len(states), _BATCH_SETS):
        part = states[first : first + _BATCH_SETS]
        full = part + [part[-1]] * (_BATCH_SETS - len(part))
        joined = jax.tree.map(lambda *x: np.concatenate(x), *full)
        fused = finalize(model, variables, joined)
        found.append(fused.embeddings[: len(part)])
    return np.concatenate(found)


def _padded(size: int, largest: int) -> int:
    """The next power of 4, so that few programs serve all sizes."""
    padded = 1
    while padded < size:
        padded *= 4
    return min(padded, largest)


def _concatenate(parts: list[ImageRows]) -> ImageRows:
    return jax.tree.map(lambda *x: np.concatenate(x), *parts)


@partial(jax.jit, static_argnums=0)
def _update(model: nn.Module, variables: Any, state: Any, sets: ImageSets) -> Any:
    return model.apply(variables, state, sets, method="update")


@partial(jax.jit, static_argnums=0)
def _merge(model: nn.Module, first: Any, second: Any) -> Any:
    return model.merge(first, second)


@partial(jax.jit, static_argnums=0)
def _finalize(model: nn.Module, variables: Any, state: Any) -> Fused:
    return model.apply(variables, state, method="finalize")
