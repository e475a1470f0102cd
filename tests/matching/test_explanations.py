import jax
import numpy as np
import pytest

from kprpe_jax.matching.explanations import (
    cross_correlation,
    pair_tokens,
    rollout,
    rollout_heat,
)
from kprpe_jax.matching.patch_encoder import PairEncoder
from kprpe_jax.matching.two_image import OneImage, SameOrNot
from tests.quick import quick_jit

ENCODER = PairEncoder(
    2, 2, mlp_dim=4, width=4, num_patches=3, head_dim=3, attention="norm_residual"
)


def test_cross_correlation_patch_by_patch(rng):
    first, second = rng.normal(size=(2, 2, 3, 4)).astype(np.float32)
    second[1] = -first[1]  # most of it points the other way
    got = cross_correlation(first, second[:, :2])
    for heat, own, other in ((got[0], first, second[:, :2]), (got[1], second, first)):
        for b in range(2):
            mean = np.mean(other[b], 0)
            cosines = [
                max(0, p @ mean / np.linalg.norm(p) / np.linalg.norm(mean))
                for p in own[b][: heat.shape[1]]
            ]
            want = np.array(cosines) / max(sum(cosines), 1e-9)
            np.testing.assert_allclose(heat[b], want, atol=1e-5)
    alone = cross_correlation(np.ones((3, 4)), -np.ones((2, 4)))
    assert not alone[0].any()
    assert not alone[1].any()


def test_rollout_by_hand(rng):
    layers = rng.random((2, 1, 2, 5, 5))
    layers /= layers.sum(-1, keepdims=True)
    got = rollout(layers, residual=0.25)
    one, two = (0.75 * x[0].mean(0) + 0.25 * np.eye(5) for x in layers)
    np.testing.assert_allclose(got[0], two @ one, rtol=1e-5)
    np.testing.assert_allclose(got.sum(-1), 1, rtol=1e-5)


@pytest.mark.slow
def test_what_the_class_token_took(rng):
    """The second image's part of a pair is a pair's; one image sees nothing of it."""
    images = rng.normal(size=(3, 1, 3, 4)).astype(np.float32)
    for model in (OneImage(ENCODER), SameOrNot(ENCODER)):
        sides = images[: 1 if isinstance(model, OneImage) else 2]
        shapes = jax.eval_shape(model.init, jax.random.key(0), *sides)
        variables = jax.tree.map(
            lambda s: rng.normal(0, 0.5, s.shape).astype(np.float32), shapes
        )
        tokens = quick_jit(lambda *x, m=model, v=variables: pair_tokens(m, v, *x))
        one, other = tokens(*images[:2]), tokens(images[0], images[2])
        patches = [p for part in one for p in part.patches]
        assert [p.shape for p in patches] == [(1, 3, 4)] * 2
        changed = bool((other[0].patches[0] != one[0].patches[0]).any())
        assert changed == isinstance(model, SameOrNot)
        heat = [h for part in one for h in rollout_heat(part)]
        assert [h.shape for h in heat] == [(1, 3)] * 2
        np.testing.assert_allclose([h.sum() for h in heat], 1, rtol=1e-5)
        total = rollout(one[0].attention)[0, 0]
        np.testing.assert_allclose(heat[0][0], total[1:4] / total[1:4].sum(), rtol=1e-4)
