"""SwinGait: silhouettes, and with KP-RPE joints, to embeddings of body parts."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike

from kprpe_jax.core.checks import check_option
from kprpe_jax.geometry.sampling import resize_bilinear
from kprpe_jax.layers.gait_stem import GaitStem
from kprpe_jax.layers.parts import (
    GaitOutput,
    PartHeads,
    check_silhouettes,
    horizontal_pyramid,
    set_pooling,
)
from kprpe_jax.layers.window_attention import WindowBlock
from kprpe_jax.layers.windows import Windows, plan_windows, token_places
from kprpe_jax.position.window_bias import WindowKeypointBias, fill_missing

POSITIONS = ("table", "kprpe")
NUM_JOINTS = 17
PRESETS: dict[str, dict[str, Any]] = {
    # For a CPU.
    "tiny": dict(
        image_size=(32, 24), channels=(8, 16), stem_depths=(1, 1), width=32,
        depths=(2, 2), num_heads=(2, 4), map_size=(16, 12), window=(4, 3), bins=(8,),
        part_dim=32,
    ),
    # 64 x 44 silhouettes; sizes of the official configuration for Gait3D.
    "gait3d": dict(drop_path_rate=0.1),
}  # fmt: skip


class FrameMaps(NamedTuple):
    """What the network makes of each frame.

    Attributes:
      stem: [B, T, h, w, C], of the convolutions.
      resized: float32 [B, T, *map_size, C].
      tokens: [B, T, rows, columns, 2 width], of the transformer.
    """

    stem: Array
    resized: Array
    tokens: Array


class SwinGait(nn.Module):
    """Sequences of silhouettes to one embedding per body part.

    SwinGait-2D, the default: every frame goes alone through convolutions and window
    transformer; the maximum over time joins them, so neither the order of frames nor
    padding matters. SwinGait-3D, with a window of three axes: convolutions and windows
    span time, so it takes whole sequences without a mask, and no keypoints.

    Source: Fan et al., Exploring deep models for practical gait recognition, 2023;
    KP-RPE, Sec. 5. No official code of the 2D network exists; the stored outputs that
    ours agrees with were made of official parts.

    Attributes:
      num_classes: people of the training set.
      image_size: (height, width) of silhouettes.
      channels, stem_depths: of the two convolution stages; the second halves the map.
      map_size: (height, width) that the map is resized to, even numbers.
      width: of the first transformer stage; the second has twice as much, and as many
        tokens.
      depths, num_heads: of the two transformer stages.
      window: (rows, columns) of tokens, which are 2 x 2 of the resized map; or (frames,
        rows, columns) for the 3D network, officially (3, 3, 5).
      bins: strips of each level of the pyramid; P is their sum.
      part_dim: D.
      position: one of POSITIONS; `table` is a bias by offset, which `kprpe` replaces.
      position_options: fields of `WindowKeypointBias`, such as `mesh`, `num_keypoints`
        (17 by default).
      drop_path_rate: stochastic depth of the last block; sampled per frame.
      mask_padding: of `pair_mask`; False for official weights.
      dtype: compute type. Parameters, statistics, logits and outputs are float32.
    """

    num_classes: int
    image_size: tuple[int, int] = (64, 44)
    channels: tuple[int, int] = (64, 128)
    stem_depths: tuple[int, int] = (1, 4)
    map_size: tuple[int, int] = (30, 20)
    width: int = 256
    depths: tuple[int, int] = (4, 2)
    num_heads: tuple[int, int] = (16, 32)
    window: tuple[int, ...] = (3, 5)
    bins: tuple[int, ...] = (15,)
    part_dim: int = 256
    position: str = "table"
    position_options: Mapping[str, Any] | None = None
    drop_path_rate: float = 0.0
    mask_padding: bool = True
    dtype: DTypeLike = jnp.float32

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of tokens."""
        return self.map_size[0] // 2, self.map_size[1] // 2

    @property
    def uses_keypoints(self) -> bool:
        """Whether `__call__` needs keypoints."""
        return self.position == "kprpe"

    @property
    def spans_time(self) -> bool:
        """Whether this is the 3D network."""
        return len(self.window) == 3

    def plans(self, stage: int, frames: int = 1) -> list[Windows]:
        """How each block of a stage cuts its map, in 3D that of all `frames`."""
        grid = (frames, *self.grid) if self.spans_time else self.grid
        return [
            plan_windows(grid, self.window, shifted=odd % 2, cut=True)
            for odd in range(self.depths[stage])
        ]

    def setup(self) -> None:
        """Check the options, then declare all parts."""
        check_option("SwinGait", "position", self.position, POSITIONS)
        if any(side % 2 for side in self.map_size):
            raise ValueError(
                "SwinGait: map_size must be even, tokens are 2 x 2; got "
                f"{self.map_size}."
            )
        if self.spans_time and self.uses_keypoints:
            raise ValueError(
                "SwinGait: position 'kprpe' needs a window of rows and columns; got "
                f"{self.window}; leave the frames out of it."
            )
        norm = dict(epsilon=1e-5, dtype=self.dtype)
        self.stem = GaitStem(
            self.channels,
            self.stem_depths,
            strides=(1, 2),
            temporal=self.spans_time,
            dtype=self.dtype,
        )
        self.patch_embed = nn.Conv(self.width, (2, 2), strides=2, dtype=self.dtype)
        self.patch_norm = nn.LayerNorm(**norm)
        self.blocks = [
            WindowBlock(
                num_heads=self.num_heads[stage],
                version="v1",
                window=self.window,
                offset_bias="none" if self.uses_keypoints else "table",
                mask_padding=self.mask_padding,
                mlp_dim=4 * self.width << stage,
                dtype=self.dtype,
            )
            for stage in (0, 1)
            for _ in range(self.depths[stage])
        ]
        self.widen_norm = nn.LayerNorm(**norm)
        self.widen = nn.Dense(2 * self.width, use_bias=False, dtype=self.dtype)
        self.norm = nn.LayerNorm(**norm)
        self.keypoint_bias = self._make_keypoint_bias()
        self.heads = PartHeads(self.part_dim, self.num_classes)

    def _make_keypoint_bias(self) -> list[WindowKeypointBias]:
        if not self.uses_keypoints:
            return []
        return [
            WindowKeypointBias(
                num_layers=self.depths[stage],
                num_heads=self.num_heads[stage],
                grid=self.grid,
                window=self.plans(stage)[0].window,
                extent=self.grid,
                **{"num_keypoints": NUM_JOINTS, **(self.position_options or {})},
            )
            for stage in (0, 1)
        ]

    def __call__(
        self,
        silhouettes: Array,
        keypoints: Array | None = None,
        *,
        mask: Array | None = None,
        joint_mask: Array | None = None,
        train: bool = False,
    ) -> GaitOutput:
        """Embed.

        Args:
          silhouettes: float32 [B, T, H, W] in [0, 1], as officially.
          keypoints: float32 [B, T, K, 2], fractions of the frame, may lie outside of
            it; for `kprpe` only. Joints that are not finite count as missing.
          mask: bool [B, T], True = valid frame; None = all. What stands in the others
            changes nothing. None for the 3D network.
          joint_mask: bool [B, T, K], False = missing joint, see `fill_missing`.
          train: batch statistics and stochastic depth are on; the latter needs the rng
            stream `dropout`.
        Returns: `GaitOutput`; embeddings of a sequence without valid frame are 0.
        Raises: ValueError: no frame, sizes, mask or keypoints that do not fit.
        """
        if mask is not None and self.spans_time:
            raise ValueError(
                "SwinGait: a window that spans time takes whole sequences; got a mask; "
                "give sequences of one length together, or use a window of two axes."
            )
        mask = check_silhouettes("SwinGait", silhouettes, mask, self.image_size)
        maps = self.frame_maps(
            silhouettes, keypoints, mask=mask, joint_mask=joint_mask, train=train
        )
        pooled = set_pooling(maps.tokens.astype(jnp.float32), mask)
        parts = horizontal_pyramid(pooled, self.bins)
        return self.heads(parts, train=train)

    def frame_maps(
        self,
        silhouettes: Array,
        keypoints: Array | None = None,
        *,
        mask: Array,
        joint_mask: Array | None = None,
        train: bool = False,
    ) -> FrameMaps:
        """Feature maps of every frame.

        Args: as `__call__`; mask: bool [B, T], all True for the 3D network.
        Raises: ValueError: no frame, sizes, mask or keypoints that do not fit.
        """
        check_silhouettes("SwinGait", silhouettes, mask, self.image_size)
        self._check_keypoints(silhouettes.shape, keypoints)
        batch, frames = mask.shape
        x = self.stem(silhouettes, mask, train=train)
        resized = resize_bilinear(x, self.map_size, align_corners=True)

        biases = [None] * sum(self.depths)
        if self.uses_keypoints:
            filled = fill_missing(keypoints, joint_mask)
            stages = self.bias(filled.reshape(-1, *filled.shape[2:]))
            biases = [bias for stage in stages for bias in stage]
        rates = np.linspace(0, self.drop_path_rate if train else 0.0, sum(self.depths))
        plans = self.plans(0, frames) + self.plans(1, frames)
        tokens = self.patch_norm(self.patch_embed(resized.astype(self.dtype)))
        if self.spans_time:
            tokens = tokens.reshape(batch, frames, *tokens.shape[1:])
        for index, block in enumerate(self.blocks):
            if index == self.depths[0]:
                tokens = self.widen(self.widen_norm(tokens))
            tokens = block(tokens, plans[index], biases[index], float(rates[index]))
        maps = x, resized, self.norm(tokens)
        return FrameMaps(*(m.reshape(batch, frames, *m.shape[-3:]) for m in maps))

    def bias(self, keypoints: Array) -> list[list[Array]]:
        """Keypoint bias by stage and block, for pictures and tests.

        Args:
          keypoints: float32 [N, K, 2], of N frames.
        Returns: float32 [N, windows, heads, n, n] each.
        """
        return [
            bias(keypoints, [token_places(plan) for plan in self.plans(stage)])
            for stage, bias in enumerate(self.keypoint_bias)
        ]

    def _check_keypoints(self, shape: tuple[int, ...], keypoints: Array | None) -> None:
        got = None if keypoints is None else keypoints.shape
        if self.uses_keypoints and (got is None or got[:2] != shape[:2]):
            raise ValueError(
                "SwinGait: position 'kprpe' needs keypoints [B, T, K, 2] for frames "
                f"{shape[:2]}; got {got}; give frames without joints any value and "
                "joint_mask False."
            )
