"""Swin: sizes, what keypoints do, bad input; parity is in golden/."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.backbones.swin import PRESETS, Swin
from tests.quick import quick_jit

FIELDS = dict(
    image_size=(13, 17), patch_size=2, width=4, depths=(2, 1), num_heads=(1, 2),
    window=(2, 3), output_dim=3, position="kprpe", mlp_ratio=1.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def built():
    model = Swin(**FIELDS, drop_path_rate=0.5)
    images = jax.random.uniform(jax.random.key(0), (2, 13, 17, 3), minval=-1)
    keypoints = jax.random.uniform(jax.random.key(1), (2, 5, 2))
    variables = quick_jit(model.init)(jax.random.key(2), images, keypoints)
    return model, variables, images, keypoints


@pytest.mark.slow
def test_starts_without_bias_then_keypoints_matter(built):
    model, variables, images, keypoints = built

    def run(variables, keypoints):
        maps = model.apply(variables, images, keypoints, method="feature_maps")
        return maps, model.apply(variables, images, keypoints)

    run = quick_jit(run)
    maps, embedding = run(variables, keypoints)
    shapes = {name: m.shape for name, m in maps.items()}
    first = dict.fromkeys(("embed", "block1", "block2"), (2, 6, 8, 4))
    assert shapes == {**first, "merge1": (2, 3, 4, 8), "block3": (2, 3, 4, 8)}
    assert embedding.shape == (2, 3)
    assert (run(variables, 1 - keypoints)[1] == embedding).all()
    kernel = variables["params"]["keypoint_bias_0"]["kernel"]
    params = {
        **variables["params"],
        "keypoint_bias_0": dict(
            variables["params"]["keypoint_bias_0"],
            kernel=jax.random.normal(jax.random.key(3), kernel.shape),
        ),
    }
    variables = {**variables, "params": params}
    first, second = (run(variables, p)[1] for p in (keypoints, 1 - keypoints))
    assert jnp.abs(first - second).max() > 1e-4


@pytest.mark.slow
def test_training_step_is_finite_in_bfloat16(built):
    model, variables, images, keypoints = built
    model = model.clone(dtype=jnp.bfloat16)

    def loss(params, keypoints, key):
        embedding, _ = model.apply(
            {**variables, "params": params}, images, keypoints, train=True,
            rngs={"dropout": key}, mutable=["batch_stats"],
        )  # fmt: skip
        assert embedding.dtype == jnp.float32
        return (embedding * jnp.arange(6.0).reshape(2, 3)).sum()

    gradients = quick_jit(jax.grad(loss, (0, 1)))(
        variables["params"], keypoints, jax.random.key(4)
    )
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradients))


@pytest.mark.slow
def test_bad_input(built):
    model, variables, images, keypoints = built
    with pytest.raises(ValueError, match=r"must be \[B, 13, 17, 3\]; got \(2, 13, 16"):
        model.apply(variables, images[:, :, :16], keypoints)
    with pytest.raises(ValueError, match="got None sets for 2 images"):
        model.apply(variables, images)
    with pytest.raises(ValueError, match="got 1 sets for 2 images"):
        model.apply(variables, images, keypoints[:1])
    cases = [
        (dict(depths=(2,)), "one number per stage"),
        (dict(num_heads=(3, 2)), "got 4 and 3 in stage 0"),
        (dict(position="rope"), "unknown position 'rope'"),
        (dict(pool="max"), "unknown pool 'max'"),
    ]
    for fields, message in cases:
        with pytest.raises(ValueError, match=message):
            Swin(**{**FIELDS, **fields}).init(jax.random.key(0), images, keypoints)


def test_tiny_preset_has_a_shape():
    model = Swin(**PRESETS["tiny"])  # the others are checked by names in golden/
    images = jnp.zeros((1, *model.image_size, 3))
    shape = jax.eval_shape(model.init_with_output, jax.random.key(0), images)
    assert shape[0].shape == (1, model.output_dim)
