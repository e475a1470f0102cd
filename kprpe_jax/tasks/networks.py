"""The network that a config names, and its input contract."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from kprpe_jax import registry
from kprpe_jax.backbones.network import Network
from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.core.checks import check_field
from kprpe_jax.core.input_spec import InputSpec
from kprpe_jax.core.mesh import batch_sharding
from kprpe_jax.data.features import read_origin

COMPUTE_TYPES = ("float32", "bfloat16", "float16")
START_FIELDS = ("weights", "freeze")  # of `config.model`, which no network has
BACKBONE = "backbone"  # the collection, or the parameters, of the network below a task


def make_network(config: ConfigDict, mesh: Mesh | None = None) -> Network:
    """Build the network that `config.backbone` names from the section `model`.

    With a mesh, the tokens of a ViT stay spread over all devices by rows, as the batch
    is.

    Raises: ValueError: unknown backbone, or fields of another one (`network_fields`).
    """
    name = registry.find(config.backbone, registry.BACKBONES, "config.backbone")
    network = registry.resolve(registry.BACKBONES[name])
    fields = network_fields(network, config.model)
    if mesh is not None and "sharding" in {f.name for f in dataclasses.fields(network)}:
        fields["sharding"] = batch_sharding(mesh)
    return network(**fields)


def load_backbone(config: ConfigDict) -> Recognizer:
    """Load the network below a task that does not train it from the start.

    Reads backbone (a published name of `registry.NETWORKS`; for a file that `export`
    wrote also an architecture), backbone_weights (its file; with the backbone "" a SPEC
    of `load_recognizer`, such as a run), backbone_style_maps.

    Raises: ValueError: as `load_recognizer`; an unknown feature map.
    """
    load = registry.resolve(registry.LOAD_RECOGNIZER)
    named = f"{config.backbone}:" if config.backbone else ""
    recognizer = load(
        f"{named}{config.backbone_weights}",
        style_maps=tuple(config.get("backbone_style_maps", ())),
        option="config.backbone_weights",
    )
    recognizer.shapes()  # traces it: unknown maps are refused here
    return recognizer


def model_fields(model: ConfigDict) -> dict[str, Any]:
    """The section `model` without what says how training starts (START_FIELDS)."""
    return {k: x for k, x in model.to_dict().items() if k not in START_FIELDS}


def place(
    variables: Mapping[str, Any], *, params: str = "", others: str = ""
) -> dict[str, Any]:
    """Variables of a network as part of those of a task.

    Args:
      variables: {"params": tree, other collections: trees}.
      params, others: the names below which the task has them, "a/b"; "" = at the root.
    """

    def below(tree: Any, path: str) -> Any:
        for name in filter(None, reversed(path.split("/"))):
            tree = {name: tree}
        return tree

    return {
        collection: below(tree, params if collection == "params" else others)
        for collection, tree in variables.items()
    }


def place_backbone(trained: bool, variables: Mapping[str, Any]) -> dict[str, Any]:
    """Variables of the network below a task, as `split_backbone` has them."""
    params, collections = split_backbone(variables, trained=trained)
    return {"params": params, **collections}


def split_backbone(
    variables: Mapping[str, Any], *, trained: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The part of a backbone among a task's parameters, {} where it is frozen, and
    among its collections; `backbone_variables` joins them.
    """
    variables = jax.tree.map(jnp.asarray, dict(variables))
    params = {BACKBONE: variables.pop("params")} if trained else {}
    return params, {BACKBONE: variables}


def backbone_variables(params: Any, collections: Any) -> dict[str, Any]:
    """The variables of the backbone below a task: collection, and what is trained."""
    trained = {"params": params[BACKBONE]} if BACKBONE in params else {}
    return {**collections[BACKBONE], **trained}


def own_collections(collections: Mapping[str, Any]) -> dict[str, Any]:
    """A task's collections but for that of the backbone below it."""
    return {name: tree for name, tree in collections.items() if name != BACKBONE}


def own_variables(params: Any, collections: Any, name: str) -> dict[str, Any]:
    """The variables of a task's own model, whose parameters are those of `name`."""
    return {"params": params[name], **own_collections(collections)}


def features_origin(config: ConfigDict, name: str) -> dict[str, Any]:
    """The recognizer, its fingerprint and contract of a data set of features.

    Raises: ValueError: as `read_origin`.
    """
    stored = read_origin(config.data.dir, name)
    known = ("recognizer", "fingerprint", "input_spec")
    return {field: stored[field] for field in known if field in stored}


def input_spec(config: ConfigDict, network: Network) -> InputSpec:
    """The input contract of a network that is trained or evaluated by a config.

    Reads the section `input`, where there is one: color, mean, scale, framing of
    `InputSpec`; without, faces are RGB in [-1, 1].
    """
    fields = config.input.to_dict() if "input" in config else {}
    return InputSpec(
        tuple(network.image_size), num_keypoints=network.num_keypoints, **fields
    )


def check_data(config: ConfigDict, network: Network) -> InputSpec:
    """Check that the config's data are what the network reads.

    Returns: its input contract.
    Raises: ValueError: images of another size, or more keypoints than the data have.
    """
    spec = input_spec(config, network)
    size = tuple(config.data.image_shape[:2])
    margin = size[1] - spec.image_size[1]
    if size[0] != spec.image_size[0] or margin < 0 or margin % 2:
        raise ValueError(
            f"config.model.image_size must be that of config.data.image_shape, {size}; "
            f"got {spec.image_size}; change one of them."
        )
    _check_keypoints(config, network)
    return spec


def check_canvas(config: ConfigDict, network: Network) -> InputSpec:
    """Check that the network reads what canvas and data give.

    Returns: its input contract.
    Raises: ValueError: its images are not the canvas, or it wants more keypoints than
      the data have.
    """
    spec = input_spec(config, network)
    size = config.canvas.size
    if spec.image_size != (size, size):
        raise ValueError(
            f"config.model.image_size must be the canvas ({size}, {size}); got "
            f"{spec.image_size}; change it or config.canvas.size."
        )
    _check_keypoints(config, network)
    return spec


def _check_keypoints(config: ConfigDict, network: Network) -> None:
    used, given = network.num_keypoints, config.data.num_keypoints
    if network.uses_keypoints and not 1 <= used <= given:
        raise ValueError(
            "config.model.position_options.num_keypoints must lie in 1 .. "
            f"config.data.num_keypoints = {given}; got {used}."
        )


def example_inputs(spec: InputSpec, rows: int) -> tuple[jax.Array, ...]:
    """Zeros of the shapes that the network reads, for `init`."""
    images = jnp.zeros((rows, *spec.image_size, 3))
    if not spec.uses_keypoints:
        return (images,)
    return images, jnp.zeros((rows, spec.num_keypoints, 2))


def init(model: nn.Module, examples: Sequence[jax.Array], rng: jax.Array) -> dict:
    """Variables of a model that trains with dropout, from example inputs."""
    params_rng, dropout_rng = jax.random.split(rng)
    rngs = {"params": params_rng, "dropout": dropout_rng}
    return model.init(rngs, *examples, train=True)


def network_fields(
    network: type[nn.Module], model: ConfigDict, **others: Any
) -> dict[str, Any]:
    """The fields of a network from the config's section `model`.

    Args:
      network: class of a backbone; its fields and those of the section are the same,
        but for fields with a default value.
      model: the section.
      others: fields that other sections say.
    Returns: the fields; lists, as JSON gives them back, have become tuples.
    Raises: ValueError: a field that the network lacks, or that the section lacks; a
      type that nothing is computed in; a size below 1.
    """
    given: dict[str, Any] = {**model_fields(model), **others}
    own = {f.name: f for f in dataclasses.fields(network)}
    needed = {name for name, f in own.items() if f.default is dataclasses.MISSING}
    other, missing = sorted(given.keys() - own), sorted(needed - given.keys())
    if other or missing:
        raise ValueError(
            f"config.model must have the fields of {network.__name__}; got others: "
            f"{', '.join(other) or '(none)'}; and without: "
            f"{', '.join(missing) or '(none)'}; take a config of this backbone."
        )
    fields = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
    if "dtype" in fields:
        check_field("config.model.dtype", fields["dtype"], COMPUTE_TYPES)
        fields["dtype"] = jnp.dtype(fields["dtype"])
    for name, value in fields.items():
        kind = own[name].type
        sizes = value if isinstance(value, tuple) else (value,)
        if int in (kind, *get_args(kind)) and min(sizes, default=1) < 1:
            raise ValueError(f"config.model.{name} must be at least 1; got {value}.")
    return fields
