"""The input contract of a network: declared once, applied in one place."""

import hashlib
from typing import Any, NamedTuple

import numpy as np

COLORS = ("rgb", "bgr", "gray")
FRAMINGS = ("template", "chip", "crop", "none")
_SHOWN = dict(
    template="aligned to the template",
    chip="aligned to dlib's template",
    crop="crop",
    none="whole photo",
)
BLACK = -1.0  # of images in [-1, 1]


def to_unit_range(pixels: Any) -> Any:
    """Bytes to the library's images: float32 in [-1, 1].

    Args:
      pixels: uint8 [...], NumPy or JAX.
    """
    return pixels.astype("float32") / 127.5 - 1


def to_bytes(images: Any) -> Any:
    """The library's images, float in [-1, 1], to bytes uint8 [...]."""
    return ((images.clip(-1, 1) + 1) * 127.5).round().astype("uint8")


class InputSpec(NamedTuple):
    """What a network was trained to read.

    Attributes:
      image_size: (height, width) in pixels.
      color: order of the channels, one of COLORS; a `gray` network takes the luma of
        RGB by itself.
      mean, scale: the network reads (x - mean) / scale of bytes x.
      framing: what an image shows: a face aligned to the `template`; to that of dlib's
        face `chip`s, with more around it; a `crop` by the detector's box; or with
        `none` the whole photo, in its proportions.
      num_keypoints: K, how many keypoints the network reads; 0 = none.
    """

    image_size: tuple[int, int]
    color: str = "rgb"
    mean: float = 127.5
    scale: float = 127.5
    framing: str = "template"
    num_keypoints: int = 0

    @property
    def uses_keypoints(self) -> bool:
        """Whether the network reads keypoints."""
        return self.num_keypoints > 0

    @property
    def is_aligned(self) -> bool:
        """Whether images show faces that are aligned to a template."""
        return self.framing in ("template", "chip")

    @property
    def fingerprint(self) -> str:
        """Hexadecimal text that changes with the contract."""
        return hashlib.sha256(repr(tuple(self)).encode()).hexdigest()[:16]

    def describe(self) -> str:
        """One line for people: size, colors, range, framing, keypoints."""
        points = f"{self.num_keypoints} keypoints" if self.num_keypoints else ""
        parts = (
            f"{self.image_size[0]} x {self.image_size[1]}",
            self.color.upper() if self.color != "gray" else "luma",
            f"(x - {self.mean:g}) / {self.scale:g}",
            _SHOWN[self.framing],
            points or "no keypoints",
        )
        return ", ".join(parts)

    def arguments(self, images: Any, keypoints: Any = None) -> tuple[Any, ...]:
        """What the network is called with: images, and the keypoints that it reads.

        Args, raises: as `apply`.
        """
        images, keypoints = self.apply(images, keypoints)
        if not self.uses_keypoints:
            return (images,)
        return images, keypoints[..., : self.num_keypoints, :]

    def apply(self, images: Any, keypoints: Any = None) -> tuple[Any, Any]:
        """Turn the library's images into what the network reads.

        Args, raises: as `fit`.
        Returns: images [B, *image_size, 3] in the network's color order and range; all
          keypoints, in fractions of these images, or None.
        """
        images, keypoints = self.fit(images, keypoints)
        if self.color == "bgr":
            images = images[..., ::-1]
        if (self.mean, self.scale) != (127.5, 127.5):
            images = images * (127.5 / self.scale) + (127.5 - self.mean) / self.scale
        return images, keypoints

    def fit(self, images: Any, keypoints: Any = None) -> tuple[Any, Any]:
        """Cut the library's images to the network's size.

        Images of the right height that are wider, by an even number of columns, lose
        the same number on both sides, as 112 x 112 faces do for a 112 x 96 network.

        Args:
          images: float [B, h, w, 3], RGB in [-1, 1], NumPy or JAX.
          keypoints: float [B, K', 2], fractions of the images; K' >= num_keypoints, or
            None for a network that reads none.
        Returns: images [B, *image_size, 3] and all keypoints, in fractions of them, or
          None.
        Raises: ValueError: images of another size; keypoints missing or too few.
        """
        height, width = self.image_size
        margin = images.shape[2] - width
        if images.shape[1] != height or margin < 0 or margin % 2:
            raise ValueError(
                f"images must be {height} x {width} pixels; got {images.shape[1]} x "
                f"{images.shape[2]}; align them to that size."
            )
        given = 0 if keypoints is None else keypoints.shape[-2]
        if given < self.num_keypoints:
            raise ValueError(
                f"the network reads {self.num_keypoints} keypoints of each image; got "
                f"{given}; give them, or take a network that reads none."
            )
        if margin:
            left = margin // 2
            images = images[:, :, left : left + width]
            if keypoints is not None:
                stretch = np.float32([(width + margin) / width, 1])
                keypoints = keypoints * stretch - np.float32([left / width, 0])
        return images, keypoints
