"""Window attention against a loop over queries that knows no padding and no roll."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.layers.window_attention import WindowAttention, WindowBlock
from kprpe_jax.layers.windows import plan_windows
from tests.quick import quick_jit

GRID, WINDOW, HEADS, WIDTH = (5, 4), (3, 2), 2, 4


def slow_attention(maps, params, shift, version, table):
    """One query at a time: who is in its window, then softmax over them."""
    out = np.zeros_like(maps)
    offset = np.array(params["qkv_bias"])
    if version == "v2":
        offset[1] = 0.0
    places = list(np.ndindex(GRID))

    def heads(place):
        qkv = maps[place] @ params["qkv"]["kernel"] + offset.reshape(-1)
        return qkv.reshape(3, HEADS, -1)

    def window_of(place):
        return tuple((p - s) // w for p, s, w in zip(place, shift, WINDOW, strict=True))

    for query in places:
        keys = [key for key in places if window_of(key) == window_of(query)]
        result = []
        for head in range(HEADS):
            logits, values = [], []
            for key in keys:
                q, k, v = (
                    heads(query)[0, head],
                    heads(key)[1, head],
                    heads(key)[2, head],
                )
                if version == "v2":
                    scale = np.exp(min(params["logit_scale"][head, 0, 0], np.log(100)))
                    logit = scale * (q @ k) / np.sqrt((q @ q) * (k @ k))
                else:
                    logit = q @ k / np.sqrt(len(q))
                row, column = (query[a] - key[a] + WINDOW[a] - 1 for a in (0, 1))
                logits.append(logit + table[row, column, head])
                values.append(v)
            weights = np.exp(logits - np.max(logits))
            result.append(weights @ np.array(values) / weights.sum())
        joined = np.concatenate(result)
        out[query] = joined @ params["proj"]["kernel"] + params["proj"]["bias"]
    return out


def continuous_table(params):
    """Swin V2's bias of every offset, by its formula."""
    table = np.zeros((2 * WINDOW[0] - 1, 2 * WINDOW[1] - 1, HEADS))
    for row, column in np.ndindex(table.shape[:2]):
        scaled = []
        for place, side in ((row, WINDOW[0]), (column, WINDOW[1])):
            x = 8 * (place - side + 1) / (side - 1)
            scaled.append(np.sign(x) * np.log2(abs(x) + 1) / np.log2(8))
        hidden = np.array(scaled) @ params["hidden"]["kernel"]
        hidden = np.maximum(hidden + params["hidden"]["bias"], 0)
        table[row, column] = 16 / (1 + np.exp(-hidden @ params["out"]["kernel"]))
    return table


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("version", ["v1", "v2"])
def test_equals_loop(version, shifted):
    plan = plan_windows(GRID, WINDOW, shifted=shifted, cut=False)
    kind = "table" if version == "v1" else "continuous"
    model = WindowAttention(HEADS, version, WINDOW, kind, True, jnp.float32)
    maps = jax.random.normal(jax.random.key(0), (1, *GRID, WIDTH))
    params = jax.eval_shape(lambda: model.init(jax.random.key(1), maps, plan))["params"]
    rng = np.random.default_rng(2)
    params = jax.tree.map(
        lambda p: rng.normal(size=p.shape).astype(np.float32) / 2, params
    )
    bias = params["offset_bias"]
    if version == "v1":
        table = bias["table"].reshape(2 * WINDOW[0] - 1, 2 * WINDOW[1] - 1, HEADS)
    else:
        table = continuous_table(bias)
    got = quick_jit(lambda *given: model.apply(*given, plan))({"params": params}, maps)[
        0
    ]
    want = slow_attention(np.asarray(maps[0]), params, plan.shift, version, table)
    np.testing.assert_allclose(got, want, atol=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize("mask_padding", [True, False])
def test_gradient_is_finite_where_a_map_is_zero(mask_padding):
    """Queries and keys of zeros have no direction; padding is made of them."""
    plan = plan_windows(GRID, WINDOW, shifted=True, cut=False)
    block = WindowBlock(HEADS, "v2", WINDOW, "continuous", mask_padding, 8, jnp.float32)
    maps = jnp.zeros((1, *GRID, WIDTH))
    variables = quick_jit(lambda key: block.init(key, maps, plan))(jax.random.key(0))

    def total(variables, maps):
        return block.apply(variables, maps, plan).sum()

    gradients = quick_jit(jax.grad(total, (0, 1)))(variables, maps)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradients))
