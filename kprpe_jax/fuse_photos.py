"""Pictures or videos of people in, one embedding file per person out.

    python -m kprpe_jax.fuse_photos --people FOLDER --output embeddings \\
        --fusion fusion.safetensors --weights mobilefacenet.npz

FOLDER holds a folder of aligned faces (JPEG, PNG) or a video file for each person.
Images are read and fused in batches: memory does not grow with their number. With
--keep_state a stream can go on another day: run it with --resume on that day's images
alone, as an image that comes twice counts twice.
"""

import json
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags, logging
from flax.errors import ScopeParamShapeError
from safetensors.numpy import save_file

from kprpe_jax.core.compile_cache import use_compile_cache
from kprpe_jax.core.features import Features
from kprpe_jax.core.unit import unit
from kprpe_jax.data.read_photos import PHOTOS, VIDEOS, read_photos
from kprpe_jax.fusion.cluster_aggregate import ImageSets
from kprpe_jax.fusion.files import (
    FusionFile,
    Stream,
    load_model,
    load_stream,
    save_stream,
)
from kprpe_jax.weights.extractor import KINDS, Extractor, open_extractor

FORMATS = ("npz", "safetensors")

_PEOPLE = flags.DEFINE_string("people", None, "Folder: a folder or video a person.")
_OUTPUT = flags.DEFINE_string("output", "embeddings", "Folder of the files.")
_FUSION = flags.DEFINE_string("fusion", None, "File of `export_fusion`.")
_BACKBONE = flags.DEFINE_enum("backbone", "mobilefacenet", KINDS, "Backbone.")
_WEIGHTS = flags.DEFINE_string("weights", None, "File of its weights.")
_TAPS = flags.DEFINE_list("taps", [], "Maps for the style; default of the backbone.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "Images at once (N').", 1)
_FORMAT = flags.DEFINE_enum("format", "npz", FORMATS, "Of the embedding files.")
_KEEP_STATE = flags.DEFINE_bool("keep_state", False, "Write PERSON.state.npz, too.")
_RESUME = flags.DEFINE_bool(
    "resume", False, "Go on from PERSON.state.npz where it is, and write it again."
)

Step = Callable[[Any, np.ndarray, np.ndarray], Any]


def read_person(path: pathlib.Path, size: tuple[int, int]) -> Iterator[np.ndarray]:
    """The images of a person, uint8 [H, W, 3], one after the other.

    Args:
      path: folder of images, in order of their names, or a video file.
      size: (H, W) that all must have.
    Raises: ValueError: an image or video that cannot be read; another size.
    """
    for name, image in read_photos(path):
        if isinstance(image, str):
            raise ValueError(f"fuse_photos: {path / name} cannot be read: {image}")
        if image.shape != (*size, 3):
            raise ValueError(
                f"fuse_photos: faces must be aligned, {size[0]} x {size[1]} pixels; "
                f"got {image.shape[0]} x {image.shape[1]} in {path / name}; align them "
                "with python -m kprpe_jax align"
            )
        yield image


def make_step(extractor: Extractor, file: FusionFile) -> Step:
    """Compile: (state, images uint8 [N, H, W, 3], mask bool [N]) -> next state.

    Raises: ValueError: the fusion model is of another backbone, or of other sizes.
    """
    if file.backbone and file.backbone != extractor.fingerprint:
        raise ValueError(
            f"fuse_photos: the fusion model is of the backbone {file.backbone}; got "
            f"{extractor.fingerprint} ({extractor.kind}); take the weights and taps "
            "that its features were computed with"
        )
    embed_dim = extractor.sizes()[0]
    if embed_dim != file.model.embed_dim:
        raise ValueError(
            f"fuse_photos: the fusion model needs embeddings of {file.model.embed_dim} "
            f"channels; {extractor.kind} gives {embed_dim}; take its own backbone"
        )

    @jax.jit
    def step(backbone, fusion, state, images, mask):
        features = extractor.extract(backbone, images.astype(jnp.float32) / 127.5 - 1)
        sets = ImageSets(
            Features(features.embeddings[None], style=features.statistics[None]),
            mask[None],
        )
        return file.model.apply(fusion, state, sets, method="update")

    image = jax.ShapeDtypeStruct((1, *extractor.image_size, 3), jnp.uint8)
    mask = jax.ShapeDtypeStruct((1,), bool)
    given = extractor.variables, file.variables, file.model.init_state(1), image, mask
    try:
        jax.eval_shape(step, *given)
    except ScopeParamShapeError as error:
        raise ValueError(
            "fuse_photos: the fusion model needs style statistics of other maps than "
            f"the {extractor.sizes()[1]} channels that {extractor.kind} gives; take "
            "the taps that it was trained with"
        ) from error
    backbone, fusion = jax.device_put((extractor.variables, file.variables))
    return lambda state, images, mask: step(backbone, fusion, state, images, mask)


def go_on(
    stream: Stream, images: Iterator[np.ndarray], step: Step, *, batch_size: int
) -> Stream:
    """Add images to a stream, in batches of one size.

    Args:
      stream: of one set.
      images: uint8 [H, W, 3] each.
      step: of `make_step`.
      batch_size: N'; the last batch is padded.
    """
    state, count = stream
    batch: list[np.ndarray] = []

    def add(state: Any) -> Any:
        padded = np.resize(batch, (batch_size, *batch[0].shape))
        return step(state, padded, np.arange(batch_size) < len(batch))

    for image in images:
        batch.append(image)
        count += 1
        if len(batch) == batch_size:
            state = add(state)
            batch = []
    return Stream(add(state) if batch else state, count)


def write_embedding(
    path: pathlib.Path, stream: Stream, file: FusionFile, *, person: str
) -> None:
    """Write `embedding`, float32 [D], of unit length, with what it is of.

    Args:
      path: .npz or .safetensors file, written in one move.
      stream: of one set with images.
      file: the model of its state.
      person: name.
    """
    fused = file.model.apply(file.variables, stream.state, method="finalize")
    embedding = np.asarray(unit(fused.embeddings)[0])
    about = {"person": person, "images": stream.images, "model": file.fingerprint}
    partial = path.with_name(path.name + ".partial")
    if path.suffix == ".npz":
        with partial.open("wb") as out:
            np.savez(out, embedding=embedding, about=json.dumps(about))
    else:
        text = {name: str(value) for name, value in about.items()}
        save_file({"embedding": embedding}, partial, text)
    partial.replace(path)


def fuse_people(
    people: pathlib.Path,
    output: pathlib.Path,
    extractor: Extractor,
    file: FusionFile,
    *,
    batch_size: int = 64,
    suffix: str = "npz",
    keep_state: bool = False,
    resume: bool = False,
) -> dict[str, int]:
    """Enroll everyone in a folder.

    Args:
      people: holds a folder of images or a video for each person.
      output: folder of the files; made if absent.
      extractor, file: the backbone, and the fusion model of its features.
      batch_size: N'.
      suffix: of FORMATS.
      keep_state: write each stream's state, too.
      resume: go on with the states that are there, and write them again.
    Returns: images of each person's embedding.
    Raises: ValueError: nobody there; a person without images; see `read_person`,
      `make_step` and `load_stream`. Who came before has a file then.
    """
    found = [
        path
        for path in sorted(people.iterdir() if people.is_dir() else ())
        if path.is_dir() or path.suffix.lower() in VIDEOS
    ]
    if not found:
        raise ValueError(
            f"fuse_photos: {people} must hold a folder of images or a video for each "
            "person; got none"
        )
    step = make_step(extractor, file)
    output.mkdir(parents=True, exist_ok=True)
    counts = {}
    for path in found:
        person = path.name if path.is_dir() else path.stem
        if person in counts:
            raise ValueError(
                f"fuse_photos: {people} must hold one folder or video for {person}; "
                "got two; join them"
            )
        state_path = output / f"{person}.state.npz"
        stream = Stream(file.model.init_state(1), 0)
        if resume and state_path.exists():
            stream = load_stream(state_path, file)
        images = read_person(path, extractor.image_size)
        stream = go_on(stream, images, step, batch_size=batch_size)
        if not stream.images:
            raise ValueError(
                f"fuse_photos: {path} must hold images ({', '.join(PHOTOS)}); got "
                "none; add some, or take it away"
            )
        write_embedding(output / f"{person}.{suffix}", stream, file, person=person)
        if keep_state or resume:
            save_stream(state_path, stream, file)
        counts[person] = stream.images
    return counts


def main(argv: list[str]) -> None:
    """Enroll whom the flags name and say what came of it."""
    logging.set_verbosity(logging.WARNING)
    use_compile_cache()
    try:
        if argv[1:]:
            raise ValueError(
                f"fuse_photos: everything is given by flags; got {argv[1:]}; see --help"
            )
        counts = fuse_people(
            pathlib.Path(_PEOPLE.value),
            pathlib.Path(_OUTPUT.value),
            open_extractor(_BACKBONE.value, _WEIGHTS.value, taps=_TAPS.value),
            load_model(_FUSION.value),
            batch_size=_BATCH_SIZE.value,
            suffix=_FORMAT.value,
            keep_state=_KEEP_STATE.value,
            resume=_RESUME.value,
        )
    except ValueError as e:
        sys.exit(f"error: {e}")
    for person, count in counts.items():
        sys.stdout.write(f"{person}: {count} images\n")
    sys.stdout.write(f"{len(counts)} embeddings in {_OUTPUT.value}\n")


if __name__ == "__main__":
    flags.mark_flags_as_required(["people", "fusion", "weights"])
    app.run(main)
