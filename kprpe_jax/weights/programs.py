"""Recognizers, detectors and fusion models as folders of compiled programs.

    FOLDER/program.json              what it is: contract, license, fingerprint, shapes
    FOLDER/weights.npz               the arrays that the programs take first
    FOLDER/recognizer.stablehlo      images, keypoints -> embeddings, patches, style
    FOLDER/update.stablehlo, …       of a fusion model
    FOLDER/detector_512.stablehlo, … of a detector, one a canvas

Only JAX is needed to run them (docs/programs.md).
"""

import json
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax
import jax
import numpy as np

from kprpe_jax.backbones.description import describe
from kprpe_jax.backbones.program_network import ProgramNetwork
from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.core.features import Features
from kprpe_jax.core.input_spec import InputSpec
from kprpe_jax.core.npz import read_npz
from kprpe_jax.core.paths import write_text
from kprpe_jax.core.program import (
    PLATFORMS,
    batch_symbols,
    make_program,
    read_program,
    without_kernels,
    write_program,
)
from kprpe_jax.detection.detector import Detector
from kprpe_jax.fusion.cluster_aggregate import ImageSets
from kprpe_jax.fusion.files import FusionFile, flatten_variables
from kprpe_jax.weights.recognizer_file import tuples

ABOUT, WEIGHTS = "program.json", "weights.npz"
KIND = "kprpe_jax program"
_LARGEST_ABOUT = 1 << 20  # bytes


def export_recognizer(
    folder: str | os.PathLike,
    recognizer: Recognizer,
    platforms: Sequence[str] = PLATFORMS,
) -> Recognizer:
    """Write a recognizer as a program of any batch size.

    Args:
      folder: that is made.
      recognizer: any; its style maps are those of the program.
      platforms: of `make_program`.
    Returns: what `read_exported_recognizer` will give.
    Raises: ValueError: a folder with something in it; as `make_program`.
    """
    weights, spec = flatten_variables(recognizer.variables), recognizer.input_spec
    (b,) = batch_symbols("b")
    inputs = {"images": (b, *spec.image_size, 3)}
    if spec.uses_keypoints:
        inputs["keypoints"] = b, spec.num_keypoints, 2

    plain = recognizer.replace(module=without_kernels(recognizer.module))

    def run(weights: Any, *inputs: Any) -> dict[str, Any]:
        variables = flax.traverse_util.unflatten_dict(weights, sep="/")
        found = plain.replace(variables=variables).features(*inputs)
        return _without_none(found._replace(keypoints=None))

    shapes = [jax.ShapeDtypeStruct(x, np.float32) for x in inputs.values()]
    data = make_program(run, (_shapes(weights), *shapes), platforms)
    folder = _make_folder(folder)
    np.savez(folder / WEIGHTS, **weights)
    _write_about(
        folder,
        of="recognizer",
        name=recognizer.name,
        license=recognizer.license,
        fingerprint=recognizer.fingerprint,
        module=describe(recognizer.module),
        input_spec=spec._asdict(),
        contract="images float32 RGB in [-1, 1], whatever the network reads; keypoints "
        f"in fractions of the image; {spec.describe()}",
        style_maps=recognizer.style_maps,
        grid=recognizer.grid,
        output_dim=recognizer.shapes().embeddings.shape[-1],
        inputs={name: [str(side) for side in x] for name, x in inputs.items()},
        platforms=list(platforms),
        programs={"recognizer": write_program(folder / "recognizer.stablehlo", data)},
    )
    return read_exported_recognizer(folder)


def is_program_folder(path: str | os.PathLike) -> bool:
    """Whether a folder has a program's description."""
    return (pathlib.Path(path) / ABOUT).is_file()


def read_exported_recognizer(folder: str | os.PathLike) -> Recognizer:
    """Read a recognizer that `export_recognizer` wrote.

    Raises: ValueError: another folder, or one that was changed; as `ExportedProgram`.
    """
    about = read_about(folder, "recognizer")
    path = pathlib.Path(folder) / WEIGHTS
    try:
        spec = InputSpec(**tuples(about["input_spec"]))
        network = ProgramNetwork(
            read_program(folder, about["programs"]["recognizer"]),
            about["output_dim"],
            tuple(about["grid"]),
            spec.num_keypoints,
            about["module"],
        )
        found = Recognizer(
            flax.traverse_util.unflatten_dict(dict(read_npz(path)), sep="/"),
            network,
            spec,
            about["name"],
            about["license"],
            tuple(about["style_maps"]),
        )
        whole = found.fingerprint == about["fingerprint"]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{folder}: {ABOUT} is not readable ({str(error)[:160]}); export it again."
        ) from error
    if not whole:
        raise ValueError(
            f"{path}: was changed after it was written: its fingerprint is "
            f"{found.fingerprint[:16]}, and {ABOUT} says {about['fingerprint'][:16]}; "
            "export it again."
        )
    return found


def export_fusion(
    folder: str | os.PathLike,
    file: FusionFile,
    features: Features,
    platforms: Sequence[str] = PLATFORMS,
) -> None:
    """Write a fusion model as programs: start, update, merge, finalize.

    Args:
      folder: that is made.
      file: the model.
      features: shapes of the features of one image, [1, …], of its recognizer.
      platforms: of `make_program`.
    Raises: ValueError: as `export_recognizer`.
    """
    model, weights = file.model, flatten_variables(file.variables)
    b, n = batch_symbols("b, n")
    state = model.init_state(1)
    named, kind = state._asdict(), type(state)
    states = {
        name: jax.ShapeDtypeStruct((b, *x.shape[1:]), x.dtype)
        for name, x in named.items()
    }
    known = _without_none(features._replace(patches=None))
    known["scores"] = jax.ShapeDtypeStruct((1,), np.float32)
    images = {
        name: jax.ShapeDtypeStruct((b, n, *x.shape[1:]), np.float32)
        for name, x in known.items()
    }
    mask = jax.ShapeDtypeStruct((b, n), bool)

    def apply(weights: Any, method: str, *args: Any) -> Any:
        variables = flax.traverse_util.unflatten_dict(weights, sep="/")
        return model.apply(variables, *args, method=method)

    def update(weights: Any, state: Any, images: Any, mask: Any) -> Any:
        rest = dict(images)
        scores = rest.pop("scores", None)
        sets = ImageSets(Features(**rest), mask, scores)
        return apply(weights, "update", kind(**state), sets)._asdict()

    def merge(first: Any, second: Any) -> Any:
        return model.merge(kind(**first), kind(**second))._asdict()

    def finalize(weights: Any, state: Any) -> Any:
        return {"embeddings": apply(weights, "finalize", kind(**state)).embeddings}

    shapes = _shapes(weights)
    images = _read_by(update, shapes, states, images, mask)
    programs = {
        "update": make_program(update, (shapes, states, images, mask), platforms),
        "merge": make_program(merge, (states, states), platforms),
        "finalize": make_program(finalize, (shapes, states), platforms),
    }
    folder = _make_folder(folder)
    np.savez(folder / WEIGHTS, **weights)
    np.savez(folder / "start.npz", **{name: np.asarray(x) for name, x in named.items()})
    _write_about(
        folder,
        of="fusion",
        name=type(model).__name__,
        fingerprint=file.fingerprint,
        backbone=file.backbone,
        contract="start.npz: the state of one set without images, [1, …]; images: "
        f"{', '.join(images)}, [b, n, …]; mask bool [b, n], False = padding",
        inputs={name: [str(side) for side in x.shape] for name, x in images.items()},
        platforms=list(platforms),
        programs={
            name: write_program(folder / f"{name}.stablehlo", data)
            for name, data in programs.items()
        },
    )


def export_detector(
    folder: str | os.PathLike,
    detector: Detector,
    platforms: Sequence[str] = PLATFORMS,
) -> None:
    """Write a detector as programs, one for each canvas; weights are inside of them.

    Args:
      folder: that is made.
      detector: any.
      platforms: of `make_program`.
    Raises: ValueError: as `export_recognizer`.
    """
    (b,) = batch_symbols("b")

    def run(images: Any) -> dict[str, Any]:
        return _without_none(detector.detect(images))

    found = {
        side: make_program(
            run, [jax.ShapeDtypeStruct((b, side, side, 3), np.float32)], platforms
        )
        for side in detector.canvases
    }
    folder = _make_folder(folder)
    programs = {
        str(side): write_program(folder / f"detector_{side}.stablehlo", data)
        for side, data in found.items()
    }
    _write_about(
        folder,
        of="detector",
        name=detector.name,
        license=detector.license,
        fingerprint=detector.fingerprint,
        enlarge=detector.enlarge,
        contract="images float32 [b, S, S, 3], RGB in [-1, 1], -1 where the photo does "
        "not reach; boxes (left, top, right, bottom) and keypoints in fractions of S",
        platforms=list(platforms),
        programs=programs,
    )


def read_about(folder: str | os.PathLike, of: str) -> dict[str, Any]:
    """Read what a folder says of itself.

    Args:
      folder: of programs.
      of: what it must be: `recognizer`, `fusion` or `detector`.
    Raises: ValueError: another folder.
    """
    path = pathlib.Path(folder) / ABOUT
    try:
        text = path.read_text("utf-8") if path.stat().st_size < _LARGEST_ABOUT else ""
        about = json.loads(text)
        found = about["kind"] == KIND and about["of"]
    except (OSError, ValueError, TypeError, KeyError):
        found = "another file"
    if found != of:
        raise ValueError(
            f"{path}: must describe a {of}, as `export --format stablehlo` writes it; "
            f"got {found or 'another file'}."
        )
    return about


def _read_by(
    update: Callable[..., Any], weights: Any, state: Any, images: Any, mask: Any
) -> dict[str, Any]:
    """Those of the images' arrays that an update reads."""
    jaxpr = jax.make_jaxpr(update)(weights, state, images, mask).jaxpr
    used = {id(x) for equation in jaxpr.eqns for x in equation.invars}
    used |= {id(x) for x in jaxpr.outvars}
    first = len(jax.tree.leaves((weights, state)))
    own = jaxpr.invars[first : first + len(images)]
    names = sorted(images)  # the order of a dict's leaves
    return {n: images[n] for n, x in zip(names, own, strict=True) if id(x) in used}


def _make_folder(folder: str | os.PathLike) -> pathlib.Path:
    folder = check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def check_folder(folder: str | os.PathLike) -> pathlib.Path:
    """Raise ValueError unless a folder is new or empty."""
    folder = pathlib.Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"--output {folder}: must name a new or an empty folder.")
    return folder


def _write_about(folder: pathlib.Path, **about: Any) -> None:
    """Last of all: a folder without it is not whole."""
    write_about(folder, {"kind": KIND, **about, "jax": jax.__version__})


def write_about(folder: str | os.PathLike, about: Mapping[str, Any]) -> None:
    """Write what a folder says of itself, in one move."""
    write_text(pathlib.Path(folder) / ABOUT, json.dumps(about, indent=1) + "\n")


def _shapes(tree: Any) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


def _without_none(found: Any) -> dict[str, Any]:
    return {name: x for name, x in found._asdict().items() if x is not None}
