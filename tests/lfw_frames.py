"""Whole photos of LFW, for tests of published detectors and recognizers."""

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

LFW = Path(__file__).resolve().parents[2] / "shared" / "data" / "lfw"
FRAMES = LFW / "lfw_df_fullframe250_sample.tar"


def read_frames(names: Iterable[str]) -> list[Image.Image]:
    """RGB photos of 250 x 250 pixels by the ends of their names."""
    found = []
    with tarfile.open(FRAMES) as archive:
        inside = archive.getnames()
        for name in names:
            member = next(x for x in inside if x.endswith(name))
            found.append(Image.open(io.BytesIO(archive.extractfile(member).read())))
    return [photo.convert("RGB") for photo in found]
