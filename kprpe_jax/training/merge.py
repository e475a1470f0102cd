"""Weights of one network as the start of another: merged by path, by stated rules.

An array of the same path and shape is taken. One of another shape is fitted, where a
rule says how, or refused:
- `position_embedding` of another grid of tokens: its map is resized, bicubic (Keys, a =
  -1/2, pixel centers at the half), in float32;
- the first linear layer of a head that flattens the tokens of another grid: the map of
  its weights is resized the same way, times the old number of tokens over the new one,
  so that a map of features that is constant gives what it gave;
- tables of KP-RPE with more keypoints: the rows of the first keypoints, which must be
  the same points, are taken, those of the further ones are zero: the bias at the start
  is what it was. With fewer the bias would be another one: refused;
- blocks under `scan` and unrolled ones are stacked and unstacked;
- class centers of the same classes, padded for another mesh, are cut or padded.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

POSITION_EMBEDDING = re.compile(r"(^|/)position_embedding$")
FLATTENING_LAYER = re.compile(r"(^|/)head/linear1/kernel$")
KEYPOINT_KERNEL = re.compile(r"(^|/)(bias_tables|keypoint_bias_\d+)/(hidden/)?kernel$")
CLASS_CENTERS = re.compile(r"(^|/)class_centers$")
# What belongs to the people of a training set and to no others.
CLASSES = re.compile(
    r"^params/((.*/)?class_centers|classifier/(kernel|bias)|heads/classes)$"
)
_SCANNED = re.compile(r"(^|/)blocks/")
_UNROLLED = re.compile(r"(^|/)blocks_(\d+)/")


class Merged(NamedTuple):
    """What a merge gives; paths as "params/backbone/head/kernel", sorted.

    Attributes:
      arrays: path -> array of the shape that the new network has.
      fitted: path -> how, in words: a part of `arrays`.
      new: paths that the weights do not have; they start as without weights.
      aside: paths of the weights that the new network does not have.
    """

    arrays: dict[str, np.ndarray]
    fitted: dict[str, str]
    new: list[str]
    aside: list[str]

    def describe(self) -> list[str]:
        """Lines for people: taken, resized, new, left aside."""
        taken = {path: x for path, x in self.arrays.items() if path not in self.fitted}
        numbers = sum(x.size for x in taken.values())
        lines = [f"taken: {len(taken)} arrays ({numbers / 1e6:.3g} M numbers)"]
        by_how: dict[str, list[str]] = {}
        for path, how in self.fitted.items():
            by_how.setdefault(how, []).append(path)
        lines += [f"{how}: {_few(paths)}" for how, paths in by_how.items()]
        lines.append(f"new: {_few(self.new)}")
        lines.append(f"left aside: {_few(self.aside)}")
        return lines


def merge(
    stored: Mapping[str, np.ndarray],
    wanted: Mapping[str, Any],
    *,
    spec: str,
    grids: tuple[tuple[int, int] | None, tuple[int, int] | None] = (None, None),
    num_classes: int = 0,
) -> Merged:
    """Fit the arrays of one network to another.

    Args:
      stored: path -> array of the weights.
      wanted: path -> array, or its shape and dtype, of the new network.
      spec: of the weights, for messages.
      grids: (rows, columns) of tokens of the weights and of the new network; None =
        not known.
      num_classes: C, of which the new class centers may have padded rows.
    Returns: `Merged`; the arrays have the dtypes that are wanted.
    Raises: ValueError: nothing fits, or less than half of the weights; arrays whose
      shapes differ and that no rule fits.
    """
    stored = _match_scan(stored, wanted)
    arrays, fitted, refused = {}, {}, {}
    for path in sorted(stored.keys() & wanted.keys()):
        value, shape = np.asarray(stored[path]), tuple(wanted[path].shape)
        if value.shape != shape:
            value, how = _fit(path, value, shape, grids, num_classes)
            if value is None:
                refused[path] = stored[path].shape, shape, how
                continue
            fitted[path] = how
        arrays[path] = np.asarray(value, wanted[path].dtype)
    aside = sorted(stored.keys() - wanted.keys())
    if refused:
        raise ValueError(_refusal(spec, refused))
    counted = [path for path in stored if not CLASSES.search(path)]
    total = sum(np.size(stored[path]) for path in counted)
    fitting = sum(np.size(stored[path]) for path in counted if path in arrays)
    if not fitting or 2 * fitting < total:
        placed = sum(path in arrays for path in counted)
        raise ValueError(
            f"config.model.weights {spec}: must be weights of the network that is "
            f"trained; {placed or 'none'} of their {len(counted)} arrays have a place "
            f"in it, {_few(aside, 3)} have not; name other weights, or change "
            "config.backbone and config.model."
        )
    return Merged(arrays, fitted, sorted(wanted.keys() - stored.keys()), aside)


def resize_grid(
    values: np.ndarray, old: tuple[int, int], new: tuple[int, int]
) -> np.ndarray:
    """Resize a map whose cells are rows: bicubic, in float32.

    Args:
      values: [rows * columns, ...], row by row.
      old, new: (rows, columns).
    Returns: float32 [new rows * new columns, ...].
    """
    rest = values.shape[1:]
    maps = np.float32(values).reshape(*old, -1)
    shape = (*new, maps.shape[-1])
    resized = jax.image.resize(maps, shape, "cubic", antialias=False)
    return np.asarray(resized).reshape(new[0] * new[1], *rest)


def _fit(
    path: str,
    value: np.ndarray,
    shape: tuple[int, ...],
    grids: tuple[tuple[int, int] | None, tuple[int, int] | None],
    num_classes: int,
) -> tuple[np.ndarray | None, str]:
    """An array in another shape and how; None and why not."""
    same_rest = value.shape[1:] == shape[1:]
    if KEYPOINT_KERNEL.search(path) and same_rest:
        if shape[0] < len(value):
            return None, (
                f"tables of {len(value) // 2} keypoints do not shrink to "
                f"{shape[0] // 2}: the bias would be another one; set "
                "config.model.position_options.num_keypoints to that of the weights, "
                "or to more"
            )
        grown = np.zeros(shape, value.dtype)
        grown[: len(value)] = value
        return grown, f"grown from {len(value) // 2} to {shape[0] // 2} keypoints"
    if CLASS_CENTERS.search(path) and same_rest:
        rows = min(num_classes or len(value), len(value))
        return np.resize(value[:rows], shape), "padded for this mesh"
    old, new = grids
    if not (old and new and same_rest):
        return None, ""
    counts = old[0] * old[1], new[0] * new[1]
    how = f"resized from {old[0]} x {old[1]} to {new[0]} x {new[1]} tokens"
    if POSITION_EMBEDDING.search(path) and (len(value), shape[0]) == counts:
        return resize_grid(value, old, new), how
    if FLATTENING_LAYER.search(path) and not len(value) % counts[0]:
        width = len(value) // counts[0]
        if shape[0] == width * counts[1]:
            maps = value.reshape(counts[0], -1)
            resized = resize_grid(maps, old, new) * (counts[0] / counts[1])
            return resized.reshape(shape), how
    return None, ""


def _refusal(spec: str, refused: dict[str, tuple]) -> str:
    told = "; ".join(
        f"{path} is {list(old)} there and {list(new)} here"
        for path, (old, new, _) in list(refused.items())[:3]
    )
    reasons = [why for _, _, why in refused.values() if why]
    advice = (
        reasons[0]
        if reasons
        else "give config.model the sizes of the weights (the last layer of a "
        "convolutional network depends on image_size), or name other weights"
    )
    return (
        f"config.model.weights {spec}: must have the shapes of the network that is "
        f"trained; {len(refused)} arrays differ: {told}; {advice}."
    )


def _match_scan(
    stored: Mapping[str, np.ndarray], wanted: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Blocks as the new network has them: stacked under `blocks`, or `blocks_N`."""
    stored = dict(stored)
    if any(map(_UNROLLED.search, wanted)):
        for path in [p for p in stored if _SCANNED.search(p)]:
            for layer, array in enumerate(stored.pop(path)):
                stored[_SCANNED.sub(rf"\1blocks_{layer}/", path)] = array
    elif any(map(_SCANNED.search, wanted)):
        layers: dict[str, dict[int, np.ndarray]] = {}
        for path in [p for p in stored if _UNROLLED.search(p)]:
            found = _UNROLLED.search(path)
            name = _UNROLLED.sub(r"\1blocks/", path)
            layers.setdefault(name, {})[int(found[2])] = stored.pop(path)
        for name, found in layers.items():
            stored[name] = np.stack([found[layer] for layer in sorted(found)])
    return stored


def _few(paths: list[str], count: int = 5) -> str:
    """Some paths and how many more there are; "nothing" for none."""
    if not paths:
        return "nothing"
    more = f" and {len(paths) - count} more" if len(paths) > count else ""
    return ", ".join(paths[:count]) + more
