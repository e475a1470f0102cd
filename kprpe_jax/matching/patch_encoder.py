"""The transformer of Face-ViT: patches of one or two images into tokens."""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from kprpe_jax.core.checks import check_option
from kprpe_jax.layers.mlp import Mlp

ATTENTIONS = ("norm", "norm_residual", "residual")
LOGIT_SCALES = ("head", "width")


class PatchWindows(NamedTuple):
    """Learned patches: square windows of an image and a linear layer.

    Attributes:
      size, stride, padding: pixels; they overlap where the size exceeds the stride.
      scale, shift: images * scale + shift is what the layer sees; 127.5 both for
        weights that were trained on 0..255.
      channels: of the images, 3 or 1.
    """

    size: int
    stride: int
    padding: int = 0
    scale: float = 1.0
    shift: float = 0.0
    channels: int = 3


class Tokens(NamedTuple):
    """Output of `PairEncoder`, after the last layer.

    Attributes:
      summary: [B, C], the class token.
      patches: [B, N, C] of each image.
      attention: float32 [B, H, T, T] of each layer, rows sum to 1; T counts [CLS],
        patches and, of a second image, [SEP], if there is one, and patches.
    """

    summary: Array
    patches: tuple[Array, ...]
    attention: tuple[Array, ...]


class PairAttention(nn.Module):
    """Softmax attention that returns its weights, with heads of any width.

    Six heads do not divide 512 channels, so the width of a head is its own number; the
    other attention of this package does without either.
    """

    num_heads: int
    head_dim: int
    logit_scale: str
    dtype: DTypeLike

    @nn.compact
    def __call__(self, tokens: Array) -> tuple[Array, Array]:
        """[B, T, C] -> [B, T, C] and float32 [B, H, T, T]."""
        batch, count, width = tokens.shape
        inner = self.num_heads * self.head_dim
        qkv = nn.Dense(3 * inner, use_bias=False, dtype=self.dtype, name="qkv")(tokens)
        qkv = qkv.reshape(batch, count, 3, self.num_heads, self.head_dim)
        q, k, v = qkv.transpose(2, 0, 3, 1, 4)  # [B, H, T, d] each
        scale = {"head": self.head_dim, "width": width}[self.logit_scale] ** -0.5
        logits = jnp.einsum(
            "bhid,bhjd->bhij", q * scale, k, preferred_element_type=jnp.float32
        )
        attention = nn.softmax(logits)
        out = jnp.einsum("bhij,bhjd->bihd", attention.astype(self.dtype), v)
        out = out.reshape(batch, count, inner)
        return nn.Dense(width, dtype=self.dtype, name="proj")(out), attention


class PairLayer(nn.Module):
    """Attention, then MLP (Eq. 4.2 and 4.3)."""

    num_heads: int
    head_dim: int
    mlp_dim: int
    attention: str
    logit_scale: str
    dtype: DTypeLike

    @nn.compact
    def __call__(self, tokens: Array) -> tuple[Array, Array]:
        """[B, T, C] -> [B, T, C] and float32 [B, H, T, T]."""
        norm = dict(epsilon=1e-5, dtype=self.dtype)
        attend = PairAttention(
            self.num_heads,
            self.head_dim,
            self.logit_scale,
            self.dtype,
            name="attention",
        )
        seen = tokens
        if self.attention != "residual":
            seen = nn.LayerNorm(**norm, name="norm1")(tokens)
        branch, weights = attend(seen)
        tokens = branch if self.attention == "norm" else tokens + branch
        mlp = Mlp(self.mlp_dim, "gelu", dtype=self.dtype, name="mlp")
        return tokens + mlp(nn.LayerNorm(**norm, name="norm2")(tokens)), weights


class PairEncoder(nn.Module):
    """Transformer over the patches of one or two images.

    Source: Face-ViT, Eq. 4.1 to 4.4.

    Attributes:
      depth, num_heads: the thesis' best H2L have depth 1 and 1 to 6 heads; V has 20, 8.
      mlp_dim: hidden width of the MLPs.
      width: C, of patches and tokens.
      num_patches: N, of an image.
      head_dim: width of a head.
      attention: what surrounds it. `norm`: z' = MSA(norm(z)), Eq. 4.2 to the letter;
        `norm_residual`: z' = z + MSA(norm(z)), as in ViT and the official V;
        `residual`: z' = z + MSA(z), as in the official hybrids.
      logit_scale: logits are divided by the square root of a `head`'s width or, as in
        the official code, of the model's `width`.
      windows: patches are learned from images; None = patches are given.
      separator: whether the learned token [SEP] stands before a second image.
      positions: whether a learned embedding of its place is added to every token.
      dropout_rate: on the tokens that enter the first layer.
      dtype: compute type. Parameters, norm statistics and logits are float32.
    """

    depth: int
    num_heads: int
    mlp_dim: int = 2048
    width: int = 512
    num_patches: int = 64
    head_dim: int = 64
    attention: str = "norm"
    logit_scale: str = "head"
    windows: PatchWindows | None = None
    separator: bool = True
    positions: bool = True
    dropout_rate: float = 0.1
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, *images: Array, train: bool) -> Tokens:
        """Encode.

        Args:
          images: one or two arrays [B, N, C] of patches, row by row, or with `windows`
            [B, H, W, channels] in [-1, 1].
          train: dropout is on; needs the rng stream `dropout` where there is any.
        Raises: ValueError: shapes do not fit each other or the model; unknown option.
        """
        self._check(images)
        patches = images
        if self.windows is not None:
            patches = self._learned_patches(images)
        normal = nn.initializers.normal(0.02)
        names = ("cls_token", "sep_token" if self.separator else None)
        batch, sequence = len(images[0]), []
        for name, part in zip(names[: len(patches)], patches, strict=True):
            if name:
                token = self.param(name, normal, (self.width,)).astype(self.dtype)
                sequence.append(jnp.broadcast_to(token, (batch, 1, self.width)))
            sequence.append(part.astype(self.dtype))
        x = jnp.concatenate(sequence, 1)
        if self.positions:
            places = self.param("position_embedding", normal, x.shape[1:])
            x += places.astype(self.dtype)
        x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)

        attention = []
        for index in range(self.depth):
            layer = PairLayer(
                num_heads=self.num_heads,
                head_dim=self.head_dim,
                mlp_dim=self.mlp_dim,
                attention=self.attention,
                logit_scale=self.logit_scale,
                dtype=self.dtype,
                name=f"layers_{index}",
            )
            x, weights = layer(x)
            attention.append(weights)
        count = self.num_patches
        ends = (1 + count, x.shape[1])  # of each image; the second is at the end
        each = tuple(x[:, end - count : end] for end in ends[: len(images)])
        return Tokens(x[:, 0], each, tuple(attention))

    def _learned_patches(self, images: tuple[Array, ...]) -> list[Array]:
        """Patches [B, N, C] of images [B, H, W, channels]."""
        embed = nn.Conv(
            self.width,
            (self.windows.size,) * 2,
            strides=self.windows.stride,
            padding=self.windows.padding,
            dtype=self.dtype,
            name="patch_embed",
        )
        scale, shift = self.windows.scale, self.windows.shift
        maps = [embed(image * scale + shift) for image in images]
        return [x.reshape(len(x), -1, self.width) for x in maps]

    def _check(self, images: tuple[Array, ...]) -> None:
        for name, known in (("attention", ATTENTIONS), ("logit_scale", LOGIT_SCALES)):
            check_option("PairEncoder", name, getattr(self, name), known)
        shapes = [image.shape for image in images]
        want = f"[B, {self.num_patches}, {self.width}]"
        fits = all(shape[1:] == (self.num_patches, self.width) for shape in shapes)
        if self.windows is not None:
            channels = self.windows.channels
            want = f"[B, H, W, {channels}] with {self.num_patches} windows"
            fits = all(self._windows_in(shape) == self.num_patches for shape in shapes)
        if not fits or len(set(shapes)) != 1 or len(shapes) > 2:
            raise ValueError(
                f"PairEncoder: one or two images of one shape must be {want}; got "
                f"{', '.join(map(str, shapes))}; compute their patches alike or change "
                "num_patches and width."
            )

    def _windows_in(self, shape: tuple[int, ...]) -> int:
        """Number of windows of an image batch; 0 where it is none."""
        if len(shape) != 4 or shape[-1] != self.windows.channels:
            return 0
        size, stride, padding, *_ = self.windows
        rows, columns = ((s + 2 * padding - size) // stride + 1 for s in shape[1:3])
        return max(rows, 0) * max(columns, 0)
