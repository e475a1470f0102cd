"""Batch normalization with float32 statistics over the global batch."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array


class BatchNorm(nn.Module):
    """Normalize features over all other axes.

    Statistics are those of the whole array: under `jax.jit` with a sharded batch that
    is the global batch on every device. The batch is normalized with its biased
    variance, the running variance collects the unbiased one (n / (n - 1)), as PyTorch
    does; Flax's own layer keeps the biased one, so it cannot continue official runs.

    Attributes:
      epsilon: added to the variance; 2e-5 in the official embedding heads.
      momentum: share of the old running statistics kept at each step.
      affine: whether there are a learned scale and bias.
    """

    epsilon: float = 1e-5
    momentum: float = 0.9
    affine: bool = True

    @nn.compact
    def __call__(self, x: Array, mask: Array | None = None, *, train: bool) -> Array:
        """Normalize.

        Args:
          x: [..., C].
          mask: bool [...], False = does not enter the statistics; None = all enter.
          train: use and collect batch statistics, else use the running ones.
        Returns: [..., C], float32. A batch of one sample gives `bias` everywhere; one
          that is masked altogether leaves the running statistics as they are.
        """
        features = x.shape[-1]
        scale, bias = 1.0, 0.0
        if self.affine:
            scale = self.param("scale", nn.initializers.ones, (features,))
            bias = self.param("bias", nn.initializers.zeros, (features,))
        mean = self.variable("batch_stats", "mean", jnp.zeros, (features,))
        var = self.variable("batch_stats", "var", jnp.ones, (features,))

        x = x.astype(jnp.float32)
        if not train:
            return (x - mean.value) * jax.lax.rsqrt(
                var.value + self.epsilon
            ) * scale + bias
        axes = tuple(range(x.ndim - 1))
        batch_mean, batch_var, count = _moments(x, mask, axes)
        if not self.is_initializing():
            unbiased = batch_var * (count / jnp.maximum(count - 1, 1))
            for running, new in ((mean, batch_mean), (var, unbiased)):
                moved = self.momentum * running.value
                moved += (1.0 - self.momentum) * jax.lax.stop_gradient(new)
                running.value = jnp.where(count > 0, moved, running.value)
        normalized = (x - batch_mean) * jax.lax.rsqrt(batch_var + self.epsilon)
        return normalized * scale + bias


def _moments(
    x: Array, mask: Array | None, axes: tuple[int, ...]
) -> tuple[Array, Array, Array | int]:
    """Mean and biased variance [C] of what the mask lets in, and how much that is."""
    if mask is None:
        mean = x.mean(axes)
        return mean, jnp.square(x - mean).mean(axes), x.size // x.shape[-1]
    count = mask.sum()
    valid, size = mask[..., None], jnp.maximum(count, 1)
    mean = jnp.where(valid, x, 0.0).sum(axes) / size
    return mean, jnp.where(valid, jnp.square(x - mean), 0.0).sum(axes) / size, count
