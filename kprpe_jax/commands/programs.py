"""What `export --format stablehlo|onnx` does: write programs, then compare them."""

import argparse
import sys
from typing import Any

_IMAGES = 8  # that a program is compared on
_CANVAS = 256  # pixels, of those that a detector is compared on


def export_programs(options: argparse.Namespace) -> None:
    """Write the programs of a recognizer, a fusion model or a detector."""
    from kprpe_jax.recognizers import load_detector, load_fusion, load_recognizer
    from kprpe_jax.weights import program_check as check
    from kprpe_jax.weights import programs

    names = ("model", "fusion", "detector")
    given = [f"--{name}" for name in names if getattr(options, name)]
    if given not in (["--model"], ["--model", "--fusion"], ["--detector"]):
        raise ValueError(
            "--format stablehlo takes --model, --model with --fusion (whose features "
            f"it fuses), or --detector; got {' and '.join(given) or 'none of them'}."
        )
    folder, platforms = programs.check_folder(options.output), options.platforms
    if options.detector:
        detector = load_detector(options.detector)
        programs.export_detector(folder, detector, platforms)
        images, _, which = _images(options, (_CANVAS, _CANVAS), layout="free")
        difference = check.check_detector_programs(folder, detector, images)
        _end(folder, detector.name, difference, which)
        return
    recognizer = load_recognizer(options.model, style_maps=options.style_maps)
    _say_kernels(recognizer.module)
    images, keypoints, which = _images(options, recognizer.image_size)
    if options.fusion:
        file = load_fusion(options.fusion, recognizer)
        programs.export_fusion(folder, file, recognizer.shapes(), platforms)
        features = recognizer.features(images, keypoints)
        difference = check.check_fusion_programs(folder, file, features)
        _end(folder, type(file.model).__name__, difference, which)
        return
    exported = programs.export_recognizer(folder, recognizer, platforms)
    difference = check.check_recognizer(recognizer, exported.embed, images, keypoints)
    _end(folder, recognizer.name, difference, which)


def export_onnx_file(options: argparse.Namespace) -> None:
    """Write a recognizer as an ONNX file, and run it beside the network."""
    import os
    from functools import partial

    from kprpe_jax.commands.main import RunError
    from kprpe_jax.recognizers import load_recognizer
    from kprpe_jax.weights import onnx_program
    from kprpe_jax.weights import program_check as check

    if not options.model or options.fusion or options.detector:
        raise ValueError("--format onnx: is of recognizers; give --model alone.")
    onnx_program.check_onnx(options.output)
    recognizer = load_recognizer(options.model)
    _say_kernels(recognizer.module)
    images, keypoints, which = _images(options, recognizer.image_size)
    onnx_program.export_onnx(options.output, recognizer)
    run = partial(onnx_program.run_onnx, options.output)
    difference = check.check_recognizer(recognizer, run, images, keypoints)
    found = check.Agreement(difference, which, "onnxruntime, cpu")
    if not difference <= check.MOST:
        os.remove(options.output)
        raise RunError(f"{options.output}: the file {found.describe()}: it is not kept")
    sys.stdout.write(f"{recognizer.name}: {found.describe()}; in {options.output}\n")


def _say_kernels(module: Any) -> None:
    """Say that a network computes its attention otherwise once it is a program."""
    inner = getattr(module, "backbone", module)
    if getattr(inner, "attention", "xla") != "xla":
        sys.stderr.write(
            "note: the program has XLA's attention in place of the Pallas kernel, "
            "which is code of one platform\n"
        )


def _end(folder: str, name: str, difference: float, which: str) -> None:
    """Store and say how well the programs agree."""
    import jax

    from kprpe_jax.commands.main import RunError
    from kprpe_jax.weights.program_check import Agreement, keep_agreement
    from kprpe_jax.weights.programs import ABOUT

    found = Agreement(difference, which, jax.default_backend())
    if not keep_agreement(folder, found):
        raise RunError(f"{folder}: the program {found.describe()}: it is not used")
    sys.stdout.write(f"{name}: {found.describe()}; {ABOUT} says more; in {folder}\n")


def _images(
    options: argparse.Namespace, size: tuple[int, int], layout: str = "aligned"
) -> tuple[Any, Any, str]:
    """Images [B, *size, 3] in [-1, 1] to compare on, keypoints, and which they are."""
    import numpy as np
    from PIL import Image

    from kprpe_jax.core.input_spec import to_unit_range
    from kprpe_jax.data.read_photos import read_photos
    from kprpe_jax.data.synthetic.faces import render_faces

    height, width = size
    number = np.arange(_IMAGES)
    faces = render_faces(0, number // 2, number % 2, size=max(size), layout=layout)
    pixels, which = np.asarray(faces.images), f"{_IMAGES} rendered faces"
    if options.photos:
        read = (x for _, x in read_photos(options.photos) if not isinstance(x, str))
        photos = [x for x, _ in zip(read, number, strict=False)]
        if len(photos) < 4:
            raise ValueError(
                f"--photos {options.photos}: there must be four photos to compare the "
                f"program on; got {len(photos)}."
            )
        pixels = np.stack(
            [np.asarray(Image.fromarray(x).resize((width, height))) for x in photos]
        )
        which = f"{len(photos)} photos"
    left = (pixels.shape[2] - width) // 2
    pixels = pixels[:, :height, left : left + width]
    points = np.asarray(faces.keypoints)[: len(pixels)]
    return to_unit_range(pixels), points, which
