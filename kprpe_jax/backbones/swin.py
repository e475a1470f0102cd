"""Swin Transformer V2 for recognition, with the bias by offset or by keypoints."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike

from kprpe_jax.backbones.network import Network
from kprpe_jax.core.checks import check_option
from kprpe_jax.layers.embedding_head import POOLS, EmbeddingHead
from kprpe_jax.layers.window_attention import WindowBlock
from kprpe_jax.layers.windows import Windows, plan_windows, token_places
from kprpe_jax.position.window_bias import WindowKeypointBias

POSITIONS = ("continuous", "table", "kprpe")
PRESETS: dict[str, dict[str, Any]] = {
    # Digits on a 40 x 40 canvas.
    "tiny": dict(
        image_size=(40, 40), patch_size=4, width=32, depths=(2, 2), num_heads=(2, 4),
        window=(5, 5), output_dim=64,
    ),
    # 112 x 112 faces; the two official geometries.
    "small": dict(
        patch_size=4, width=128, depths=(4, 6, 8), num_heads=(4, 8, 16), window=(7, 7),
    ),
    "base": dict(
        patch_size=4, width=256, depths=(4, 6, 8), num_heads=(4, 8, 16), window=(7, 7),
    ),
    "kprpe_small": dict(
        patch_size=3, width=128, depths=(2, 2, 12, 2), num_heads=(4, 8, 16, 32),
        window=(5, 5), position="kprpe",
    ),
    "kprpe_base": dict(
        patch_size=3, width=128, depths=(2, 2, 18, 2), num_heads=(4, 8, 16, 32),
        window=(5, 5), position="kprpe",
    ),
}  # fmt: skip


class PatchMerging(nn.Module):
    """Four neighbors to one token of twice the width; odd sides get a row of zeros."""

    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, h, w, C] -> [B, ceil(h / 2), ceil(w / 2), 2 C]."""
        _, height, columns, width = x.shape
        x = jnp.pad(x, ((0, 0), (0, height % 2), (0, columns % 2), (0, 0)))
        x = jnp.concatenate(
            [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)], -1
        )
        x = nn.Dense(2 * width, use_bias=False, dtype=self.dtype, name="reduction")(x)
        return nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name="norm")(x)


class Swin(Network):
    """Images, and with `kprpe` keypoints, to embeddings.

    Source: Liu et al., Swin Transformer V2, 2022; KP-RPE, Sec. 3.2 and 5. Pixels beyond
    the last whole patch are dropped, as officially (112 = 37 x 3 + 1).

    Attributes:
      patch_size: side of a square patch.
      width: channels of the first stage; every further stage doubles them.
      depths, num_heads: of the stages.
      window: (rows, columns) of tokens.
      image_size: (height, width) in pixels.
      channels: of the images; 1 for silhouettes.
      mlp_ratio: hidden width of the MLPs over their width.
      output_dim: D, size of the embedding.
      position: one of POSITIONS; `continuous` is Swin V2's own.
      position_options: fields of `WindowKeypointBias`, such as `mesh`, `num_keypoints`.
      pool: of `EmbeddingHead`.
      drop_path_rate: stochastic depth of the last block; grows linearly from 0.
      mask_padding: of `pair_mask`; False for official weights.
      dtype: compute type. Parameters, norm statistics, logits and output are float32.
    """

    patch_size: int
    width: int
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    window: tuple[int, int]
    image_size: tuple[int, int] = (112, 112)
    channels: int = 3
    mlp_ratio: float = 4.0
    output_dim: int = 512
    position: str = "continuous"
    position_options: Mapping[str, Any] | None = None
    pool: str = "flatten"
    drop_path_rate: float = 0.0
    mask_padding: bool = True
    dtype: DTypeLike = jnp.float32

    @property
    def grids(self) -> list[tuple[int, int]]:
        """(rows, columns) of tokens in each stage."""
        grid = tuple(side // self.patch_size for side in self.image_size)
        grids = [grid]
        for _ in self.depths[1:]:
            grids.append(tuple(-(-side // 2) for side in grids[-1]))
        return grids

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of patches, those of the last stage."""
        return self.grids[-1]

    @property
    def patch_map(self) -> str:
        """The output of the last block."""
        return f"block{sum(self.depths)}"

    @property
    def style_maps(self) -> tuple[str, ...]:
        """The last blocks of the second and the third of four stages; of fewer, all."""
        ends = np.cumsum(self.depths)
        return tuple(f"block{end}" for end in (ends[1:3] if len(ends) > 2 else ends))

    @property
    def uses_keypoints(self) -> bool:
        """Whether the network reads keypoints."""
        return self.position == "kprpe"

    @property
    def num_keypoints(self) -> int:
        """K, how many keypoints the network reads; 0 = none."""
        options = self.position_options or {}
        given = options.get("num_keypoints", WindowKeypointBias.num_keypoints)
        return given if self.uses_keypoints else 0

    def plans(self, stage: int) -> list[Windows]:
        """How each block of a stage cuts its map."""
        return [
            plan_windows(self.grids[stage], self.window, shifted=odd % 2, cut=False)
            for odd in range(self.depths[stage])
        ]

    def setup(self) -> None:
        """Check the options, then declare all parts."""
        self._check_fields()
        patch = (self.patch_size,) * 2
        self.patch_embed = nn.Conv(
            self.width, patch, strides=patch, padding="VALID", dtype=self.dtype
        )
        self.patch_norm = nn.LayerNorm(epsilon=1e-5, dtype=self.dtype)
        layers: list[nn.Module] = []
        for stage, heads in enumerate(self.num_heads):
            if stage:
                layers.append(PatchMerging(self.dtype))
            layers += [
                WindowBlock(
                    num_heads=heads,
                    version="v2",
                    window=self.window,
                    offset_bias="none" if self.uses_keypoints else self.position,
                    mask_padding=self.mask_padding,
                    mlp_dim=int((self.width << stage) * self.mlp_ratio),
                    dtype=self.dtype,
                )
                for _ in range(self.depths[stage])
            ]
        self.layers = layers
        self.keypoint_bias = self._make_keypoint_bias()
        self.norm = nn.LayerNorm(epsilon=1e-5, dtype=self.dtype)
        self.head = EmbeddingHead(self.output_dim, self.pool, dtype=self.dtype)

    def _make_keypoint_bias(self) -> list[WindowKeypointBias]:
        if not self.uses_keypoints:
            return []
        stages = zip(self.depths, self.num_heads, self.grids, strict=True)
        return [
            WindowKeypointBias(
                num_layers=depth,
                num_heads=heads,
                grid=grid,
                window=self.window,
                extent=tuple(
                    side / (self.patch_size << stage) for side in self.image_size
                ),
                **(self.position_options or {}),
            )
            for stage, (depth, heads, grid) in enumerate(stages)
        ]

    def embed_map(self, maps: Array, *, train: bool = False) -> Array:
        """The last feature map [B, h, w, C] to embeddings, float32 [B, output_dim]."""
        tokens = self.norm(maps)
        return self.head(
            tokens.reshape(tokens.shape[0], -1, tokens.shape[-1]), train=train
        )

    def feature_maps(
        self, images: Array, keypoints: Array | None = None, *, train: bool = False
    ) -> dict[str, Array]:
        """Outputs of the patch embedding and of every block and merging.

        Args: as `__call__`.
        Returns: `embed`, `block1` on, and `merge1` on between the stages, in their
          order: [B, h, w, C], h, w and C those of the stage.
        """
        self._check_inputs(images, keypoints)
        x = self.patch_norm(self.patch_embed(images.astype(self.dtype)))
        maps, merged = {"embed": x}, 0
        depth = sum(self.depths)
        biases = [None] * depth
        if self.uses_keypoints:
            biases = [bias for stage in self.bias(keypoints) for bias in stage]
        rates = np.linspace(0, self.drop_path_rate if train else 0.0, depth)
        plans = [
            plan for stage in range(len(self.depths)) for plan in self.plans(stage)
        ]
        block = 0
        for layer in self.layers:
            if isinstance(layer, PatchMerging):
                x, merged = layer(x), merged + 1
                maps[f"merge{merged}"] = x
            else:
                x = layer(x, plans[block], biases[block], float(rates[block]))
                block += 1
                maps[f"block{block}"] = x
        return maps

    def bias(self, keypoints: Array) -> list[list[Array]]:
        """Keypoint bias by stage and block, for pictures and tests.

        Args:
          keypoints: float32 [B, K, 2].
        Returns: float32 [B, windows, heads, N, N] each.
        """
        return [
            bias(keypoints, [token_places(plan) for plan in self.plans(stage)])
            for stage, bias in enumerate(self.keypoint_bias)
        ]

    def _check_fields(self) -> None:
        if len(self.depths) != len(self.num_heads) or not self.depths:
            raise ValueError(
                "Swin: depths and num_heads must have one number per stage; got "
                f"{self.depths} and {self.num_heads}."
            )
        for stage, heads in enumerate(self.num_heads):
            if (self.width << stage) % heads:
                raise ValueError(
                    "Swin: the width of a stage must be a multiple of its num_heads; "
                    f"got {self.width << stage} and {heads} in stage {stage}."
                )
        check_option("Swin", "position", self.position, POSITIONS)
        check_option("Swin", "pool", self.pool, POOLS)

    def _check_inputs(self, images: Array, keypoints: Array | None) -> None:
        self.check_images(images, channels=(self.channels,))
        batch = None if keypoints is None else keypoints.shape[0]
        if self.uses_keypoints and batch != images.shape[0]:
            raise ValueError(
                "Swin: position 'kprpe' needs keypoints [B, K, 2], one set per image; "
                f"got {batch} sets for {images.shape[0]} images."
            )
