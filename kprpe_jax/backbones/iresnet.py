"""Improved residual networks for faces, iResNet-18 to -100, both published variants."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from kprpe_jax.backbones.network import Network
from kprpe_jax.core.checks import check_option
from kprpe_jax.layers.batch_norm import BatchNorm
from kprpe_jax.layers.convolution import PRelu, conv

WIDTHS = (64, 128, 256, 512)
SHORTCUTS = ("subsample", "conv")
PRESETS = {  # units per stage; the papers' "101" has 100 layers
    "ir18": dict(stage_sizes=(2, 2, 2, 2)),
    "ir34": dict(stage_sizes=(3, 4, 6, 3)),
    "ir50": dict(stage_sizes=(3, 4, 14, 3)),
    "ir101": dict(stage_sizes=(3, 13, 30, 3)),
}
VARIANTS = {
    "cvlface": dict(shortcut="subsample", head_affine=False, dropout_rate=0.4),
    "insightface": dict(shortcut="conv", head_affine=True, dropout_rate=0.0),
}


class SqueezeExcite(nn.Module):
    """Channels weighted by a gate of their spatial means (reduction 16)."""

    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, h, w, C] -> [B, h, w, C]."""
        width = x.shape[-1]
        options = dict(use_bias=False, dtype=self.dtype)
        mean = x.astype(jnp.float32).mean((1, 2), keepdims=True)
        hidden = nn.relu(nn.Dense(max(width // 16, 1), **options, name="squeeze")(mean))
        return x * nn.sigmoid(nn.Dense(width, **options, name="excite")(hidden))


class Unit(nn.Module):
    """Residual unit: norm, conv, norm, PReLU, strided conv, norm; plus a shortcut.

    Source: Duta et al., Improved Residual Networks, and both official codes: the stride
    is on the second convolution and nothing follows the sum.
    """

    width: int
    stride: int
    shortcut: str
    squeeze_excite: bool
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        """[B, h, w, C] -> [B, h / stride, w / stride, width]."""

        def norm(name: str, x: Array) -> Array:
            return BatchNorm(name=name)(x, train=train).astype(self.dtype)

        branch = conv(self.width, 3, 1, self.dtype, "conv1")(norm("norm1", x))
        branch = PRelu(name="act")(norm("norm2", branch))
        branch = conv(self.width, 3, self.stride, self.dtype, "conv2")(branch)
        branch = norm("norm3", branch)
        if self.squeeze_excite:
            branch = SqueezeExcite(self.dtype, name="gate")(branch)

        strided = self.stride > 1 and self.shortcut == "conv"
        if strided or x.shape[-1] != self.width:
            x = conv(self.width, 1, self.stride, self.dtype, "shortcut_conv")(x)
            return branch + norm("shortcut_norm", x)
        return branch + x[:, :: self.stride, :: self.stride]


class IResNet(Network):
    """Images to embeddings.

    Attributes:
      stage_sizes: units of the four stages, from PRESETS; each stage halves the map.
      image_size: (height, width) in pixels.
      output_dim: D, size of the embedding.
      widths: channels of the four stages; the stem has those of the first.
      shortcut: of a strided unit that keeps its width: `subsample` takes every second
        pixel, `conv` is a convolution and a norm; see VARIANTS.
      head_affine: whether the last norm scales and shifts.
      dropout_rate: before the last linear layer.
      squeeze_excite: gate the channels of every unit (the official `ir_se`).
      dtype: compute type. Parameters, norm statistics and output are float32.
    """

    stage_sizes: tuple[int, int, int, int]
    image_size: tuple[int, int] = (112, 112)
    output_dim: int = 512
    widths: tuple[int, int, int, int] = WIDTHS
    shortcut: str = "subsample"
    head_affine: bool = False
    dropout_rate: float = 0.4
    squeeze_excite: bool = False
    dtype: DTypeLike = jnp.float32

    patch_map = "stage4"
    style_maps = ("stage2", "stage3")  # the paper's blocks 3 and 4

    def setup(self) -> None:
        """Check the options, then declare all parts."""
        check_option("IResNet", "shortcut", self.shortcut, SHORTCUTS)
        if not len(self.stage_sizes) == len(self.widths) == 4:
            raise ValueError(
                "IResNet: stage_sizes and widths must have four numbers each; got "
                f"{tuple(self.stage_sizes)} and {tuple(self.widths)}."
            )
        self.stem_conv = conv(self.widths[0], 3, 1, self.dtype)
        self.stem_norm = BatchNorm()
        self.stem_act = PRelu()
        self.stages = [
            [
                Unit(
                    width,
                    stride=1 if index else 2,
                    shortcut=self.shortcut,
                    squeeze_excite=self.squeeze_excite,
                    dtype=self.dtype,
                )
                for index in range(size)
            ]
            for width, size in zip(self.widths, self.stage_sizes, strict=True)
        ]
        self.norm = BatchNorm()
        self.dropout = nn.Dropout(self.dropout_rate)
        self.head = nn.Dense(self.output_dim, dtype=self.dtype)
        self.head_norm = BatchNorm(affine=self.head_affine)

    def feature_maps(
        self, images: Array, keypoints: Array | None = None, *, train: bool = False
    ) -> dict[str, Array]:
        """Feature maps after each stage, as set fusion uses them.

        Args: as `__call__`.
        Returns: `stage1` to `stage4`: [B, H / 2^s, W / 2^s, widths[s - 1]].
        Raises: ValueError: image size or channels do not fit the model.
        """
        self.check_images(images)
        x = self.stem_conv(images.astype(self.dtype))
        x = self.stem_act(self.stem_norm(x, train=train).astype(self.dtype))
        maps = {}
        for index, units in enumerate(self.stages, 1):
            for unit in units:
                x = unit(x, train)
            maps[f"stage{index}"] = x
        return maps

    def embed_map(self, stage4: Array, *, train: bool = False) -> Array:
        """Last feature map to embeddings: float32 [B, output_dim]."""
        x = self.norm(stage4, train=train)
        x = self.dropout(x, deterministic=not train)
        # Channels first, as the official weights count their inputs.
        x = self.head(x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1))
        return self.head_norm(x, train=train)
