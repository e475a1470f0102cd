"""Differentiable face aligner: one face in, landmarks and an aligned face out.

All anchors are mixed into one face, so that there is no suppression and gradients run
from the aligned pixels back to the photo.

Source: KP-RPE, Supp. 3, Eqs. 13-15.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike

from kprpe_jax.alignment.align import align_faces, pad_to_square, resize_square
from kprpe_jax.detection.priors import (
    ALIGNER_ANCHORS,
    Anchors,
    decode_boxes,
    decode_keypoints,
    make_priors,
)
from kprpe_jax.detection.retinaface import Heads, RetinaFace
from kprpe_jax.layers.mlp import Mlp

MIXER_INPUTS = ("raw", "decoded")
SAMPLED = ("photo", "network_input")


class OneFace(NamedTuple):
    """The face of each image, as fractions of the network's input.

    Attributes:
      keypoints: float32 [B, K, 2], Eq. 15.
      box: float32 [B, 4], (left, top, right, bottom).
      score: float32 [B], in 0..1.
      weights: float32 [B, A], of the anchors, sum 1, Eq. 14.
    """

    keypoints: Array
    box: Array
    score: Array
    weights: Array


class AlignerOutput(NamedTuple):
    """Landmarks of photos and the aligned faces, as arrays on the device.

    Attributes:
      images: float32 [B, h, w, 3], in [-1, 1].
      keypoints: float32 [B, K, 2], fractions of the photo.
      aligned_keypoints: float32 [B, K, 2], fractions of the aligned image.
      box: float32 [B, 4], (left, top, right, bottom) as fractions of the photo; the
        official code divides it by the image size once more.
      score: float32 [B], in 0..1; near 0 for a photo without a face, whose landmarks
        are meaningless.
      theta: float32 [B, 2, 3], from the aligned image to the image sampled.
    """

    images: Array
    keypoints: Array
    aligned_keypoints: Array
    box: Array
    score: Array
    theta: Array


class MixerBlock(nn.Module):
    """Mix over anchors, then over channels (MLP-Mixer)."""

    token_dim: int
    channel_dim: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, A, C] -> [B, A, C]."""
        mlp = dict(activation="gelu", dtype=self.dtype)
        y = nn.LayerNorm(name="norm1")(x).swapaxes(1, 2)
        x = x + Mlp(self.token_dim, **mlp, name="tokens")(y).swapaxes(1, 2)
        y = nn.LayerNorm(name="norm2")(x)
        return x + Mlp(self.channel_dim, **mlp, name="channels")(y)


class Aggregator(nn.Module):
    """Weights of the anchors, Eq. 14."""

    depth: int = 3
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, A, C] -> float32 [B, A], sum 1."""
        channels = x.shape[-1]
        for n in range(self.depth):
            block = MixerBlock(
                channels // 2, 4 * channels, self.dtype, name=f"block{n}"
            )
            x = block(x)
        logits = nn.Dense(1, dtype=self.dtype, name="out")(x)
        return jax.nn.softmax(logits[..., 0].astype(jnp.float32))


class DifferentiableAligner(nn.Module):
    """RetinaFace, a mixer over its anchors, and alignment to the template.

    Attributes:
      input_size: side of the network's square input, in pixels.
      output_size: (height, width) of the aligned face.
      template_size: of `align_faces`: whose template points are taken; None = those of
        the output's size, (112, 112) as in the official code at every size.
      padding_ratio: black border around the photo, as a fraction of its longer side.
      anchors: of the detector; their number fixes the mixer's parameters.
      mixer_input: "raw": Eq. 13's 15 numbers per anchor, as the heads give them, the
        two logits as their difference; "decoded": the official 16, boxes and landmarks
        in fractions of the image and both logits, which are averaged before the
        softmax. What is averaged is always decoded: offsets from different anchors
        have no mean.
      mixer_depth: blocks of the mixer.
      sampled: "photo": the aligned pixels are read from the photo at full resolution;
        "network_input": from the resized copy, as the official code does.
      align_corners, stop_gradient: as in `align_faces`; the first also says how photos
        are resized.
      stem, width, activation, pixels: of RetinaFace.
      dtype: compute type.
    """

    input_size: int = 160
    output_size: tuple[int, int] = (112, 112)
    template_size: tuple[int, int] | None = None
    padding_ratio: float = 0.0
    anchors: Anchors = ALIGNER_ANCHORS
    mixer_input: str = "raw"
    mixer_depth: int = 3
    sampled: str = "photo"
    align_corners: bool = False
    stop_gradient: bool = False
    stem: int = 8
    width: int = 64
    activation: str = "leaky_relu"
    pixels: str = "rgb"
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        """Check the options, then declare both parts."""
        for name, choices in (("mixer_input", MIXER_INPUTS), ("sampled", SAMPLED)):
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"DifferentiableAligner: {name} must be one of "
                    f"{', '.join(choices)}; got {getattr(self, name)!r}; choose one"
                )
        self.detector = RetinaFace(
            stem=self.stem,
            width=self.width,
            activation=self.activation,
            pixels=self.pixels,
            anchors_per_cell=len(self.anchors.sizes[0]),
            dtype=self.dtype,
        )
        self.aggregator = Aggregator(self.mixer_depth, self.dtype)

    def __call__(self, images: Array, *, train: bool = False) -> AlignerOutput:
        """Align photos of one face each.

        Args:
          images: [B, H, W, 3], RGB in [-1, 1], any size.
          train: use and collect batch statistics.
        """
        height, width = images.shape[1:3]
        square, (top, left) = pad_to_square(images, padding_ratio=self.padding_ratio)
        side = square.shape[1]
        resized = resize_square(
            square, self.input_size, align_corners=self.align_corners
        )
        face, _ = self.find_face(resized, train=train)

        def to_photo(points: Array) -> Array:
            corner = np.array([left, top], np.float32)
            return (points * side - corner) / np.array([width, height], np.float32)

        keypoints = to_photo(face.keypoints)
        photo = self.sampled == "photo"
        aligned = align_faces(
            images if photo else resized,
            keypoints if photo else face.keypoints,
            size=self.output_size,
            template_size=self.template_size,
            align_corners=self.align_corners,
            stop_gradient=self.stop_gradient,
        )
        box = to_photo(face.box.reshape(-1, 2, 2)).reshape(-1, 4)
        return AlignerOutput(
            aligned.images, keypoints, aligned.keypoints, box, face.score, aligned.theta
        )

    def find_face(self, images: Array, *, train: bool = False) -> tuple[OneFace, Heads]:
        """Mix all anchors into one face.

        Args:
          images: [B, input_size, input_size, 3], RGB in [-1, 1].
          train: use and collect batch statistics.
        Returns: the face, and the anchors' raw outputs for the detector's loss.
        """
        heads = self.detector(images, train=train)
        priors = make_priors((self.input_size, self.input_size), self.anchors)
        boxes = decode_boxes(heads.boxes, priors)
        keypoints = decode_keypoints(heads.keypoints, priors)
        flat = keypoints.reshape(*keypoints.shape[:2], -1)
        if self.mixer_input == "raw":
            logits = heads.logits[..., 1:] - heads.logits[..., :1]
            tokens = jnp.concatenate([heads.boxes, logits, heads.keypoints], axis=-1)
        else:
            tokens = jnp.concatenate([boxes, heads.logits, flat], axis=-1)
        weights = self.aggregator(tokens)  # [B, A]

        def merge(values: Array) -> Array:
            return (weights[..., None] * values).sum(axis=1)

        if self.mixer_input == "raw":
            score = merge(jax.nn.softmax(heads.logits))[..., 1]
        else:
            score = jax.nn.softmax(merge(heads.logits))[..., 1]
        points = merge(flat).reshape(-1, *keypoints.shape[2:])
        return OneFace(points, merge(boxes), score, weights), heads
