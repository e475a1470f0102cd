import jax
import numpy as np
import pytest

from kprpe_jax.layers.depthwise import DepthwiseConv, depthwise_conv


@pytest.mark.parametrize(
    ("size", "stride", "padding"),
    [((3, 3), 1, 1), ((3, 3), 2, 1), ((3, 2), 2, 0), ((7, 6), 1, 0)],
)
def test_equals_the_grouped_convolution(rng, size, stride, padding):
    x = rng.normal(size=(2, 7, 6, 5)).astype(np.float32)
    kernel = rng.normal(size=(*size, 1, 5)).astype(np.float32)
    want = jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        [(padding, padding)] * 2,
        feature_group_count=5,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    got = depthwise_conv(x, kernel, stride=stride, padding=padding)
    np.testing.assert_allclose(got, want, atol=1e-5)
    module = DepthwiseConv(size, stride, padding)
    got = module.apply({"params": {"kernel": kernel}}, x)
    np.testing.assert_allclose(got, want, atol=1e-5)
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)
    assert shapes["params"]["kernel"].shape == kernel.shape
