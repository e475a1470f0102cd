import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.layers.attention import Attention, softmax_weights
from kprpe_jax.position.buckets import compute_buckets
from kprpe_jax.position.encoding import BiasTables
from kprpe_jax.position.lookup import num_buckets
from tests.quick import quick_jit

BATCH, GRID, HEADS, HEAD_DIM = 2, (2, 3), 2, 4
TOKENS, WIDTH = 6, HEADS * HEAD_DIM


def make(rng):
    module = Attention(HEADS)
    tokens = rng.normal(size=(BATCH, TOKENS, WIDTH)).astype(np.float32)
    params = jax.tree.map(
        lambda leaf: rng.normal(0, 0.5, leaf.shape).astype(np.float32),
        jax.eval_shape(module.init, jax.random.key(0), tokens),
    )
    return module, params, tokens


def loops(params, tokens, tables=None, ids=None):
    """Eq. 1-5 and the contextual terms of Eq. 4, one query and key at a time."""
    p, tables = params["params"], tables or {}
    out = np.zeros((BATCH, TOKENS, WIDTH))
    for b in range(BATCH):
        qkv = (tokens[b] @ p["qkv"]["kernel"]).reshape(TOKENS, 3, HEADS, HEAD_DIM)
        for h in range(HEADS):
            q, k, v = qkv[:, 0, h], qkv[:, 1, h], qkv[:, 2, h]
            for i in range(TOKENS):
                logits = np.zeros(TOKENS)
                for j in range(TOKENS):
                    logits[j] = q[i] @ k[j] / np.sqrt(HEAD_DIM)
                    if "context_k" in tables:
                        row = tables["context_k"][h][:, ids[i, j]]
                        logits[j] += q[i] @ row / np.sqrt(HEAD_DIM)
                    if "context_q" in tables:  # read from the key's side, d(j, i)
                        row = tables["context_q"][h][:, ids[j, i]]
                        logits[j] += k[j] @ row / np.sqrt(HEAD_DIM)
                    if "shared" in tables:
                        logits[j] += tables["shared"][0, h, ids[i, j]]
                    if "rows" in tables:
                        logits[j] += tables["rows"][0, h, i, ids[i, j]]
                weights = np.exp(logits - logits.max())
                weights /= weights.sum()
                head = slice(h * HEAD_DIM, (h + 1) * HEAD_DIM)
                for j in range(TOKENS):
                    value = v[j]
                    if "context_v" in tables:
                        value = value + tables["context_v"][h][ids[i, j]]
                    out[b, i, head] += weights[j] * value
    return out @ p["proj"]["kernel"] + p["proj"]["bias"]


SHAPES = {
    "shared": lambda size: (1, HEADS, size),
    "rows": lambda size: (1, HEADS, TOKENS, size),
    "context_q": lambda size: (HEADS, HEAD_DIM, size),
    "context_k": lambda size: (HEADS, HEAD_DIM, size),
    "context_v": lambda size: (HEADS, size, HEAD_DIM),
}


@pytest.mark.parametrize("names", [(), *((name,) for name in SHAPES), tuple(SHAPES)])
def test_equal_to_loops(names, rng):
    module, params, tokens = make(rng)
    buckets = compute_buckets(GRID, "product", 1.9)
    size = num_buckets(buckets)
    tables = {n: rng.normal(size=SHAPES[n](size)).astype(np.float32) for n in names}
    got = quick_jit(lambda t: module.apply(params, tokens, t, buckets))(
        BiasTables(**tables)
    )
    want = loops(params, tokens, tables, buckets[0].ids)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_tables_shared_by_heads_equal_the_same_table_for_each(rng):
    module, params, tokens = make(rng)
    buckets = compute_buckets(GRID)
    size = num_buckets(buckets)
    one = {
        n: rng.normal(size=SHAPES[n](size)).astype(np.float32)[:1]
        for n in ("context_q", "context_k", "context_v")
    }
    each = {n: np.repeat(t, HEADS, 0) for n, t in one.items()}
    results = [
        quick_jit(lambda t: module.apply(params, tokens, t, buckets))(BiasTables(**t))
        for t in (one, each)
    ]
    np.testing.assert_allclose(*results, rtol=1e-5, atol=1e-6)


def test_key_mask_equals_cutting_the_tokens_out(rng):
    module, params, tokens = make(rng)
    visible = np.array([[1, 0, 1, 1, 0, 1], [0, 1, 1, 0, 1, 1]], bool)
    masked = module.apply(params, tokens, key_mask=visible)
    for b in range(BATCH):
        cut = module.apply(params, tokens[b : b + 1, visible[b]])
        np.testing.assert_allclose(masked[b, visible[b]], cut[0], rtol=1e-5, atol=1e-6)


def test_half_precision_keeps_logits_in_float32(rng):
    """A bias of a half on top of 300 would vanish in bfloat16."""
    module, params, tokens = make(rng)
    shared = np.zeros((1, HEADS, 49), np.float32) + 300.0
    shared[..., 24] += 0.5  # bfloat16 has steps of 2 there
    buckets = compute_buckets(GRID)
    half = Attention(HEADS, dtype=jnp.bfloat16)
    tables = [BiasTables(shared=s) for s in (shared, shared - 300.0)]
    one, two = (half.apply(params, tokens, t, buckets) for t in tables)
    assert one.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float32(one), np.float32(two), atol=0.02)
    flat = half.apply(params, tokens, BiasTables(shared=shared * 0), buckets)
    assert np.abs(np.float32(one) - np.float32(flat)).max() > 0.02


@pytest.mark.parametrize(("dtype", "atol"), [("float32", 1e-6), ("bfloat16", 2e-2)])
def test_softmax_weights_and_their_gradient(rng, dtype, atol):
    logits = jnp.asarray(3 * rng.normal(size=(2, 3, 5)), jnp.float32)
    logits = logits.at[0, 0, 1:].set(-jnp.inf)  # one key is left
    direction = jnp.asarray(rng.normal(size=logits.shape), jnp.float32)
    got, pull = jax.vjp(lambda x: softmax_weights(x, dtype), logits)
    want, plain = jax.vjp(jax.nn.softmax, logits)
    assert got.dtype == dtype
    np.testing.assert_allclose(got.astype(jnp.float32), want, atol=atol)
    gradient = pull(direction.astype(dtype))[0]
    assert gradient.dtype == jnp.float32
    np.testing.assert_allclose(gradient, plain(direction)[0], atol=atol)
    # Nothing else is kept for it.
    kept = [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(pull)]
    assert kept == [(logits.shape, dtype)]
