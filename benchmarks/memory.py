"""Peak memory of commands on so many rows, and on ten times as many.

    python -m benchmarks memory [--rows 1000] [--parts import,enroll,...]

Each command is a process of its own on photos of 112 x 112 pixels, with a network of
one layer; its highest resident memory is that which the system reports at its end.
Appends a line to benchmarks/results/.
"""

import argparse
import io
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Sequence

import numpy as np

from kprpe_jax.commands.options import positive, words

SIDE, DIM = 112, 512  # pixels of a photo, numbers of an embedding
_PER_PERSON = 5
_CONFIG = """
from kprpe_jax.configs import lfw_small
from kprpe_jax.configs.base import set_evaluators

def get_config():
    config = lfw_small.get_config()
    set_evaluators(
        config, {{"pairs": dict(type="verification", dataset="faces", pairs={pairs})}}
    )
    config.evals.in_training = ()
    return config
"""
_GALLERY = 1000  # people that queries are searched among
# Part -> what a row is.
PARTS = {
    "import": "photo imported",
    "embed": "photo of a data set embedded",
    "enroll": "photo enrolled",
    "fuse": "photo of one person fused",
    "queries": f"photo searched among {_GALLERY} people",
    "gallery": "person searched, of 20 times as many",
    "eval": "photo of a verification set, with as many pairs",
}
_MORE = {"gallery": 20}  # whose rows are small
# One heap whose freed blocks go back at once: otherwise the peak is that of the C
# library's heaps of each thread, and differs by 100 MiB from run to run.
_ONE_HEAP = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}


def measure(part: str, rows: int, folder: pathlib.Path) -> float:
    """Make what a part reads, run its command, and give the peak memory in MiB.

    Args:
      part: of PARTS.
      rows: photos or people.
      folder: an empty one.
    """
    model = folder / "tiny.safetensors"
    _child("save_network", str(model))
    given = f"--model={model}"
    data = "--name=faces", f"--data-dir={folder / 'data'}"
    if part == "gallery":
        _child("fill_gallery", str(folder), str(rows))
        photos = write_photos(folder / "photos", 10)
    else:
        photos = write_photos(folder / "photos", rows, one=part == "fuse")
    if part == "queries":
        _child("fill_gallery", str(folder), str(_GALLERY))
    gallery = f"--gallery={folder / 'people.gallery'}"
    asked = f"--photos={photos}"
    config = folder / "pairs.py"
    config.write_text(_CONFIG.format(pairs=rows // 20 * 20))
    importing = "import", "folder", f"--source={photos}", *data
    if part in ("embed", "eval"):
        _run(*importing)
    commands: dict[str, Sequence[str]] = {
        "import": importing,
        "embed": ("embed", given, "--dataset=faces", "--name=found", data[1]),
        "enroll": ("enroll", given, gallery, asked),
        "fuse": ("fuse", given, asked, "--fusion=average", f"--output={folder / 'f'}"),
        "queries": ("identify", given, gallery, asked, "--far=1",
                    f"--output={folder / 'answers.json'}"),
        "eval": ("eval", given, f"--config={config}",
                 f"--config.data.dir={folder / 'data'}"),
    }  # fmt: skip
    commands["gallery"] = commands["queries"]
    return _run(*commands[part])


def write_photos(
    folder: pathlib.Path, count: int, *, one: bool = False
) -> pathlib.Path:
    """Write JPEGs of smooth noise, five a person, or all of one.

    Returns: the folder of people.
    """
    from PIL import Image

    rng = np.random.default_rng(0)
    for number in range(count):
        person = folder / f"p{0 if one else number // _PER_PERSON:06d}"
        person.mkdir(parents=True, exist_ok=True)
        small = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8))
        small.resize((SIDE, SIDE)).save(person / f"{number:06d}.jpg")
    return folder


def save_network(path: str) -> None:
    """Write a transformer of one layer with random weights."""
    import jax

    from kprpe_jax.backbones.recognizer import Recognizer
    from kprpe_jax.backbones.vit import PRESETS, ViT
    from kprpe_jax.core.input_spec import InputSpec
    from kprpe_jax.weights.recognizer_file import save_recognizer

    size = SIDE, SIDE
    small = dict(image_size=size, patch_size=28, width=32, depth=1, output_dim=DIM)
    module = ViT(**PRESETS["tiny"] | small, position="absolute")
    images = np.zeros((1, *size, 3), np.float32)
    variables = jax.jit(module.init)(jax.random.key(0), images)
    spec = InputSpec(size)
    save_recognizer(path, Recognizer(variables, module, spec, "one layer", "none"))


def fill_gallery(folder: str, people: str) -> None:
    """Write a gallery of random embeddings, one a person, without patches."""
    from kprpe_jax.core.features import Features
    from kprpe_jax.gallery.gallery import Gallery
    from kprpe_jax.gallery.header import GalleryEntry
    from kprpe_jax.gallery.networks import load_gallery_networks

    place = pathlib.Path(folder)
    path, model = place / "people.gallery", place / "tiny.safetensors"
    header = load_gallery_networks(path, str(model)).header("none")
    rng, count = np.random.default_rng(0), int(people)
    with Gallery(path, create=header) as gallery:
        for start in range(0, count, 1000):
            names = [f"q{i:07d}" for i in range(start, min(start + 1000, count))]
            drawn = rng.standard_normal((len(names), DIM), np.float32)
            gallery.add(
                [
                    GalleryEntry(name, f"{name}/1.jpg", name, Features(x))
                    for name, x in zip(names, drawn, strict=True)
                ]
            )


def _child(function: str, *arguments: str) -> None:
    """Call a function of this file in a process of its own."""
    code = f"import sys; from benchmarks.memory import {function}; "
    code += f"{function}(*sys.argv[1:])"
    subprocess.run([sys.executable, "-c", code, *arguments], check=True)


def _run(*arguments: str) -> float:
    """Run a command to its end; its peak memory in MiB."""
    process = subprocess.Popen(
        [sys.executable, "-m", "kprpe_jax", *arguments],
        env=os.environ | _ONE_HEAP,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    told = io.TextIOWrapper(process.stderr).read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"memory: {arguments[0]} failed: {told[-1000:]}")
    return usage.ru_maxrss / 1024


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--rows", type=positive, default=1000, help="of the smaller")
    parser.add_argument(
        "--parts", type=words, default=list(PARTS), help=f"of {', '.join(PARTS)}"
    )


def run(options: argparse.Namespace) -> None:
    """Measure, print and record."""
    from benchmarks import harness

    unknown = set(options.parts) - set(PARTS)
    if unknown:
        raise ValueError(
            f"--parts: must be of {', '.join(PARTS)}; got {min(unknown)!r}; change it"
        )
    for part in options.parts:
        rows = options.rows * _MORE.get(part, 1)
        sizes = (rows, 10 * rows)
        peaks = []
        for rows in sizes:
            with tempfile.TemporaryDirectory() as folder:
                peaks.append(measure(part, rows, pathlib.Path(folder)))
        small, large = peaks
        found = {"mib": small, "mib_of_ten_times": large, "ratio": large / small}
        found["bytes_a_row"] = (large - small) * 2**20 / (sizes[1] - sizes[0])
        found = {name: round(x, 3) for name, x in found.items()}
        harness.record("memory", dict(part=part, rows=sizes[0]), found)
        sys.stdout.write(
            f"{part:8} {sizes[0]}: {small:.0f} MiB, {sizes[1]}: {large:.0f} MiB, "
            f"x {large / small:.2f}, {found['bytes_a_row']:8,.0f} bytes a row "
            f"({PARTS[part]})\n"
        )
        sys.stdout.flush()
