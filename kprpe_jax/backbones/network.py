"""What every image network is: images and keypoints in, features out."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from kprpe_jax.core.features import Features, style_statistics


class Network(nn.Module):
    """Base of the backbones.

    A backbone has the fields `image_size` and `output_dim` and defines `feature_maps`,
    `embed_map`, `patch_map` and `style_maps`, and `patches_along` or `grid` where
    patches have another side; the rest is here, once.

    Attributes:
      patch_map: name of the feature map whose cells are the patches.
      style_maps: names of the feature maps that style statistics are taken from.
      patch_side: pixels of the image along the side of a patch.
    """

    patch_map = ""
    style_maps = ()
    patch_side = 16

    @property
    def uses_keypoints(self) -> bool:
        """Whether the network reads keypoints."""
        return False

    @property
    def num_keypoints(self) -> int:
        """K, how many keypoints the network reads; 0 = none."""
        return 0

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of patches."""
        return tuple(self.patches_along(side) for side in self.image_size)

    @nn.nowrap
    def patches_along(self, side: int) -> int:
        """Patches along an image side of `side` pixels."""
        return -(-side // self.patch_side)

    def feature_maps(
        self, images: Array, keypoints: Array | None = None, *, train: bool = False
    ) -> dict[str, Array]:
        """Feature maps [B, h, w, C] by name, from the input on; args as `__call__`."""
        raise NotImplementedError

    def embed_map(self, patch_map: Array, *, train: bool = False) -> Array:
        """The map `patch_map` [B, h, w, C] to embeddings, float32 [B, output_dim]."""
        raise NotImplementedError

    def __call__(
        self, images: Array, keypoints: Array | None = None, *, train: bool = False
    ) -> Array:
        """Embed.

        Args:
          images: [B, H, W, 3], as the network was trained to read them
            (`InputSpec.apply`).
          keypoints: float32 [B, K, 2], (x, y) in fractions of the image; for networks
            that read them.
          train: batch statistics, dropout, stochastic depth and token masking are on;
            all but the first need the rng stream `dropout`.
        Returns: float32 [B, output_dim], not normalized.
        Raises: ValueError: image size, channels or keypoints do not fit the network.
        """
        maps = self.feature_maps(images, keypoints, train=train)
        return self.embed_map(maps[self.patch_map], train=train)

    def features(
        self,
        images: Array,
        keypoints: Array | None = None,
        *,
        train: bool = False,
        style_maps: tuple[str, ...] = (),
    ) -> Features:
        """Embeddings, patches and style statistics in one pass.

        Args:
          images, keypoints, train: as `__call__`.
          style_maps: feature maps of the style statistics; () = the network's own.
        Returns: float32 features; what is not used costs nothing once compiled.
        Raises: ValueError: as `__call__`; an unknown map.
        """
        maps = self.feature_maps(images, keypoints, train=train)
        names = tuple(style_maps) or self.style_maps
        unknown = [name for name in names if name not in maps]
        if unknown:
            raise ValueError(
                f"{type(self).__name__}: there is no feature map {unknown[0]!r}; use "
                f"some of {', '.join(maps)}."
            )
        last = maps[self.patch_map]
        return Features(
            self.embed_map(last, train=train),
            last.reshape(last.shape[0], -1, last.shape[-1]).astype(jnp.float32),
            style_statistics([maps[name] for name in names]),
            keypoints,
        )

    def check_images(
        self,
        images: Array,
        *,
        channels: tuple[int, ...] = (3,),
        multiple: int = 1,
        least: int = 1,
    ) -> None:
        """Check that images are those that the network reads.

        Args:
          images: [B, H, W, C].
          channels: the numbers of channels that it reads.
          multiple, least: sides of its images are multiples of this, and at least this.
        Raises: ValueError: they are not.
        """
        size, rule = self.image_size, ""
        if multiple > 1:
            rule = f" with sides that are multiples of {multiple}"
        if least > 1:
            rule = f" with sides of at least {least}"
        fits = all(side >= least and side % multiple == 0 for side in size)
        shapes = [(*size, count) for count in channels]
        if images.ndim != 4 or images.shape[1:] not in shapes or not fits:
            raise ValueError(
                f"{type(self).__name__}: images must be [B, {size[0]}, {size[1]}, "
                f"{' or '.join(map(str, channels))}]{rule}; got {images.shape}; resize "
                "them or change model.image_size."
            )
