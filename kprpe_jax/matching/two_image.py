"""Transformers that look at two faces at once, and their one-image counterparts.

The networks of Face-ViT, Table 4.1: V and H1 are `OneImage`, H2 is `SameOrNot`, H2L is
`TwoLinear`; C is `backbones.arcface_resnet`, whose patch map H1, H2 and H2L read. They
take patches rather than images, so a gallery's patches are computed once, and the CNN
is trained or, under `jax.lax.stop_gradient`, frozen by the caller.

Losses: `margin_softmax` of a `OneImage` embedding, or of `PairFeatures.trained` with
the labels of the first images and then of the second (Eq. 4.7); `same_or_not_loss`.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import optax
from jax import Array

from kprpe_jax.core.checks import check_option
from kprpe_jax.core.unit import unit
from kprpe_jax.layers.batch_norm import BatchNorm
from kprpe_jax.matching.patch_encoder import PairEncoder

HEAD_NORMS = ("layer", "batch")


class PairFeatures(NamedTuple):
    """Output of `TwoLinear`.

    Attributes:
      first, second: float32 [B, D], f_1 and f_2: the similarity is their cosine.
      trained: float32 [2 B, D], what the margin loss reads: all first images, then all
        second ones.
    """

    first: Array
    second: Array
    trained: Array


class OneImage(nn.Module):
    """One image at a time to an embedding: the normalized class token.

    Source: Face-ViT, Table 4.1: V with learned patches, H1 with those of a CNN.

    Attributes:
      encoder: its width is that of the embedding.
    """

    encoder: PairEncoder

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> Array:
        """Embed; `images` as `PairEncoder` takes one. Returns float32 [B, C]."""
        tokens = self.encoder(images, train=train)
        return _layer_norm("norm")(tokens.summary)


class SameOrNot(nn.Module):
    """Two images to two logits: other person, same person.

    Source: Face-ViT, Sec. 4.4, H2.
    """

    encoder: PairEncoder

    @nn.compact
    def __call__(self, first: Array, second: Array, *, train: bool = False) -> Array:
        """Compare; images as `PairEncoder` takes two. Returns float32 [B, 2]."""
        tokens = self.encoder(first, second, train=train)
        return nn.Dense(2, name="head")(_layer_norm("norm")(tokens.summary))


class TwoLinear(nn.Module):
    """Two images to a feature of each, which depends on the other image as well.

    Source: Face-ViT, Eq. 4.5 and 4.6, H2L. Swapped images give other features.

    Attributes:
      encoder: its patches, all together, go through one linear layer per image.
      output_dim: D, size of a feature.
      head_norm: `layer`, as in the thesis; `batch`: batch norms instead, and a layer
        norm that only the margin loss sees, as in the official code.
      shared_head: one linear layer (and batch norm) for both images.
    """

    encoder: PairEncoder
    output_dim: int = 512
    head_norm: str = "layer"
    shared_head: bool = False

    @nn.compact
    def __call__(
        self, first: Array, second: Array, *, train: bool = False
    ) -> PairFeatures:
        """Compare.

        Args:
          first, second: [B, N, C] patches, row by row, or with `encoder.windows` images
            [B, H, W, 3] in [-1, 1].
          train: batch statistics and dropout are on; needs the rng stream `dropout`
            where there is any.
        Raises: ValueError: unknown `head_norm`; as `PairEncoder`.
        """
        check_option("TwoLinear", "head_norm", self.head_norm, HEAD_NORMS)
        tokens = self.encoder(first, second, train=train)
        options = dict(dtype=self.encoder.dtype)
        numbers = ("",) if self.shared_head else ("1", "2")
        heads = [nn.Dense(self.output_dim, **options, name=f"head{n}") for n in numbers]
        if self.head_norm == "layer":
            norms = [_layer_norm(f"norm{n}") for n in numbers]
        else:
            norms = [BatchNorm(name=f"norm{n}") for n in numbers]
        features = []
        for index, patches in enumerate(tokens.patches):
            part = index % len(numbers)
            x = heads[part](patches.reshape(len(patches), -1))
            how = {} if self.head_norm == "layer" else dict(train=train)
            features.append(norms[part](x, **how))
        trained = jnp.concatenate(features)
        if self.head_norm == "batch":
            trained = _layer_norm("loss_norm")(trained)
        return PairFeatures(*features, trained)


PairNetwork = OneImage | SameOrNot | TwoLinear


def _layer_norm(name: str) -> nn.LayerNorm:
    return nn.LayerNorm(epsilon=1e-5, dtype=jnp.float32, name=name)


def same_or_not_loss(logits: Array, same: Array) -> Array:
    """Binary cross entropy of H2 over a two-way softmax (Face-ViT, Sec. 4.4).

    Args:
      logits: float32 [B, 2], from `SameOrNot`.
      same: bool [B].
    Returns: float32 scalar, the mean.
    """
    labels = same.astype(jnp.int32)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def same_probability(logits: Array) -> Array:
    """How likely the pair is one person: float32 [B, 2] -> [B], for ranking."""
    return nn.softmax(logits)[..., 1]


def feature_similarity(features: PairFeatures) -> Array:
    """Cosine of f_1 and f_2: float32 [B] in [-1, 1], 0 where one is zero."""
    return (unit(features.first) * unit(features.second)).sum(-1)


def score_pairs(
    model: PairNetwork, variables: dict[str, Any], first: Array, second: Array
) -> Array:
    """How alike pairs are: a cosine, or H2's probability.

    Args:
      model, variables: the network.
      first, second: [P, ...], as it reads images.
    Returns: float32 [P].
    """
    if isinstance(model, OneImage):
        sides = (unit(model.apply(variables, side)) for side in (first, second))
        return jnp.multiply(*sides).sum(-1)
    output = model.apply(variables, first, second)
    if isinstance(model, SameOrNot):
        return same_probability(output)
    return feature_similarity(output)
