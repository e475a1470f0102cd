"""What the convolutional face networks are made of."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from kprpe_jax.layers.winograd import winograd_conv

_CHANNELS_LAST = ("NHWC", "HWIO", "NHWC")


def leaky_relu(x: Array, slope: Array | float) -> Array:
    """x above 0, else slope times x; at 0 the gradient is the slope, as PyTorch's is.

    (`jax.nn.leaky_relu` has 1 there, which shows where features are exactly 0.)
    """
    return jnp.where(x > 0, x, x * slope)


class PRelu(nn.Module):
    """Leaky ReLU with a learned slope per channel, or one for all.

    Attributes:
      shared: one slope for all channels.
    """

    shared: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[..., C] -> [..., C]."""
        count = 1 if self.shared else x.shape[-1]
        slope = self.param("slope", nn.initializers.constant(0.25), (count,))
        return leaky_relu(x, slope.astype(x.dtype))


def convolve(
    x: Array,
    kernel: Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    **options: Any,
) -> Array:
    """`jax.lax.conv_general_dilated`, by a faster method for inference on a CPU.

    `nn.Conv` takes it as `conv_general_dilated`. Where it is differentiated, and on
    other platforms, it is that function itself.

    Args:
      x: [B, H, W, C].
      kernel: [h, w, C, D].
      window_strides: in both directions.
      padding: zeros on each side.
      options: of `jax.lax.conv_general_dilated`.
    Returns: [B, H', W', D].
    """
    direct = partial(
        jax.lax.conv_general_dilated,
        window_strides=window_strides,
        padding=padding,
        **options,
    )
    faster = _choose_faster(x, kernel, window_strides, padding, options)
    if faster is None:
        return direct(x, kernel)

    @jax.custom_jvp
    def run(x: Array, kernel: Array) -> Array:
        # Decided when a program is lowered, so one can be exported for several.
        return jax.lax.platform_dependent(x, kernel, cpu=faster, default=direct)

    @run.defjvp
    def _run_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
        return jax.jvp(direct, primals, tangents)

    return run(x, kernel)


def _choose_faster(
    x: Array,
    kernel: Array,
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    options: dict[str, Any],
) -> Callable[[Array, Array], Array] | None:
    """Find a method that takes less time on a CPU than XLA's; None = there is none."""
    numbers = jax.lax.conv_dimension_numbers(x.shape, kernel.shape, _CHANNELS_LAST)
    plain = (
        kernel.shape[:2] == (3, 3)
        and not isinstance(padding, str)
        and all(tuple(pair) == (1, 1) for pair in padding)
        and strides[0] == strides[1]
        and options.get("dimension_numbers") == numbers
        and options.get("feature_group_count", 1) == 1
        and options.get("precision") is None
        and set(options.get("lhs_dilation") or (1,)) == {1}
        and set(options.get("rhs_dilation") or (1,)) == {1}
        and x.dtype == kernel.dtype == jnp.float32
    )
    if not plain:
        return None
    inputs, outputs = kernel.shape[2:]
    if inputs <= 4 and outputs <= 16:
        return partial(sum_shifted, stride=strides[0])
    known = all(isinstance(side, int) for side in x.shape)  # else it is exported
    if not known or strides[0] > 1 or min(inputs, outputs) < 64:
        return None
    # The kernel is transformed in every call, which few tiles do not pay for; one image
    # alone gains nothing, and compiling takes ten times as long.
    tiles = x.shape[0] * (x.shape[1] // 2) * (x.shape[2] // 2)
    return winograd_conv if x.shape[0] >= 4 and tiles >= 128 else None


def sum_shifted(x: Array, kernel: Array, *, stride: int) -> Array:
    """Convolve few channels to few by adding shifted images, one pixel of zeros around.

    Args:
      x: [B, H, W, C].
      kernel: [3, 3, C, D].
      stride: in both directions.
    Returns: [B, ceil(H / stride), ceil(W / stride), D].
    """
    height, width = x.shape[1:3]
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return sum(
        x[:, i : i + height : stride, j : j + width : stride, c : c + 1]
        * kernel[i, j, c]
        for i in range(3)
        for j in range(3)
        for c in range(kernel.shape[2])
    )


def conv(
    width: int,
    size: int,
    stride: int,
    dtype: DTypeLike,
    name: str | None = None,
    *,
    bias: bool = False,
    groups: int = 1,
) -> nn.Conv:
    """Square convolution whose map keeps its size, divided by the stride, rounded up.

    Args:
      width: output channels.
      size: side of the kernel, odd.
      stride: in both directions.
      dtype: compute type.
      name: of the module, where its parent is compact.
      bias: whether it adds one.
      groups: of channels, each of which sees only its own.
    """
    return nn.Conv(
        width,
        (size, size),
        strides=stride,
        padding=size // 2,
        use_bias=bias,
        feature_group_count=groups,
        kernel_init=nn.initializers.variance_scaling(2.0, "fan_out", "normal"),
        dtype=dtype,
        name=name,
        conv_general_dilated=convolve,
    )
