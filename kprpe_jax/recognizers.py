"""Load a recognizer: a published network with its file, or a run with a checkpoint."""

import os

from kprpe_jax import registry
from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.tasks import networks
from kprpe_jax.tasks.recognition import backbone_collections
from kprpe_jax.training.checkpoint import restore_arrays
from kprpe_jax.training.runs import RunSpec, parse_run, read_config

TASKS = ("recognition", "face_recognition")  # whose runs hold a recognizer


def load_recognizer(spec: str, *, style_maps: tuple[str, ...] = ()) -> Recognizer:
    """Load a network with its weights.

    Args:
      spec: NAME:FILE, a published network (`registry.NETWORKS`) with its weights; or
        FOLDER[@CHECKPOINT], a run of `train.py` with "best" (the default; the last
        where the run has no best_metric), "last" or a step. All that a run needs is
        read from its folder.
      style_maps: feature maps of the style statistics; () = the network's own.
    Raises: ValueError: neither of the two; a network that is no recognizer; a file of
      other weights (names and shapes are told); no such checkpoint.
    """
    run = parse_run(spec)
    if run is not None:
        return read_run(run).replace(style_maps=tuple(style_maps))
    name, colon, path = spec.partition(":")
    if not colon:
        raise ValueError(
            f"--model {spec}: must be NAME:FILE, a published network with its weights, "
            "or the folder of a run, FOLDER[@CHECKPOINT]; got neither."
        )
    published = registry.network(name, "recognizer")
    if not os.path.exists(path):
        raise ValueError(f"--model {spec}: there is no file {path}; check the path.")
    module = published.make()
    import_weights = registry.resolve(f"{published.weights}:import_weights")
    return Recognizer(
        import_weights(module, path),
        module,
        published.input_spec,
        name,
        published.license,
        tuple(style_maps),
    )


def read_run(run: RunSpec) -> Recognizer:
    """Read the recognizer of a run; its data set is not needed.

    Raises: ValueError: a run of a task without a recognizer, no such checkpoint, or
      another network than the config says.
    """
    config = read_config(run.workdir)
    if config.task not in TASKS:
        raise ValueError(
            f"--model {run}: must be a run of {', '.join(TASKS)}; got one of "
            f"{config.task}; name another run."
        )
    module = networks.make_network(config)
    _, params, collections = restore_arrays(
        run.workdir,
        run.checkpoint,
        config,
        lambda path: path.startswith(("params/backbone/", "collections/")),
    )
    variables = {"params": params["backbone"], **backbone_collections(collections)}
    spec = networks.input_spec(config, module)
    return Recognizer(variables, module, spec, f"{config.backbone} of {run}")
