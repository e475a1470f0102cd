"""Load recognizers, detectors, fusion models, matchers: published, files, or runs."""

import logging
import os
from collections.abc import Sequence

import numpy as np
from ml_collections import ConfigDict

from kprpe_jax import registry
from kprpe_jax.backbones.network import Network
from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.core.fingerprint import fingerprint_arrays
from kprpe_jax.core.input_spec import InputSpec
from kprpe_jax.core.paths import absolute, in_bucket, is_bucket, local_file
from kprpe_jax.detection.blaze_detector import blazeface_detector
from kprpe_jax.detection.blazeface import BlazeFaceFull, BlazeFaceShort
from kprpe_jax.detection.detector import (
    CANVASES,
    MAX_FACES,
    Detector,
    aligner_detector,
    retinaface_detector,
)
from kprpe_jax.detection.differentiable_aligner import DifferentiableAligner
from kprpe_jax.detection.face_mesh import FaceMesh
from kprpe_jax.fusion.files import FusionFile, check_fusion, make_fusion
from kprpe_jax.matching.matchers import PairMatcher
from kprpe_jax.packed_networks import PACKED, packed_file
from kprpe_jax.tasks import (
    image_sets,
    joint_alignment,
    landmarks,
    networks,
    pair_matching,
    set_fusion,
)
from kprpe_jax.tasks.recognition import backbone_collections
from kprpe_jax.tasks.task import Task
from kprpe_jax.training.checkpoint import restore_arrays
from kprpe_jax.training.runs import RunSpec, parse_run, read_config, read_origin
from kprpe_jax.training.start import StartWeights, read_start_origin
from kprpe_jax.weights import import_weights
from kprpe_jax.weights.fusions import MEANS, read_fusion
from kprpe_jax.weights.installed import INSTALLED, MESH_FILE, require_installed
from kprpe_jax.weights.programs import is_program_folder, read_exported_recognizer
from kprpe_jax.weights.published import published_recognizer, read_published
from kprpe_jax.weights.recognizer_file import read_recognizer

_LOG = logging.getLogger(__name__)
# Whose runs hold a recognizer.
TASKS = ("recognition", "face_recognition", "joint_alignment")
NO_DETECTOR = "none"  # --detector none: photos are aligned faces
# Fields of `config.data` that say who the classes are.
PEOPLE = ("name", "train_split", "train_identities", "num_classes")


def load_recognizer(
    spec: str, *, style_maps: tuple[str, ...] = (), option: str = "--model"
) -> Recognizer:
    """Load a network with its weights; what it reads is logged in one line.

    Args:
      spec: NAME:FILE, a published network (`registry.NETWORKS`) with its weights; NAME
        alone, one that comes with the package (`packed_networks`) or whose weights are
        installed (`weights.installed`); a .safetensors file, or a folder of programs,
        that `export` wrote; or FOLDER[@CHECKPOINT], a run of `train.py` with "best"
        (the default; the last where the run has no best_metric), "last" or a step. All
        that a run needs is read from its folder.
      style_maps: feature maps of the style statistics; () = the network's own.
      option: that the user gave the spec by, for messages.
    Raises: ValueError: neither of the two; a network that is no recognizer; a file of
      other weights (names and shapes are told); no such checkpoint.
    """
    recognizer = _read_spec(spec, style_maps, option)
    terms = f"; license {recognizer.license}" if recognizer.license else ""
    _LOG.info("%s: %s%s", recognizer.name, recognizer.input_spec.describe(), terms)
    return recognizer


def _read_spec(spec: str, style_maps: tuple[str, ...], option: str) -> Recognizer:
    """Read the recognizer of a spec of any kind."""
    if is_program_folder(spec):
        return _read_program(spec, style_maps)
    run = parse_run(spec)
    if run is not None:
        return read_run(run, option).replace(style_maps=tuple(style_maps))
    if spec in PACKED:
        recognizer = read_recognizer(packed_file(spec))
        return recognizer.replace(style_maps=tuple(style_maps or recognizer.style_maps))
    if _is_exported(spec):
        recognizer = read_recognizer(spec)
        return recognizer.replace(style_maps=tuple(style_maps or recognizer.style_maps))
    return published_recognizer(*_split_spec(option, spec), style_maps=style_maps)


def _read_program(spec: str, style_maps: tuple[str, ...]) -> Recognizer:
    """Read a recognizer from a folder of programs."""
    recognizer = read_exported_recognizer(spec)
    if tuple(style_maps) not in ((), recognizer.style_maps):
        raise ValueError(
            f"--style-maps: the program {spec} was exported with "
            f"{', '.join(recognizer.style_maps) or 'its own'}; export it again."
        )
    return recognizer


def load_detector(
    spec: str,
    *,
    min_score: float = 0.5,
    max_side: int = CANVASES[-1],
    max_faces: int = MAX_FACES,
    mesh_points: Sequence[int] = (),
) -> Detector:
    """Load a face detector with its weights.

    A differentiable aligner gives one face per photo and fits every photo to its own
    size: the photos must be crops around a face.

    Args:
      spec: NAME:FILE, a published detector (`registry.NETWORKS`) with its weights; NAME
        alone, one whose weights are installed; or FOLDER[@CHECKPOINT], a run of the
        task `landmarks`, as `load_recognizer` takes it. Beside BlazeFace's file lies
        FaceMesh's, face_landmark.tflite.
      min_score: faces must score more, 0..1.
      max_side: other detectors shrink larger photos to it, in pixels.
      max_faces: of a photo, that they give; RetinaFace at each of two scales.
      mesh_points: of FaceMesh's 468, that BlazeFace gives after the five keypoints.
    Raises: ValueError: as `load_recognizer`; a side below 32 pixels.
    """
    run = parse_run(spec)
    if run is not None:
        return _read_aligner(run, min_score)
    name, path = _split_spec("--detector", spec)
    published, module, variables = read_published(name, path, "detector")
    options = dict(min_score=min_score, name=name, license=published.license)
    if isinstance(module, BlazeFaceShort | BlazeFaceFull):
        mesh = FaceMesh()
        file = local_file(os.path.join(os.path.dirname(path), MESH_FILE))
        if not os.path.isfile(file):
            raise ValueError(
                f"--detector {spec}: FaceMesh must lie beside it, as {MESH_FILE}; got "
                "none; copy it there."
            )
        return blazeface_detector(
            module,
            variables,
            mesh,
            import_weights(mesh, file),
            max_side=max_side,
            max_faces=max_faces,
            mesh_points=mesh_points,
            **options,
        )
    if mesh_points:
        raise ValueError(
            f"points of FaceMesh come with BlazeFace; got --detector {spec}; name "
            "blazeface_short or blazeface_full."
        )
    if isinstance(module, DifferentiableAligner):
        return aligner_detector(module, variables, **options)
    return retinaface_detector(
        module, variables, max_side=max_side, max_faces=max_faces, **options
    )


def load_fusion(spec: str, recognizer: Recognizer | None = None) -> FusionFile:
    """Load a fusion model with its weights.

    Args:
      spec: as `read_fusion` takes it: `average`, `norm`, `landmark_score`, ...;
        NAME:FILE; a file that `export --fusion` wrote; or FOLDER[@CHECKPOINT], a run of
        the task `set_fusion`, as `load_recognizer` takes it.
      recognizer: whose features will be fused; None = any, which the means do not
        allow.
    Raises: ValueError: none of these; as `check_fusion`.
    """
    run = parse_run(spec)
    if run is None:
        return read_fusion(spec, recognizer)
    file = _read_fusion_run(run)
    if recognizer is not None:
        check_fusion(file, recognizer)
    return file


def _read_fusion_run(run: RunSpec) -> FusionFile:
    """Read the fusion model of a run; its data set is not needed."""
    config = read_config(run.workdir)
    if config.task != "set_fusion" or config.train_backbone:
        raise ValueError(
            f"--fusion {run}: must be a run of set_fusion with a frozen backbone; got "
            f"one of {config.task}; name another run."
        )
    _, params, collections = restore_arrays(
        run.workdir,
        run.checkpoint,
        config,
        lambda path: (
            path.startswith(("params/fusion/", "collections/"))
            and not path.startswith("collections/backbone/")
        ),
    )
    origin = read_origin(run.workdir)
    if not origin:  # a run of an older version
        origin = image_sets.read_features_origin(config)
    return make_fusion(
        set_fusion.make_model(config.fusion, embed_dim=origin["embed_dim"]),
        {"params": params.get("fusion", {}), **collections},
        backbone=origin.get("fingerprint", ""),
    )


def load_matcher(spec: str) -> PairMatcher:
    """Load a network of two images that compares patches.

    Args:
      spec: FOLDER[@CHECKPOINT], a run of the task `pair_matching`, as `load_recognizer`
        takes it; or NAME:FILE, a published one (`registry.NETWORKS`) with its weights.
    Raises: ValueError: as `load_recognizer`.
    """
    run = parse_run(spec)
    if run is None:
        name, path = _split_spec("--matcher", spec)
        return PairMatcher(*read_published(name, path, "pair matcher")[1:])
    config = _read_config(run, "--matcher", "pair_matching")
    if config.train_backbone:
        raise ValueError(
            f"--matcher {run}: must read the patches of a recognizer; got a run that "
            "trained its own CNN; name one that was trained on patches."
        )
    _, params, collections = restore_arrays(
        run.workdir,
        run.checkpoint,
        config,
        lambda path: path.startswith(("params/transformer/", "collections/")),
    )
    variables = networks.own_variables(params, collections, "transformer")
    return PairMatcher(pair_matching.make_model(config.model), variables)


def load_start(spec: str, config: ConfigDict, task: Task) -> StartWeights:
    """Read the weights that a run starts from.

    Args:
      spec: `config.model.weights`: NAME:FILE, a published network of a kind that the
        task has a place for; a .safetensors file that `export` wrote, or the name of
        one that comes with the package (`packed_networks`); or a run,
        FOLDER[@CHECKPOINT], of the same task, of which everything is read, or of one
        that holds a recognizer.
      config: of the run that starts.
      task: that is trained.
    Raises: ValueError: as `load_recognizer`; a network or run that the task has no
      place for; a recognizer that reads other colors or another range than the config
      says.
    """
    run = parse_run(spec)
    if run is not None and read_config(run.workdir).task == config.task:
        return _read_state(run, config, task)
    option = "config.model.weights"
    exported = spec in PACKED or _is_exported(spec)
    if run is None and not exported:
        name, path = _split_spec(option, spec)
        kind = registry.network(name).kind if name in registry.NETWORKS else None
        if kind and kind != "recognizer":
            _check_place(spec, kind, config, task)
            published, module, variables = read_published(name, path, kind)
            return StartWeights(
                task.places[kind](variables),
                getattr(module, "grid", None),
                False,
                fingerprint_arrays(name, variables),
                published.license,
            )
    _check_place(spec, "recognizer", config, task)
    recognizer = load_recognizer(spec, option=option)
    _check_input(spec, recognizer.input_spec, config)
    return StartWeights(
        task.places["recognizer"](recognizer.variables),
        recognizer.grid,
        False,
        recognizer.fingerprint,
        recognizer.license,
    )


def _read_state(run: RunSpec, config: ConfigDict, task: Task) -> StartWeights:
    """Read all that a run of the same task has trained."""
    other = read_config(run.workdir)
    if config.task in TASKS:
        spec = networks.input_spec(other, networks.make_network(other))
        _check_input(str(run), spec, config)
    _, params, collections = restore_arrays(
        run.workdir,
        run.checkpoint,
        other,
        lambda path: path.startswith(("params/", "collections/")),
    )
    variables = {"params": params, **collections}
    grid = task.grid and networks.make_network(other).grid
    same = all(other.data.get(n, None) == config.data.get(n, None) for n in PEOPLE)
    license = read_start_origin(run.workdir).get("license", "")
    fingerprint = fingerprint_arrays(config.task, variables)
    return StartWeights(variables, grid, same, fingerprint, license)


def _check_place(spec: str, kind: str, config: ConfigDict, task: Task) -> None:
    if kind not in task.places:
        kinds = " or ".join(f"of a {name}" for name in task.places)
        raise ValueError(
            f"config.model.weights {spec}: must be weights {kinds or 'of a run'} or a "
            f"run of {config.task}; got those of a {kind}, for which the task "
            f"{config.task} has no place; name others."
        )


def _check_input(spec: str, trained: InputSpec, config: ConfigDict) -> None:
    """Raise ValueError where a run would show the network other numbers."""
    if config.task not in TASKS:
        return
    module = networks.make_network(config)
    names = ("color", "mean", "scale")
    got, want = (
        {name: getattr(x, name) for name in names}
        for x in (networks.input_spec(config, module), trained)
    )
    changes = [f"config.input.{n}={want[n]}" for n in names if got[n] != want[n]]
    if changes:
        raise ValueError(
            f"config.model.weights {spec}: must read what the run shows it; the "
            f"network of the weights reads {want}, the run shows {got}; set "
            f"{', '.join(changes)}."
        )


def absolute_spec(spec: str) -> str:
    """A SPEC with the absolute path of its file or run, as any folder can use it."""
    if spec in MEANS:
        return spec
    run = parse_run(spec)
    if run is not None:
        return str(run._replace(workdir=absolute(run.workdir)))
    if is_name_alone(spec) or in_bucket(spec):
        return spec
    name, colon, path = spec.rpartition(":")
    return f"{name}{colon}{os.path.abspath(path)}"


def is_name_alone(spec: str) -> bool:
    """Whether a SPEC is a name that needs no file: its weights lie in a package."""
    return spec in INSTALLED or spec in PACKED


def _is_exported(spec: str) -> bool:
    """Whether a SPEC is a .safetensors file alone, without the name of a network."""
    return spec.endswith(".safetensors") and (":" not in spec or is_bucket(spec))


def _split_spec(option: str, spec: str) -> tuple[str, str]:
    """NAME:FILE, or the name of a network whose weights are installed."""
    if spec in INSTALLED:
        return spec, require_installed(spec, option)
    name, colon, path = spec.partition(":")
    if not colon or is_bucket(spec):
        exported = "" if option == "--detector" else " a file that `export` wrote,"
        raise ValueError(
            f"{option} {spec}: must be NAME:FILE, a published network with its "
            f"weights,{exported} or the folder of a run, FOLDER[@CHECKPOINT], or "
            f"{' or '.join((*INSTALLED, *PACKED))} alone; got none of these."
        )
    return name, path


def _read_config(run: RunSpec, option: str, *tasks: str) -> ConfigDict:
    """The config of a run, which must be of one of these tasks."""
    config = read_config(run.workdir)
    if config.task not in tasks:
        raise ValueError(
            f"{option} {run}: must be a run of {', '.join(tasks)}; got one of "
            f"{config.task}; name another run."
        )
    return config


def _read_aligner(run: RunSpec, min_score: float) -> Detector:
    """Read the differentiable aligner of a run of the task `landmarks`."""
    config = _read_config(run, "--detector", "landmarks")
    _, params, collections = restore_arrays(
        run.workdir,
        run.checkpoint,
        config,
        lambda path: path.startswith(("params/", "collections/")),
    )
    return aligner_detector(
        landmarks.make_model(config.model),
        {"params": params, **collections},
        min_score=min_score,
        name=f"landmarks of {run}",
    )


def read_run(run: RunSpec, option: str = "--model") -> Recognizer:
    """Read the recognizer of a run; its data set is not needed.

    Raises: ValueError: a run of a task without a recognizer, no such checkpoint, or
      another network than the config says.
    """
    config = _read_config(run, option, *TASKS)
    module = _make_network(config, run)
    _, params, collections = restore_arrays(
        run.workdir,
        run.checkpoint,
        config,
        lambda path: path.startswith(("params/backbone/", "collections/")),
    )
    variables = {"params": params["backbone"], **backbone_collections(collections)}
    spec = networks.input_spec(config, module)
    license = read_start_origin(run.workdir).get("license", "")
    return Recognizer(variables, module, spec, f"{config.backbone} of {run}", license)


def _make_network(config: ConfigDict, run: RunSpec) -> Network:
    """The network of a run; an aligner's template was saved when training began."""
    if config.task != "joint_alignment":
        return networks.make_network(config)
    template = read_origin(run.workdir).get("template")
    if template is None:  # a run of an older version
        template = joint_alignment.make_template(config)
    return joint_alignment.make_network(config, np.float32(template))
