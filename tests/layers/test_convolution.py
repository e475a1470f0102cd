"""The faster convolutions of a CPU against loops, and where they are used."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.layers import convolution
from kprpe_jax.layers.convolution import PRelu, conv, convolve, leaky_relu, sum_shifted
from kprpe_jax.layers.winograd import transform_kernel, winograd_conv


def slow_conv(x, kernel, stride=1):
    """3 x 3 with one pixel of zeros around, in float64, pixel by pixel."""
    x, kernel = np.asarray(x, np.float64), np.asarray(kernel, np.float64)
    x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    rows = range(0, x.shape[1] - 2, stride)
    columns = range(0, x.shape[2] - 2, stride)
    out = np.zeros((len(x), len(rows), len(columns), kernel.shape[-1]))
    for a, row in enumerate(rows):
        for b, column in enumerate(columns):
            window = x[:, row : row + 3, column : column + 3]
            out[:, a, b] = np.tensordot(window, kernel, axes=3)
    return out


def draw(rng, shape, outputs):
    x = rng.normal(size=shape).astype(np.float32)
    kernel = rng.normal(size=(3, 3, shape[-1], outputs)).astype(np.float32)
    return x, kernel


def assert_close(got, want, error):
    np.testing.assert_allclose(got, want, rtol=0, atol=error * np.abs(want).max())


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (7, 7), (8, 6)])
@pytest.mark.parametrize("pass_bytes", [1, 2**24])
def test_winograd_equals_loops(rng, monkeypatch, size, pass_bytes):
    monkeypatch.setattr("kprpe_jax.layers.winograd._PASS_BYTES", pass_bytes)
    x, kernel = draw(rng, (3, *size, 5), 4)
    assert_close(jax.jit(winograd_conv)(x, kernel), slow_conv(x, kernel), 1e-5)


@pytest.mark.slow
def test_winograd_of_many_channels(rng):
    x, kernel = draw(rng, (2, 14, 14, 256), 128)
    # Measured: 2e-6.
    assert_close(jax.jit(winograd_conv)(x, kernel), slow_conv(x, kernel), 1e-5)


def test_kernel_transform_is_the_papers(rng):
    _, kernel = draw(rng, (1, 1, 1, 2), 3)
    g = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
    want = np.einsum("ai,ijcd,bj->abcd", g, kernel, g)
    np.testing.assert_allclose(transform_kernel(kernel), want, atol=1e-6)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(1, 1), (4, 7), (9, 8)])
def test_sum_of_shifted_images_equals_loops(rng, stride, size):
    x, kernel = draw(rng, (2, *size, 3), 8)
    got = jax.jit(partial(sum_shifted, stride=stride))(x, kernel)
    assert_close(got, slow_conv(x, kernel, stride), 1e-6)


def method(layer, shape, dtype=jnp.float32):
    """Name of the function that a layer's convolution on a CPU is."""
    found = []
    choose = convolution._choose_faster

    def spy(*arguments):
        found.append(choose(*arguments))
        return found[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convolution, "_choose_faster", spy)
        x = jax.ShapeDtypeStruct(shape, dtype)
        jax.eval_shape(layer.init_with_output, jax.random.key(0), x)
    return getattr(found[0], "func", found[0])


def test_methods_by_shape():
    layer = partial(conv, dtype=jnp.float32)
    assert method(layer(64, 3, 1), (4, 28, 28, 64)) is winograd_conv
    assert method(layer(8, 3, 2), (1, 64, 64, 3)) is sum_shifted
    # Few images, few tiles or channels, a stride, another size or type: XLA's own.
    assert method(layer(64, 3, 1), (2, 28, 28, 64)) is None
    assert method(layer(512, 3, 1), (4, 7, 7, 256)) is None
    assert method(layer(64, 3, 1), (8, 28, 28, 32)) is None
    assert method(layer(64, 3, 2), (8, 28, 28, 64)) is None
    assert method(layer(64, 1, 1), (8, 28, 28, 64)) is None
    assert method(conv(64, 3, 1, jnp.bfloat16), (8, 28, 28, 64)) is None
    other = partial(nn.Conv, 64, (3, 3), conv_general_dilated=convolve)
    assert method(other(padding="SAME"), (8, 28, 28, 64)) is None
    assert method(other(padding=1, kernel_dilation=2), (8, 28, 28, 64)) is None
    assert method(other(padding=1, feature_group_count=2), (8, 28, 28, 128)) is None


def direct(x, kernel):
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), [(1, 1)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def faster(x, kernel):
    numbers = ("NHWC", "HWIO", "NHWC")
    numbers = jax.lax.conv_dimension_numbers(x.shape, kernel.shape, numbers)
    return convolve(x, kernel, (1, 1), [(1, 1)] * 2, dimension_numbers=numbers)


def test_only_inference_on_a_cpu_takes_another_path(rng):
    x, kernel = draw(rng, (4, 24, 24, 64), 64)

    def lowered(function, platform):
        lower = jax.jit(function).trace(x, kernel).lower(lowering_platforms=(platform,))
        return lower.as_text().count("stablehlo.convolution")

    def gradient(function):
        loss = lambda x, kernel: jnp.square(function(x, kernel)).sum()  # noqa: E731
        return jax.value_and_grad(loss, argnums=(0, 1))

    assert lowered(faster, "cpu") == 0
    assert lowered(faster, "cuda") == lowered(faster, "tpu") == 1
    assert lowered(gradient(faster), "cpu") == lowered(gradient(direct), "cpu") == 3
    got = jax.jit(gradient(faster))(x, kernel)
    want = jax.jit(gradient(direct))(x, kernel)
    jax.tree.map(np.testing.assert_array_equal, got, want)


@pytest.mark.parametrize("batch", ["4", "b"])
def test_exported_for_several_platforms_and_any_batch(rng, batch):
    x, kernel = draw(rng, (4, 24, 24, 64), 64)
    shape = jax.export.symbolic_shape(f"{batch}, 24, 24, 64")
    export = jax.export.export(jax.jit(faster), platforms=("cpu", "cuda"))
    exported = export(jax.ShapeDtypeStruct(shape, jnp.float32), kernel)
    assert_close(exported.call(x, kernel), slow_conv(x, kernel), 1e-5)


def test_the_gradient_at_zero_is_the_slope():
    """PyTorch's rule, for the input and the slope: exactly 0 counts as below it."""
    x = jnp.array([-2.0, 0.0, 3.0])
    slope = jnp.array([0.25])
    got, to_slope = jax.grad(lambda *a: leaky_relu(*a).sum(), (0, 1))(x, slope)
    np.testing.assert_array_equal(got, [0.25, 0.25, 1.0])
    np.testing.assert_array_equal(to_slope, [-2.0])
    module = PRelu(shared=True)
    params = {"params": {"slope": slope}}
    got = jax.grad(lambda x: module.apply(params, x).sum())(x)
    np.testing.assert_array_equal(got, [0.25, 0.25, 1.0])
