"""A valid small file of each form that the library reads, and what reads it."""

import io
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from safetensors.numpy import save

from kprpe_jax.core.features import Features
from kprpe_jax.core.npz import read_npz
from kprpe_jax.data.feature_file import read_feature_file, write_feature_file
from kprpe_jax.data.idx import read_idx
from kprpe_jax.data.importers.decode import decode_rgb
from kprpe_jax.data.importers.gait_joints import open_joints
from kprpe_jax.data.importers.ijb import read_media, read_pairs, read_scores
from kprpe_jax.data.importers.image_list import open_image_list
from kprpe_jax.data.importers.landmarks import read_landmarks
from kprpe_jax.data.importers.pair_list import read_lfw_pairs
from kprpe_jax.data.importers.record_io import open_record_io
from kprpe_jax.data.importers.tar_images import open_tar_images
from kprpe_jax.data.importers.verification_bin import read_verification_bin
from kprpe_jax.data.importers.video_templates import read_video_templates
from kprpe_jax.data.importers.wider_face import open_wider_face
from kprpe_jax.data.read_photos import read_photos
from kprpe_jax.gallery.gallery import Gallery
from kprpe_jax.weights.dlib_file import read_dlib_file
from kprpe_jax.weights.state_dict import load_state_dict
from kprpe_jax.weights.torch_file import read_torch_file
from tests.data.importers.sources import face, insightface_rec
from tests.gallery.made import make
from tests.weights.dlib_writer import TINY, tiny_file
from tests.weights.tflite_writer import TENSORS, model

FIXTURES = Path(__file__).parents[1] / "fixtures"


class Sample(NamedTuple):
    """A form of files.

    Attributes:
      name: of the file.
      write: makes a valid one, or a folder's worth, at a path.
      read: reads all of it.
    """

    name: str
    write: Callable[[Path], Any]
    read: Callable[[Path], Any]


def _text(text: str) -> Callable[[Path], Any]:
    return lambda path: path.write_text(text)


def _image(kind: str) -> Callable[[Path], Any]:
    pixels = np.arange(16 * 12 * 3, dtype=np.uint8).reshape(16, 12, 3)

    def write(path: Path) -> None:
        Image.fromarray(pixels).save(path, kind)

    return write


def _all(source: Any) -> list:
    return list(source.read(0))


def _decode(path: Path) -> Any:
    return decode_rgb(path.read_bytes())


def _list(path: Path) -> list:
    return _all(open_image_list(path))


def _archive(path: Path) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name in ("a/1.jpg", "b/1.jpg"):
            content = face(len(name))
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def _features(path: Path) -> None:
    features = Features(np.ones((2, 4), np.float32), np.ones((2, 3, 2), np.float32))
    rows = dict(names=["a/1", "b/1"], persons=["a", "b"], counts=[1, 1])
    write_feature_file(path, features, **rows, about={"recognizer": "tiny"})


def _gallery(path: Path) -> None:
    with Gallery(path) as gallery:
        contents = gallery.read()
        gallery.people(), gallery.metadata()
        np.asarray(contents.features.patches[np.arange(1)[:, None]])


POINTS = "name,x0,y0,x1,y1,x2,y2,x3,y3,x4,y4\n" + "".join(
    f'"{name}.jpg",0.34,0.46,0.65,0.46,0.5,0.64,0.37,0.82,0.63,0.82\n' for name in "abc"
)
SCORES = "1.jpg " + "10 20 " * 5 + "0.9\n2.jpg " + "10 20 " * 5 + "0.5\n"
PAIRS = "2\t1\nAnn\t1\t2\nAnn\t1\tBob\t3\nBob\t3\t1\nBob\t1\tAnn\t2\n"
WIDER = "# 0/a.jpg\n10 20 30 40 " + "15 25 0.0 " * 5 + "0.9\n"
ARRAYS = {"images": np.zeros((2, 3), np.float32), "names": np.array(["a", "b"])}
IDX = b"\0\0\x08\x03" + bytes([0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 3]) + bytes(18)

SAMPLES = [
    *(
        Sample(f"photo.{kind.lower()}", _image(kind), _decode)
        for kind in ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
    ),
    Sample("photos.png", _image("PNG"), lambda p: list(read_photos(p))),
    Sample("points.csv", _text(POINTS), lambda p: read_landmarks(p, units="fraction")),
    Sample("pairs.txt", _text(PAIRS), read_lfw_pairs),
    Sample("list.txt", _text("a.jpg\t0\nb.jpg\t1\n"), _list),
    Sample("train.lst", _text("0\t1.0\ta.jpg\n1\t2.0\tb.jpg\n"), _list),
    Sample("media.txt", _text("1.jpg 1 69544\n2.jpg 1 69544\n"), read_media),
    Sample("pairs_ijb.txt", _text("1 2 1\n1 3 0\n"), read_pairs),
    Sample("scores.txt", _text(SCORES), read_scores),
    Sample(
        "videos.csv", _text("template,subject,media,frames\n7,3,video_2,3;10-12\n"),
        read_video_templates,
    ),
    Sample("label.txt", _text(WIDER), lambda p: _all(open_wider_face(p))),
    Sample(
        "joints.csv", _text("0001/a/0,0," + ",".join(["1.5"] * 34) + "\n"), open_joints
    ),
    Sample("images.idx", lambda p: p.write_bytes(IDX), lambda p: read_idx(p, ndim=3)),
    Sample(
        "train.rec",
        lambda p: insightface_rec(p.parent, [0, 1], classes=2),
        lambda p: _all(open_record_io(p)),
    ),
    Sample("faces.tar.gz", _archive, lambda p: _all(open_tar_images(p))),
    Sample(
        "set.bin",
        lambda p: p.write_bytes(pickle.dumps(([face(0), face(1)], [True]), 4)),
        read_verification_bin,
    ),
    Sample("arrays.npz", lambda p: np.savez(p, **ARRAYS), read_npz),
    Sample("packed.npz", lambda p: np.savez_compressed(p, **ARRAYS), read_npz),
    Sample("features.npz", _features, read_feature_file),
    Sample("weights.npz", lambda p: np.savez(p, w=np.ones(3)), load_state_dict),
    Sample(
        "weights.safetensors",
        lambda p: p.write_bytes(save({"w": np.ones((2, 3), np.float32)})),
        load_state_dict,
    ),
    Sample(
        "weights.pt",
        lambda p: p.write_bytes((FIXTURES / "torch" / "plain.pt").read_bytes()),
        read_torch_file,
    ),
    Sample(
        "weights.dat",
        lambda p: p.write_bytes(tiny_file()[1]),
        lambda p: read_dlib_file(p, TINY),
    ),
    Sample("weights.tflite", lambda p: p.write_bytes(model(TENSORS)), load_state_dict),
    Sample("people.gallery", make, _gallery),
]  # fmt: skip
