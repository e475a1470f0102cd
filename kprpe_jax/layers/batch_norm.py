"""Batch normalisation with float32 statistics over the global batch."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array


class BatchNorm(nn.Module):
    """Normalise features over all other axes.

    Statistics are those of the whole array: under `jax.jit` with a sharded batch that
    is the global batch on every device. The batch is normalised with its biased
    variance, the running variance collects the unbiased one (n / (n - 1)), as PyTorch
    does; Flax's own layer keeps the biased one, so it cannot continue official runs.

    Attributes:
      epsilon: added to the variance; 2e-5 in the official embedding heads.
      momentum: share of the old running statistics kept at each step.
    """

    epsilon: float = 1e-5
    momentum: float = 0.9

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Normalise.

        Args:
          x: [..., C].
          train: use and collect batch statistics, else use the running ones.
        Returns: [..., C], float32. A batch of one sample gives `bias` everywhere.
        """
        features = x.shape[-1]
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
        count = x.size // features
        batch_mean = x.mean(axes)
        batch_var = jnp.square(x - batch_mean).mean(axes)
        if not self.is_initializing():
            unbiased = batch_var * (count / max(count - 1, 1))
            keep, add = self.momentum, 1.0 - self.momentum
            mean.value = keep * mean.value + add * jax.lax.stop_gradient(batch_mean)
            var.value = keep * var.value + add * jax.lax.stop_gradient(unbiased)
        normalised = (x - batch_mean) * jax.lax.rsqrt(batch_var + self.epsilon)
        return normalised * scale + bias
