import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.backbones.vit import PRESETS, ViT
from kprpe_jax.position.encoding import BiasTables
from tests.quick import quick_jit

SMALL = dict(
    image_size=(16, 24), patch_size=8, width=16, depth=3, num_heads=2, mlp_ratio=2.0,
    output_dim=6,
)  # fmt: skip
POSITIONS = (
    "none", "absolute", "absolute_drawn", "rpe", "irpe", "kprpe_absolute",
    "kprpe_relative", "kprpe_multihead", "kprpe_scalar",
)  # fmt: skip
IMAGES = np.random.default_rng(0).uniform(-1, 1, (4, 16, 24, 3)).astype(np.float32)
KEYPOINTS = np.random.default_rng(1).uniform(0, 1, (4, 5, 2)).astype(np.float32)


def make(position="kprpe_multihead", **fields):
    return ViT(**(SMALL | dict(position=position) | fields))


def shapes_of(model):
    return jax.eval_shape(model.init, jax.random.key(0), IMAGES, KEYPOINTS)


def random_variables(model, scale=0.3):
    """Like trained ones: no table is zero, variances are positive."""
    rng = np.random.default_rng(2)

    def draw(path, leaf):
        if path[-1].key in ("var", "scale"):
            return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        return rng.normal(0, scale, leaf.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes_of(model))


def unroll(variables, depth):
    """Stacked parameters of `scan=True` as those of `scan=False`."""
    params = dict(variables["params"])
    blocks = params.pop("blocks")
    for n in range(depth):
        params[f"blocks_{n}"] = jax.tree.map(lambda leaf, n=n: leaf[n], blocks)
    return {**variables, "params": params}


def embedder(model):
    """Compiled: variables -> embeddings of IMAGES."""

    def run(variables):
        out, _ = model.apply(variables, IMAGES, KEYPOINTS, mutable=["batch_stats"])
        return out

    return quick_jit(run)


def embed(model, variables):
    return embedder(model)(variables)


def tokens_of(model, variables, *, train=False):
    return quick_jit(
        lambda variables: model.apply(
            variables,
            IMAGES,
            train=train,
            method="tokens",
            rngs={"dropout": jax.random.key(3)},
        )
    )(variables)


def loss_and_gradients(model, variables):
    def loss(params):
        out, _ = model.apply(
            {**variables, "params": params},
            IMAGES,
            KEYPOINTS,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.key(3)},
        )
        return (out**2).sum() + out[0, 0]

    return quick_jit(jax.value_and_grad(loss))(variables["params"])


@pytest.mark.slow
@pytest.mark.parametrize("position", POSITIONS)
def test_scan_equals_unrolled(position):
    model = make(position, depth=2)
    variables = random_variables(model)
    scanned = embed(model, variables)
    unrolled = embed(model.clone(scan=False), unroll(variables, model.depth))
    assert scanned.shape == (4, 6)
    np.testing.assert_allclose(unrolled, scanned, rtol=1e-5, atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("scan", [True, False])
def test_remat_changes_nothing(scan):
    """Stochastic depth and token masking, too, must be redrawn alike."""
    model = make(scan=scan, drop_path_rate=0.5, mask_ratio=0.3, depth=2)
    variables = random_variables(model)
    plain, remat = (
        loss_and_gradients(model.clone(remat=remat), variables)
        for remat in (False, True)
    )
    peaks = jax.tree.map(lambda leaf: float(jnp.abs(leaf).max()), plain)
    # The head's batch norm takes away what the bias before it adds: that gradient
    # is round-off, which is as large as the sums are that cancel in it.
    floor = 1e-6 * max(jax.tree.leaves(peaks[1]))
    leaves = map(jax.tree.leaves, (plain, remat, peaks))
    for one, two, peak in zip(*leaves, strict=True):
        np.testing.assert_allclose(two, one, rtol=0, atol=1e-4 * peak + floor)


@pytest.mark.parametrize(
    "position", ["rpe", "irpe", "kprpe_absolute", "kprpe_relative", "kprpe_multihead"]
)
def test_every_encoding_starts_as_the_plain_model(position):
    model, plain = make(position, depth=1), make("absolute", depth=1)
    variables, run = random_variables(model), embedder(model)
    tables = variables["params"].pop("bias_tables")
    want = embed(plain, variables)
    variables["params"]["bias_tables"] = jax.tree.map(np.zeros_like, tables)
    np.testing.assert_array_equal(run(variables), want)
    # And tables that are not zero do change the output.
    variables["params"]["bias_tables"] = tables
    assert float(jnp.abs(run(variables) - want).max()) > 1e-3


def test_bias_is_none_of_the_images_business():
    """f(P) reads keypoints only; `bias` shows it for every layer."""
    model = make(position_options=dict(scale_bias=False))
    variables = random_variables(model)
    biases = quick_jit(lambda v: model.apply(v, KEYPOINTS, method="bias"))(variables)
    assert [bias.shape for bias in biases] == [(4, 2, 6, 6)] * 3
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(biases[0], biases[1], atol=1e-3)


@pytest.mark.parametrize("position", ["none", "absolute", "irpe"])
def test_no_bias_where_there_is_none_of_its_own(position):
    model = make(position)
    with pytest.raises(ValueError, match=f"position '{position}' has no bias"):
        model.apply(shapes_of(model), method="bias")


@pytest.mark.slow
def test_bfloat16():
    """Eight bits of mantissa through three blocks: 3 % of the largest value."""
    model = make()
    variables = random_variables(model, scale=0.1)
    half = model.clone(dtype=jnp.bfloat16)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(shapes_of(half)))
    want, got = embed(model, variables), embed(half, variables)
    assert got.dtype == jnp.float32
    difference = float(jnp.abs(got - want).max() / jnp.abs(want).max())
    assert 0 < difference < 0.03
    loss, gradients = loss_and_gradients(half.clone(scan=False), unroll(variables, 3))
    assert np.isfinite(loss)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradients))


def test_masking_in_training_equals_cutting_the_tokens_out():
    """Visible tokens see what they would see if the hidden ones did not exist."""
    model = make("absolute", mask_ratio=0.4, pool="mean")
    variables = random_variables(model)
    final = tokens_of(model, variables, train=True)[-1]
    hidden = np.asarray((final == variables["params"]["mask_token"]).all(-1))
    np.testing.assert_array_equal((~hidden).sum(1), int(6 * 0.6))
    assert (hidden != hidden[0]).any()

    def rest(model, tokens):
        x, _ = model.blocks(tokens, BiasTables(), None, (), None)
        return model.norm(x)

    cut_out = quick_jit(lambda tokens: model.apply(variables, tokens, method=rest))
    bound = model.bind(variables)
    tokens = bound.patch_embed(IMAGES).reshape(4, 6, 16) + bound.position_embedding
    for b in range(4):
        cut = cut_out(tokens[b : b + 1, ~hidden[b]])
        np.testing.assert_allclose(final[b, ~hidden[b]], cut[0], rtol=1e-4, atol=1e-5)
    # No masking in evaluation.
    clean = tokens_of(model, variables)[-1]
    assert not (clean == variables["params"]["mask_token"]).all(-1).any()


def test_stochastic_depth_grows_from_zero():
    model = make("none", drop_path_rate=0.999, scan=True, pool="mean")
    variables = random_variables(model)
    blocks = tokens_of(model, variables, train=True)
    plain = tokens_of(model, variables)
    np.testing.assert_allclose(blocks[0], plain[0], rtol=1e-5, atol=1e-6)  # rate 0
    np.testing.assert_array_equal(blocks[2], blocks[1])  # both branches dropped


@pytest.mark.parametrize(
    ("preset", "position", "options", "millions"),
    [
        ("small", "absolute", {}, 95.95),
        ("small", "kprpe_multihead", {}, 96.00),
        ("small", "irpe", dict(context="qkv", per_head=False), 96.07),
        ("base", "absolute", {}, 114.87),
        ("base", "kprpe_multihead", {}, 115.08),
        ("base", "irpe", dict(context="qkv", per_head=False), 114.98),
    ],
)
def test_parameter_counts_of_table_3(preset, position, options, millions):
    model = ViT(**PRESETS[preset], position=position, position_options=options)
    images = jnp.zeros((1, *model.image_size, 3))
    shapes = jax.eval_shape(model.init, jax.random.key(0), images, jnp.zeros((1, 5, 2)))
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))
    assert abs(count / 1e6 - millions) < 0.01


def test_errors():
    key = jax.random.key(0)

    def init(images=IMAGES, keypoints=KEYPOINTS, **fields):
        model = ViT(**(SMALL | dict(position="kprpe_multihead") | fields))
        jax.eval_shape(model.init, key, images, keypoints)

    with pytest.raises(ValueError, match="multiple of patch_size; got 16 x 20 and 8"):
        init(image_size=(16, 20))
    with pytest.raises(ValueError, match="multiple of num_heads; got 16 and 3"):
        init(num_heads=3)
    with pytest.raises(ValueError, match="unknown position 'kprp'; use one of"):
        init(position="kprp")
    with pytest.raises(ValueError, match="unknown pool 'max'; use one of"):
        init(pool="max")
    with pytest.raises(ValueError, match=r"mask_ratio must lie in \[0, 1\); got 1.5"):
        init(mask_ratio=1.5)
    with pytest.raises(ValueError, match=r"drop_path_rate must lie .* got 1\."):
        init(drop_path_rate=1.0)
    with pytest.raises(ValueError, match="context must be one or more .* got 'K'"):
        init(position="irpe", position_options=dict(context="K"))
    with pytest.raises(ValueError, match="unknown activation 'tanh'; use one of"):
        init(activation="tanh")
    with pytest.raises(ValueError, match="unknown method 'manhattan'"):
        init(position_options=dict(method="manhattan"))
    with pytest.raises(ValueError, match=r"\[B, 16, 24, 3\]; got \(4, 24, 16, 3\)"):
        init(images=IMAGES.transpose(0, 2, 1, 3))
    with pytest.raises(ValueError, match=r"images must be .* got \(4, 16, 24, 1\)"):
        init(images=IMAGES[..., :1])
    with pytest.raises(ValueError, match=r"needs keypoints \[4, 5, 2\]; got None"):
        init(keypoints=None)
    with pytest.raises(ValueError, match=r"keypoints \[4, 5, 2\]; got \(4, 4, 2\)"):
        init(keypoints=KEYPOINTS[:, :4])
    with pytest.raises(ValueError, match=r"keypoints \[4, 9, 2\]; got \(4, 5, 2\)"):
        init(position_options=dict(num_keypoints=9))
