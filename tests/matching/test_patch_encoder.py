import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.matching.patch_encoder import (
    ATTENTIONS,
    PairEncoder,
    PatchWindows,
)
from tests.quick import quick_jit

PATCHES, WIDTH, HEADS, HEAD_DIM, DEPTH = 3, 6, 2, 5, 2


def small(**fields):
    sizes = dict(mlp_dim=4, width=WIDTH, num_patches=PATCHES, head_dim=HEAD_DIM)
    return PairEncoder(DEPTH, HEADS, **{**sizes, "dropout_rate": 0.0, **fields})


def random_variables(model, rng, *images):
    """Variables with numbers everywhere, also where `init` has ones and zeros."""
    init = lambda *x: model.init(jax.random.key(0), *x, train=False)  # noqa: E731
    shapes = jax.eval_shape(init, *images)
    return jax.tree.map(
        lambda s: rng.normal(0, 0.5, s.shape).astype(np.float32), shapes
    )


def run(model, variables, *images):
    return quick_jit(lambda v, x: model.apply(v, *x, train=False))(variables, images)


@pytest.fixture
def pair(rng):
    return rng.normal(size=(2, 4, PATCHES, WIDTH)).astype(np.float32)


def slow_norm(x, params):
    mean, deviation = x.mean(), math.sqrt(x.var() + 1e-5)
    return (x - mean) / deviation * params["scale"] + params["bias"]


def slow_attention(tokens, params, scale):
    """Head by head and token by token."""
    qkv, out = tokens @ params["qkv"]["kernel"], []
    weights = np.zeros((HEADS, len(tokens), len(tokens)))
    for i in range(len(tokens)):
        heads = []
        for h in range(HEADS):
            q, k, v = (
                qkv[:, (part * HEADS + h) * HEAD_DIM :][:, :HEAD_DIM]
                for part in range(3)
            )
            powers = np.array([math.exp(q[i] @ key / scale) for key in k])
            weights[h, i] = powers / powers.sum()
            heads.append(weights[h, i] @ v)
        out.append(np.concatenate(heads) @ params["proj"]["kernel"])
    return np.array(out) + params["proj"]["bias"], weights


def slow_encoder(images, params, attention, scale):
    """Eq. 4.1 to 4.3 for one pair, in float64."""
    first, second = images
    tokens = [params["cls_token"], *first, params["sep_token"], *second]
    x, shown = np.array(tokens) + params["position_embedding"], []
    for index in range(DEPTH):
        layer = params[f"layers_{index}"]
        seen = x
        if attention != "residual":
            seen = np.array([slow_norm(token, layer["norm1"]) for token in x])
        branch, weights = slow_attention(seen, layer["attention"], scale)
        x = branch if attention == "norm" else x + branch
        shown.append(weights)
        hidden = np.array([slow_norm(token, layer["norm2"]) for token in x])
        hidden = hidden @ layer["mlp"]["fc1"]["kernel"] + layer["mlp"]["fc1"]["bias"]
        erf = np.vectorize(math.erf)(hidden / math.sqrt(2))
        hidden = hidden * (1 + erf) / 2
        x = x + hidden @ layer["mlp"]["fc2"]["kernel"] + layer["mlp"]["fc2"]["bias"]
    return x, shown


@pytest.mark.parametrize(
    ("attention", "scale"),
    [*((name, "head") for name in ATTENTIONS), ("norm", "width")],
)
def test_against_the_equations(pair, rng, attention, scale):
    model = small(attention=attention, logit_scale=scale)
    variables = random_variables(model, rng, *pair)
    got = run(model, variables, *pair)
    params = jax.tree.map(lambda p: p.astype(np.float64), variables["params"])
    root = math.sqrt({"head": HEAD_DIM, "width": WIDTH}[scale])
    for row in range(pair.shape[1]):
        want, shown = slow_encoder(pair[:, row], params, attention, root)
        np.testing.assert_allclose(got.summary[row], want[0], atol=1e-4)
        for number, part in enumerate((want[1:4], want[5:])):
            np.testing.assert_allclose(got.patches[number][row], part, atol=1e-4)
        for layer, weights in enumerate(shown):
            np.testing.assert_allclose(got.attention[layer][row], weights, atol=1e-5)


def test_windows_are_cut_row_by_row(rng):
    """Each window on its own, with the pixels around the image at 0."""
    size, stride, padding = 4, 3, 1
    windows = PatchWindows(size, stride, padding, scale=2.0, shift=0.5)
    model = small(windows=windows, num_patches=6)
    image = rng.normal(size=(1, 7, 9, 3)).astype(np.float32)
    variables = random_variables(model, rng, image)
    embed = variables["params"]["patch_embed"]
    framed = np.pad(image[0] * 2 + 0.5, ((1, 1), (1, 1), (0, 0)))
    corners = [(row, column) for row in (0, 3) for column in (0, 3, 6)]
    want = np.stack([
        framed[row : row + size, column : column + size].ravel()
        @ embed["kernel"].reshape(-1, WIDTH) + embed["bias"]
        for row, column in corners
    ])  # fmt: skip
    given = small(num_patches=6)
    rest = {k: v for k, v in variables["params"].items() if k != "patch_embed"}
    np.testing.assert_allclose(
        run(model, variables, image).summary,
        run(given, {"params": rest}, want[None].astype(np.float32)).summary,
        atol=1e-5,
    )


def test_two_images_share_the_learned_patches(rng):
    model = small(windows=PatchWindows(4, 4), num_patches=4)
    images = np.zeros((2, 8, 8, 3), np.float32)
    shapes = random_variables(model, rng, images, images)["params"]
    assert [name for name in shapes if "patch" in name] == ["patch_embed"]
    assert shapes["position_embedding"].shape == (10, WIDTH)


def test_dropout_needs_training(pair, rng):
    model = small(dropout_rate=0.5)
    variables = random_variables(model, rng, *pair)

    def train(key):
        rngs = {"dropout": jax.random.key(key)}
        return model.apply(variables, *pair, train=True, rngs=rngs).summary

    one, same, other = (quick_jit(train)(key) for key in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 0.01


def test_half_precision_keeps_attention_in_float32(pair):
    model = small(dtype=jnp.bfloat16)
    init = lambda *x: model.init_with_output(  # noqa: E731
        jax.random.key(0), *x, train=False
    )
    tokens, variables = jax.eval_shape(init, *pair)
    assert tokens.summary.dtype == jnp.bfloat16
    assert {weights.dtype for weights in tokens.attention} == {jnp.dtype("float32")}
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


def test_equal_patches_have_finite_gradients(rng):
    """Norms of tokens without variance."""
    model = small()
    patches = np.zeros((1, PATCHES, WIDTH), np.float32)
    variables = jax.tree.map(
        np.zeros_like, random_variables(model, rng, patches, patches)
    )

    def total(variables, patches):
        tokens = model.apply(variables, patches, patches, train=False)
        return tokens.summary.sum() + tokens.patches[1].sum()

    gradient = quick_jit(jax.grad(total, (0, 1)))
    for value in (0.0, 1e4):
        got = gradient(variables, patches + np.float32(value))
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(got))


@pytest.mark.parametrize(
    ("shapes", "fields", "message"),
    [
        ([(2, 4, 6)], {}, r"must be \[B, 3, 6\]; got \(2, 4, 6\)"),
        ([(2, 3, 6), (1, 3, 6)], {}, r"of one shape.*got \(2, 3, 6\), \(1, 3, 6\)"),
        ([(2, 3, 6)] * 3, {}, "one or two images"),
        ([(2, 3, 3, 6)], {}, r"got \(2, 3, 3, 6\)"),
        ([(2, 8, 8, 3)], dict(windows=PatchWindows(4, 4)), "with 3 windows; got"),
        ([(2, 4, 12, 1)], dict(windows=PatchWindows(4, 4)), "with 3 windows; got"),
        ([(2, 3, 3)], dict(windows=PatchWindows(4, 4)), "with 3 windows; got"),
        ([(2, 3, 6)], dict(attention="post"), "unknown attention 'post'; use one of"),
        ([(2, 3, 6)], dict(logit_scale="none"), "unknown logit_scale 'none'; use one"),
    ],
)
def test_what_does_not_fit(shapes, fields, message):
    model = small(**fields)
    images = [jnp.zeros(shape) for shape in shapes]
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(
            lambda *x: model.init(jax.random.key(0), *x, train=False), *images
        )
