"""Carry weights between PyTorch names and Flax variables by a table of rules.

A network's importer is a list of `Rule`s, mostly written with the group functions below
(`linear`, `conv`, `transformer_block` ...); one function walks the list in each
direction. A rule is pure data: where a PyTorch array goes and how its axes turn.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

_SHOWN = 5  # names of a kind in an error
_LONGEST = 80  # characters of a name in an error
Index = tuple[Any, ...]  # of integers, slices and at most one Ellipsis


@dataclass(frozen=True)
class Rule:
    """One PyTorch array and its place.

    Attributes:
      source: PyTorch name.
      target: path of the Flax variable, collection first: `params/head/linear1/kernel`.
      axes: transpose the PyTorch array so before it is written.
      shape: of the PyTorch array where a reshape, too, is between the two; it is
        transposed first, then reshaped.
      split: shape that the PyTorch array gets before it is transposed.
      index: part of the target that the array fills, such as one layer of a stack;
        empty = all of it.
    """

    source: str
    target: str
    axes: tuple[int, ...] | None = None
    shape: tuple[int, ...] | None = None
    index: Index = ()
    split: tuple[int, ...] | None = None


class WeightLayout(NamedTuple):
    """How a published file maps to the variables of a network.

    Attributes:
      rules: fill `shapes` exactly.
      shapes: of the variables, by path.
      arrays: of the file under the names of the rules; what no output depends on is
        left out. Empty on the way out.
      copies: name -> (array of the file, what it must equal), of what the file holds
        twice or could compute.
      variant: of the network in a word, for messages.
    """

    rules: list[Rule]
    shapes: Mapping[str, tuple[int, ...]]
    arrays: Mapping[str, np.ndarray]
    copies: Mapping[str, tuple[np.ndarray, np.ndarray]] = {}
    variant: str = ""


def linear(
    source: str, target: str, index: Index = (), *, bias: bool = True
) -> list[Rule]:
    """Linear layer: [out, in] -> kernel [in, out], and its bias."""
    return _layer(source, target, (1, 0), index, bias)


def conv(
    source: str, target: str, index: Index = (), *, bias: bool = True
) -> list[Rule]:
    """Convolution: [out, in / groups, h, w] -> kernel [h, w, in / groups, out]."""
    return _layer(source, target, (2, 3, 1, 0), index, bias)


def _layer(
    source: str, target: str, axes: tuple[int, ...], index: Index, bias: bool
) -> list[Rule]:
    """Kernel and bias."""
    rules = [Rule(f"{source}.weight", f"params/{target}/kernel", axes, index=index)]
    if bias:
        rules += [Rule(f"{source}.bias", f"params/{target}/bias", index=index)]
    return rules


def norm(source: str, target: str, index: Index = ()) -> list[Rule]:
    """Scale and bias of any normalization."""
    return [
        Rule(f"{source}.weight", f"params/{target}/scale", index=index),
        Rule(f"{source}.bias", f"params/{target}/bias", index=index),
    ]


def batch_norm(source: str, target: str, index: Index = ()) -> list[Rule]:
    """Scale, bias and running statistics of a batch normalization."""
    stats = f"batch_stats/{target}"
    return [
        *norm(source, target, index),
        Rule(f"{source}.running_mean", f"{stats}/mean", index=index),
        Rule(f"{source}.running_var", f"{stats}/var", index=index),
    ]


def conv_norm(
    conv_source: str, norm_source: str, target: str, act_source: str | None = None
) -> list[Rule]:
    """Convolution without bias, its batch norm and, where named, a PReLU's slope."""
    rules = conv(conv_source, f"{target}/conv", bias=False)
    rules += batch_norm(norm_source, f"{target}/norm")
    if act_source is not None:
        rules.append(Rule(f"{act_source}.weight", f"params/{target}/act/slope"))
    return rules


def transformer_block(
    source: str,
    target: str,
    index: Index = (),
    *,
    qkv_bias: bool = False,
    mlp: tuple[str, str] = ("fc1", "fc2"),
) -> list[Rule]:
    """Norms, attention and MLP of a block.

    Args:
      source, target, index: of the block.
      qkv_bias: whether the projection to q, k and v has a bias.
      mlp: PyTorch names of the two layers of the MLP.
    """
    return [
        *norm(f"{source}.norm1", f"{target}/norm1", index),
        *linear(f"{source}.attn.qkv", f"{target}/attention/qkv", index, bias=qkv_bias),
        *linear(f"{source}.attn.proj", f"{target}/attention/proj", index),
        *norm(f"{source}.norm2", f"{target}/norm2", index),
        *linear(f"{source}.mlp.{mlp[0]}", f"{target}/mlp/fc1", index),
        *linear(f"{source}.mlp.{mlp[1]}", f"{target}/mlp/fc2", index),
    ]


def embedding_head(source: str, target: str) -> list[Rule]:
    """The head of CVLface's transformers: linear, norm, linear, norm, numbered."""
    return [
        *linear(f"{source}.0", f"{target}/linear1", bias=False),
        *batch_norm(f"{source}.1", f"{target}/norm1"),
        *linear(f"{source}.2", f"{target}/linear2", bias=False),
        *batch_norm(f"{source}.3", f"{target}/norm2"),
    ]


def learned_tokens(
    targets: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]]
) -> list[Rule]:
    """Tokens and position embeddings, [1, 1, C] or [1, N, C] in PyTorch.

    Args:
      targets: PyTorch name -> path of the variable; those that are not there have no
        rule.
      shapes: of the variables, by path.
    """
    return [
        Rule(source, target, shape=(1,) * (3 - len(shapes[target])) + shapes[target])
        for source, target in targets.items()
        if target in shapes
    ]


def table_layer(
    source: str, target: str, shapes: Mapping[str, tuple[int, ...]]
) -> list[Rule]:
    """Linear layer to bias tables: [all tables, inputs] -> kernel [inputs, *tables].

    Args:
      source, target: of the layer.
      shapes: of the variables, by path.
    """
    kernel, bias = f"params/{target}/kernel", f"params/{target}/bias"
    inputs, *tables = shapes[kernel]
    size = int(np.prod(tables))
    return [
        Rule(f"{source}.weight", kernel, (1, 0), shape=(size, inputs)),
        Rule(f"{source}.bias", bias, shape=(size,)),
    ]


def variable_shapes(module: nn.Module, *inputs: Any) -> dict[str, tuple[int, ...]]:
    """Shapes of a module's variables by path; nothing is computed."""
    tree = jax.eval_shape(module.init, jax.random.key(0), *inputs)
    flat = traverse_util.flatten_dict(tree, sep="/")
    return {path: leaf.shape for path, leaf in flat.items()}


def image_shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """The same of a `Network`, from one image and its keypoints."""
    images = jnp.zeros((1, *module.image_size, getattr(module, "channels", 3)))
    keypoints = jnp.zeros((1, module.num_keypoints, 2))
    return variable_shapes(module, images, keypoints if module.uses_keypoints else None)


def check_state_dict(
    state_dict: Mapping[str, Any],
    rules: list[Rule],
    shapes: Mapping[str, tuple[int, ...]],
    *,
    network: str,
    advise: Callable[[], str] = str,
) -> None:
    """Compare names and shapes with what the rules need, before anything is copied.

    Args:
      state_dict: anything with a shape, by PyTorch name.
      rules: must fill `shapes` exactly.
      shapes: from `variable_shapes`.
      network: named in the error.
      advise: gives what to do, for the error.
    Raises: ValueError: lists missing, surplus and misshapen names, the first five of
      each kind; step counters (`num_batches_tracked`) may be there.
    """
    sizes = dict.fromkeys(shapes, 0)
    for rule in rules:
        sizes[rule.target] += int(np.prod(_slot_shape(rule, shapes)))
    unfilled = [path for path, size in sizes.items() if size != np.prod(shapes[path])]
    assert not unfilled, f"the rules of {network} do not fill {unfilled}"

    expected = {rule.source: _source_shape(rule, shapes) for rule in rules}
    missing = [name for name in expected if name not in state_dict]
    surplus = [
        name
        for name in state_dict
        if name not in expected and not name.endswith("num_batches_tracked")
    ]
    misshapen = [
        f"{name} (got {list(state_dict[name].shape)}, needs {list(shape)})"
        for name, shape in expected.items()
        if name in state_dict and tuple(state_dict[name].shape) != shape
    ]
    kinds = {"missing": missing, "surplus": surplus, "misshapen": misshapen}
    faults = [f"{kind}: {shorten(names)}" for kind, names in kinds.items() if names]
    if faults:
        advice = advise() or "name the network that these weights are of"
        raise ValueError(
            f"the state dict does not fit {network}; {'; '.join(faults)}; {advice}."
        )


def import_state_dict(
    state_dict: Mapping[str, np.ndarray],
    rules: list[Rule],
    shapes: Mapping[str, tuple[int, ...]],
    *,
    network: str,
    advise: Callable[[], str] = str,
) -> dict[str, Any]:
    """PyTorch arrays to Flax variables.

    Args and Raises: as `check_state_dict`.
    Returns: nested dict of float32 NumPy arrays, collections at the top.
    """
    check_state_dict(state_dict, rules, shapes, network=network, advise=advise)
    flat = {path: np.empty(shape, np.float32) for path, shape in shapes.items()}
    for rule in rules:
        array = state_dict[rule.source]
        if rule.split is not None:
            array = array.reshape(rule.split)
        if rule.axes is not None:
            array = array.transpose(rule.axes)
        flat[rule.target][rule.index] = array.reshape(_slot_shape(rule, shapes))
    return traverse_util.unflatten_dict(flat, sep="/")


def export_state_dict(
    variables: Mapping[str, Any], rules: list[Rule]
) -> dict[str, np.ndarray]:
    """Flax variables to PyTorch arrays; the inverse of `import_state_dict`.

    Takes whatever has the structure of the variables, gradients for instance; rules
    whose target is absent are passed over.

    Returns: float32 arrays by PyTorch name.
    """
    flat = {
        path: np.asarray(jax.device_get(leaf))
        for path, leaf in traverse_util.flatten_dict(variables, sep="/").items()
    }
    shapes = {path: leaf.shape for path, leaf in flat.items()}
    state_dict = {}
    for rule in rules:
        if rule.target not in flat:
            continue
        array, axes = flat[rule.target][rule.index], rule.axes
        shape = _source_shape(rule, shapes)
        if axes is not None:
            turned = tuple((rule.split or shape)[axis] for axis in axes)
            array = array.reshape(turned).transpose(np.argsort(axes))
        state_dict[rule.source] = array.reshape(shape)
    return state_dict


def shorten(names: list[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(name[:_LONGEST] for name in names[:_SHOWN]) + more


def _slot_shape(rule: Rule, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    """Shape of the part of the target that the rule fills."""
    return np.broadcast_to(np.float32(0), shapes[rule.target])[rule.index].shape


def _source_shape(rule: Rule, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    """Shape that the PyTorch array must have."""
    slot = _slot_shape(rule, shapes)
    if rule.shape is not None:
        return rule.shape
    if rule.axes is None:
        return slot
    return tuple(slot[axis] for axis in np.argsort(rule.axes))
