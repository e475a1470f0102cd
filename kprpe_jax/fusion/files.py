"""Fusion models and the states of streams in files.

Both are plain arrays with texts beside them (safetensors, NumPy archives without
pickles): nothing in them is ever executed.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
from typing import Any, NamedTuple

import flax
import flax.linen as nn
import jax
import numpy as np
from flax.errors import ScopeParamShapeError
from safetensors import SafetensorError, safe_open

from kprpe_jax import registry
from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.core.features import Features
from kprpe_jax.core.npz import read_npz
from kprpe_jax.core.paths import as_path, local_file
from kprpe_jax.core.safetensors_file import write_safetensors
from kprpe_jax.fusion.cluster_aggregate import ImageSets


class FusionFile(NamedTuple):
    """A fusion model with its weights.

    Attributes:
      model: of a class in `registry.FUSIONS`.
      variables: its weights and running statistics.
      backbone: fingerprint of the recognizer whose features it fuses; "" = unknown,
        or any.
      fingerprint: text that changes with any of the others.
    """

    model: nn.Module
    variables: Any
    backbone: str
    fingerprint: str


def make_fusion(model: nn.Module, variables: Any, *, backbone: str) -> FusionFile:
    """Join a fusion model with its weights; arguments as `FusionFile`."""
    digest = hashlib.sha256((_describe(model) + backbone).encode())
    for name, array in sorted(flatten_variables(variables).items()):
        digest.update(name.encode() + array.tobytes())
    return FusionFile(model, variables, backbone, digest.hexdigest()[:16])


def save_model(
    path: str | os.PathLike, model: nn.Module, variables: Any, *, backbone: str
) -> FusionFile:
    """Write a fusion model to a .safetensors file, in one move.

    Args:
      path: of the file.
      model, variables, backbone: of `FusionFile`.
    Returns: what `load_model` will give.
    """
    path = as_path(path)
    arrays = flatten_variables(variables)
    metadata = {"model": _describe(model), "backbone": backbone}
    # A model without weights, such as the average, needs something in its file.
    arrays = arrays or {"none": np.zeros(0, np.float32)}
    write_safetensors(path, arrays, metadata)
    return load_model(path)


def flatten_variables(variables: Any) -> dict[str, np.ndarray]:
    """Nested variables as arrays by name, "params/…"."""
    tree = flax.traverse_util.flatten_dict(flax.core.unfreeze(variables), sep="/")
    # Scalars stay scalars. An empty tree, as of the average, is {}.
    return {
        name: np.array(x, order="C")
        for name, x in tree.items()
        if not (isinstance(x, dict) and not x)
    }


def _describe(model: nn.Module) -> str:
    fields = {
        field.name: getattr(model, field.name)
        for field in dataclasses.fields(model)
        if field.name not in ("name", "parent")
    }
    return json.dumps([type(model).__name__, fields], sort_keys=True)


def load_model(path: str | os.PathLike) -> FusionFile:
    """Read a fusion model.

    Raises: ValueError: no such file; a file of something else.
    """
    path = local_file(path)
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        kind, fields = json.loads(metadata["model"])
        paths = {path.partition(":")[2]: path for path in registry.FUSIONS.values()}
        model = registry.resolve(paths[kind])(**fields)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"load_model: {os.fspath(path)} must be a fusion model written by "
            f"save_model; reading it failed ({_first_line(error)}); make one with "
            "`kprpe-jax export --fusion`"
        ) from error
    arrays.pop("none", None)
    variables = flax.traverse_util.unflatten_dict(arrays, sep="/")
    return make_fusion(model, variables, backbone=metadata["backbone"])


def check_fusion(file: FusionFile, recognizer: Recognizer) -> None:
    """Refuse a fusion model of other features than a recognizer gives.

    Raises: ValueError: a model of another recognizer, of embeddings of another width,
      or of other style channels.
    """
    if file.backbone and file.backbone != recognizer.fingerprint:
        raise ValueError(
            f"the fusion model is of the recognizer {file.backbone[:16]}; got "
            f"{recognizer.fingerprint[:16]} ({recognizer.name}); give the --model and "
            "--style-maps that its features were made with"
        )
    shapes = recognizer.shapes()
    if shapes.embeddings.shape[-1] != file.model.embed_dim:
        raise ValueError(
            f"the fusion model needs embeddings of {file.model.embed_dim} channels; "
            f"{recognizer.name} gives {shapes.embeddings.shape[-1]}; take its own "
            "recognizer"
        )
    one = Features(
        shapes.embeddings,
        style=shapes.style,
        keypoints=jax.ShapeDtypeStruct((1, 5, 2), np.float32),
    )
    one = jax.tree.map(lambda x: jax.ShapeDtypeStruct((1, *x.shape), x.dtype), one)
    mask = jax.ShapeDtypeStruct((1, 1), bool)

    def update(variables: Any, state: Any, features: Features, mask: Any) -> Any:
        sets = ImageSets(features, mask)
        return file.model.apply(variables, state, sets, method="update")

    state = file.model.init_state(1)
    try:
        jax.eval_shape(update, file.variables, state, one, mask)
    except ScopeParamShapeError as error:
        raise ValueError(
            "the fusion model needs style statistics of other maps than the "
            f"{shapes.style.shape[-2]} channels that {recognizer.name} gives; give the "
            "--style-maps that it was trained with"
        ) from error


class Stream(NamedTuple):
    """The state of a stream of one person's images.

    Attributes:
      state: of the model, of one set.
      images: how many there were.
    """

    state: Any
    images: int


def save_stream(path: str | os.PathLike, stream: Stream, file: FusionFile) -> None:
    """Write a stream's state to an .npz file, in one move.

    Args:
      path: of the file.
      stream: of one set.
      file: the model that the state is of.
    """
    path = pathlib.Path(path)
    partial = path.with_name(path.name + ".partial")
    arrays = {f"state_{n}": np.asarray(x) for n, x in enumerate(stream.state)}
    with partial.open("wb") as out:
        np.savez(out, **arrays, images=np.int64(stream.images), model=file.fingerprint)
    partial.replace(path)


def load_stream(path: str | os.PathLike, file: FusionFile) -> Stream:
    """Read a stream's state, to continue it.

    Args:
      path: of the file.
      file: the model to continue with.
    Raises: ValueError: no such file; a file of something else; the state of another
      model, or one with another number of clusters, or of other sizes.
    """
    empty = file.model.init_state(1)
    try:
        arrays = read_npz(path)
        state = [arrays[f"state_{n}"] for n in range(len(empty))]
        images, owner = int(arrays["images"]), str(arrays["model"])
    except (OSError, KeyError, ValueError, EOFError) as error:
        raise ValueError(
            f"load_stream: {os.fspath(path)} must be a stream's state written by "
            f"save_stream; reading it failed ({_first_line(error)}); begin the stream "
            "anew"
        ) from error
    got, want = [x.shape for x in state], [x.shape for x in empty]
    if got != want:
        raise ValueError(
            f"load_stream: {os.fspath(path)} must be the state of a model with these "
            f"sizes, {want}; got {got}{_other_clusters(got, want)}; continue with the "
            "model that began the stream, or begin it anew"
        )
    if owner != file.fingerprint:
        raise ValueError(
            f"load_stream: {os.fspath(path)} must be of the model {file.fingerprint}; "
            f"it is of {owner}; continue with the model that began the stream, or "
            "begin it anew"
        )
    return Stream(type(empty)(*state), images)


def _other_clusters(got: list[tuple], want: list[tuple]) -> str:
    if len(got[0]) == len(want[0]) == 3 and got[0][1] != want[0][1]:
        return f", {got[0][1]} clusters and not {want[0][1]}"
    return ""


def _first_line(error: Exception) -> str:
    text = str(error).strip().split("\n")[0]
    return text[:160] or type(error).__name__
