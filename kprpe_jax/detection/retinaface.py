"""RetinaFace on a MobileNet: raw boxes, scores and landmarks of every anchor.

Source: Deng et al., RetinaFace, 2019; the widths and names are those of the official
MobileNet-0.25 detectors, which KP-RPE's aligner (Supp. 3) builds on.
"""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike

from kprpe_jax.layers.batch_norm import BatchNorm
from kprpe_jax.layers.convolution import convolve, leaky_relu
from kprpe_jax.layers.depthwise import DepthwiseConv

# Slope below zero. The released detector has plain ReLU, the aligner's 0.1.
SLOPES = {"relu": 0.0, "leaky_relu": 0.1}
PIXELS = ("rgb", "bgr", "bgr_minus_mean")
_MEAN_BGR = np.array([104, 117, 123], np.float32)

# (channels as multiples of the stem's, stride) of each depthwise-separable block; the
# stages end at strides 8, 16 and 32.
STAGES = (
    ((2, 1), (4, 2), (4, 1), (8, 2), (8, 1)),
    ((16, 2), *((16, 1),) * 5),
    ((32, 2), (32, 1)),
)


class Heads(NamedTuple):
    """Raw outputs per anchor, in the order of `make_priors`.

    Attributes:
      boxes: float32 [B, A, 4], offsets that `decode_boxes` reads.
      logits: float32 [B, A, 2], no face and face.
      keypoints: float32 [B, A, 2 K], offsets that `decode_keypoints` reads.
    """

    boxes: Array
    logits: Array
    keypoints: Array


def prepare_pixels(images: Array, pixels: str) -> Array:
    """Convert images to the form that a network was trained with.

    Args:
      images: [B, H, W, 3], RGB in [-1, 1].
      pixels: "rgb": as they are; "bgr": channels reversed; "bgr_minus_mean": reversed,
        in 0..255 and without the mean color (104, 117, 123).
    Returns: float32 [B, H, W, 3].
    Raises: ValueError: another name.
    """
    if pixels not in PIXELS:
        raise ValueError(
            f"prepare_pixels: pixels must be one of {', '.join(PIXELS)}; got "
            f"{pixels!r}; name the form that the network was trained with"
        )
    images = images.astype(jnp.float32)
    if pixels == "rgb":
        return images
    images = images[..., ::-1]
    return images if pixels == "bgr" else (images + 1) * 127.5 - _MEAN_BGR


def enlarge_nearest(x: Array, size: tuple[int, int]) -> Array:
    """Repeat pixels: [B, h, w, C] -> [B, H, W, C], pixel i from floor(i h / H)."""
    for axis, count in zip((1, 2), size, strict=True):
        x = jnp.take(x, np.arange(count) * x.shape[axis] // count, axis=axis)
    return x


class ActivatedConv(nn.Module):
    """Convolution without bias, batch norm, activation.

    Attributes:
      features: output channels; where `depthwise` those of the input.
      activation: key of SLOPES or None.
      kernel: side in pixels, odd.
      stride: in both directions.
      depthwise: every channel on its own.
      dtype: compute type.
    """

    features: int
    activation: str | None
    kernel: int = 3
    stride: int = 1
    depthwise: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """[B, H, W, C] -> [B, ceil(H / stride), ceil(W / stride), features]."""
        size, padding = (self.kernel, self.kernel), self.kernel // 2
        init = nn.initializers.lecun_normal()
        options = dict(kernel_init=init, dtype=self.dtype, name="conv")
        if self.depthwise and not train:
            layer = DepthwiseConv(size, self.stride, padding, **options)
        else:
            options |= dict(strides=self.stride, padding=padding, use_bias=False)
            groups = self.features if self.depthwise else 1
            layer = nn.Conv(
                self.features,
                size,
                feature_group_count=groups,
                conv_general_dilated=convolve,
                **options,
            )
        x = layer(x)
        x = BatchNorm(name="norm")(x, train=train)
        if self.activation is not None:
            x = leaky_relu(x, SLOPES[self.activation])
        return x.astype(self.dtype)


class MobileNet(nn.Module):
    """MobileNet V1 up to stride 32."""

    stem: int
    activation: str
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> list[Array]:
        """[B, H, W, 3] -> maps at strides 8, 16 and 32, fine to coarse."""
        options = dict(activation=self.activation, dtype=self.dtype)
        x = ActivatedConv(self.stem, stride=2, **options, name="stem")(x, train=train)
        maps = []
        for number, blocks in enumerate(STAGES, start=1):
            for index, (multiple, stride) in enumerate(blocks):
                name, width = f"stage{number}_{index}", x.shape[-1]
                x = ActivatedConv(
                    width, stride=stride, depthwise=True, **options,
                    name=f"{name}_depthwise",
                )(x, train=train)  # fmt: skip
                x = ActivatedConv(
                    self.stem * multiple, kernel=1, **options, name=f"{name}_pointwise"
                )(x, train=train)
            maps.append(x)
        return maps


class FeaturePyramid(nn.Module):
    """Project the maps to one width and add the coarse ones to the fine ones."""

    width: int
    activation: str
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, maps: list[Array], *, train: bool) -> list[Array]:
        """[B, h, w, C_l] per level, fine to coarse -> [B, h, w, width] per level."""
        options = dict(activation=self.activation, dtype=self.dtype)
        levels = [
            ActivatedConv(self.width, kernel=1, **options, name=f"output{n}")(
                x, train=train
            )
            for n, x in enumerate(maps, start=1)
        ]
        for n in range(len(levels) - 2, -1, -1):
            added = levels[n] + enlarge_nearest(levels[n + 1], levels[n].shape[1:3])
            merge = ActivatedConv(self.width, **options, name=f"merge{n + 1}")
            levels[n] = merge(added, train=train)
        return levels


class ContextModule(nn.Module):
    """Views of 3 x 3, 5 x 5 and 7 x 7 pixels side by side (SSH)."""

    width: int
    activation: str
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """[B, h, w, C] -> [B, h, w, width]."""

        def conv(name: str, x: Array, parts: int, activation: str | None) -> Array:
            features = self.width // parts
            layer = ActivatedConv(features, activation, dtype=self.dtype, name=name)
            return layer(x, train=train)

        view3 = conv("view3", x, 2, None)
        hidden = conv("shared", x, 4, self.activation)
        view5 = conv("view5", hidden, 4, None)
        hidden = conv("inner7", hidden, 4, self.activation)
        view7 = conv("view7", hidden, 4, None)
        return nn.relu(jnp.concatenate([view3, view5, view7], axis=-1))


class RetinaFace(nn.Module):
    """Single-stage face detector with landmarks, for images of any size.

    Attributes:
      stem: channels of the first layer; 8 is a quarter of MobileNet's.
      width: of the pyramid and the context modules, a multiple of 4.
      activation: key of SLOPES.
      pixels: one of PIXELS, the form of the network's input.
      num_keypoints: K.
      anchors_per_cell: of the priors.
      dtype: compute type; norms and outputs are float32.
    """

    stem: int = 8
    width: int = 64
    activation: str = "leaky_relu"
    pixels: str = "rgb"
    num_keypoints: int = 5
    anchors_per_cell: int = 2
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> Heads:
        """Run the network.

        Args:
          images: [B, H, W, 3], RGB in [-1, 1].
          train: use and collect batch statistics.
        Returns: raw outputs of the 2 (ceil(H / 8) ceil(W / 8) + ...) anchors: 6 for one
          pixel, 2,625,000 for 8,000 x 8,000, which takes about 10 GB; detect faces in a
          smaller copy of such images.
        """
        options = dict(activation=self.activation, dtype=self.dtype)
        x = prepare_pixels(images, self.pixels)
        maps = MobileNet(self.stem, **options, name="body")(x, train=train)
        levels = FeaturePyramid(self.width, **options, name="fpn")(maps, train=train)
        sizes = dict(boxes=4, logits=2, keypoints=2 * self.num_keypoints)
        outputs: dict[str, list[Array]] = {kind: [] for kind in sizes}
        for n, x in enumerate(levels, start=1):
            context = ContextModule(self.width, **options, name=f"context{n}")
            x = context(x, train=train)
            for kind, size in sizes.items():
                features = self.anchors_per_cell * size
                head = nn.Conv(
                    features, (1, 1), dtype=self.dtype, name=f"{kind}{n}"
                )  # [B, h, w, anchors * size]
                flat = head(x).astype(jnp.float32).reshape(x.shape[0], -1, size)
                outputs[kind].append(flat)
        return Heads(**{k: jnp.concatenate(v, axis=1) for k, v in outputs.items()})
