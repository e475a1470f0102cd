import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.backbones.dlib_resnet import DlibResNet, ShortcutBlock
from tests.quick import quick_jit


def small(**fields):
    return DlibResNet(**dict(widths=(2, 2, 3, 4, 4), output_dim=5) | fields)


def test_taps():
    model, images = small(), jnp.zeros((2, 150, 150, 3))
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    run = lambda v: model.apply(v, images, method="feature_maps")  # noqa: E731
    maps = jax.eval_shape(run, variables)
    assert {name: value.shape[1:] for name, value in maps.items()} == {
        "stage1": (35, 35, 2), "stage2": (17, 17, 2), "stage3": (8, 8, 3),
        "stage4": (4, 4, 4),
    }  # fmt: skip
    assert model.grid == (4, 4)
    assert small(image_size=(87, 120)).grid == (2, 3)
    assert len(jax.tree.leaves(variables)) == 29 * 4 + 1


@pytest.mark.parametrize("side", [5, 6, 8])
def test_a_block_that_halves_the_map(rng, side):
    """Against sums written out, with the zeros where the smaller map ends."""
    x = rng.normal(size=(1, side, side, 2)).astype(np.float32)
    block = ShortcutBlock(3, True, jnp.float32)
    shapes = jax.eval_shape(block.init, jax.random.key(0), x)
    variables = jax.tree.map(
        lambda s: rng.normal(size=s.shape).astype(np.float32), shapes
    )

    def conv(x, params, stride, padding):
        kernel, bias = params["conv"]["kernel"], params["conv"]["bias"]
        x = np.pad(x, [(padding, padding)] * 2 + [(0, 0)])
        count = (len(x) - 3) // stride + 1
        out = np.zeros((count, count, kernel.shape[-1]))
        for r in range(count):
            for c in range(count):
                window = x[r * stride : r * stride + 3, c * stride : c * stride + 3]
                out[r, c] = np.einsum("hwi,hwio->o", window, kernel) + bias
        return out * params["scale"] + params["bias"]

    params = variables["params"]
    y = np.maximum(conv(x[0].astype(np.float64), params["conv1"], 2, 0), 0)
    y = conv(y, params["conv2"], 1, 1)
    half = side // 2
    mean = x[0, : 2 * half, : 2 * half].reshape(half, 2, half, 2, 2).mean((1, 3))
    want = np.zeros((max(half, len(y)), max(half, len(y)), 3))
    want[: len(y), : len(y)] += y
    want[:half, :half, :2] += mean
    got = quick_jit(block.apply)(variables, x)
    np.testing.assert_allclose(got[0], np.maximum(want, 0), atol=1e-4)


def test_half_precision_gives_float32_embeddings():
    model, images = small(dtype=jnp.bfloat16), jnp.zeros((2, 150, 150, 3))
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    assert jax.eval_shape(model.apply, variables, images).dtype == jnp.float32


def test_wrong_size():
    images = jnp.zeros((2, 80, 80, 3))
    with pytest.raises(ValueError, match=r"at least 87; got \(2, 80, 80, 3\)"):
        jax.eval_shape(small(image_size=(80, 80)).init, jax.random.key(0), images)
