"""SwinGait: padding, order, missing frames and joints, bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.backbones.swin_gait import SwinGait
from tests.quick import quick_jit

FIELDS = dict(
    num_classes=3, image_size=(12, 8), channels=(4, 6), stem_depths=(1, 1),
    map_size=(8, 10), width=8, depths=(2, 1), num_heads=(2, 2), window=(2, 3),
    bins=(2,), part_dim=3, position="kprpe",
)  # fmt: skip


def sequences(frames):
    """Silhouettes [2, frames, 12, 8] and joints, the same for the first frames."""
    rng = np.random.default_rng(0)
    silhouettes = rng.uniform(size=(6, 2, 12, 8)).round()[:frames].swapaxes(0, 1)
    joints = rng.uniform(-0.2, 1.2, size=(6, 2, 17, 2))[:frames].swapaxes(0, 1)
    return jnp.float32(silhouettes), jnp.float32(joints)


@pytest.fixture(scope="module")
def built():
    """The model with random keypoint layers, which start at zero."""
    model = SwinGait(**FIELDS)
    variables = quick_jit(model.init)(jax.random.key(0), *sequences(3))
    rng = np.random.default_rng(1)
    for name, layer in variables["params"].items():
        if name.startswith("keypoint_bias"):
            layer["kernel"] = jnp.float32(rng.normal(size=layer["kernel"].shape))

    def run(silhouettes, joints, mask, joint_mask):
        return model.apply(
            variables, silhouettes, joints, mask=mask, joint_mask=joint_mask
        )

    def train(silhouettes, joints, mask):
        def loss(params, joints):
            output, stats = model.apply(
                {**variables, "params": params}, silhouettes, joints, mask=mask,
                train=True, mutable=["batch_stats"],
            )  # fmt: skip
            return jnp.square(output.logits - 0.1).sum(), (output, stats)

        return jax.grad(loss, (0, 1), has_aux=True)(variables["params"], joints)

    return model, variables, quick_jit(run), quick_jit(train)


@pytest.mark.slow
def test_padding_order_and_absent_frames_change_nothing(built):
    _, _, run, _ = built
    silhouettes, joints = sequences(3)
    mask, known = np.ones((2, 3), bool), np.ones((2, 3, 17), bool)
    want = run(silhouettes, joints, mask, known).embeddings
    assert want.shape == (2, 2, 3)
    backwards = run(silhouettes[:, ::-1], joints[:, ::-1], mask, known)
    np.testing.assert_allclose(backwards.embeddings, want, rtol=1e-4, atol=1e-5)

    longer, far_joints = (np.array(x) for x in sequences(6))
    longer[:, 3:], far_joints[:, 3:] = np.nan, np.nan
    mask = np.arange(6) < np.array([[3], [3]])
    known = np.ones((2, 6, 17), bool)
    padded = run(longer, far_joints, mask, known).embeddings
    np.testing.assert_allclose(padded, want, rtol=1e-4, atol=1e-5)

    mask = np.array([[True] * 3 + [False] * 3, [False] * 6])
    nothing = run(longer, far_joints, mask, known)
    np.testing.assert_allclose(nothing.embeddings[0], want[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(nothing.embeddings[1], 0)
    assert np.isfinite(nothing.logits).all()


@pytest.mark.slow
def test_frames_without_joints_are_finite_and_joints_matter(built):
    _, _, run, _ = built
    silhouettes, joints = sequences(3)
    mask, known = np.ones((2, 3), bool), np.ones((2, 3, 17), bool)
    seen = run(silhouettes, joints, mask, known).embeddings
    known = known.copy()  # the first run may still read what it was given
    known[0, 1] = False
    without = run(silhouettes, joints, mask, known).embeddings
    assert np.isfinite(without).all()
    assert np.abs(without[0] - seen[0]).max() > 1e-3
    np.testing.assert_allclose(without[1], seen[1], rtol=1e-5, atol=1e-5)
    lost = joints.at[0, 1].set(jnp.nan)
    known[:] = True
    same = run(silhouettes, lost, mask, known).embeddings
    np.testing.assert_array_equal(same, without)


@pytest.mark.slow
def test_training_ignores_padding_and_is_finite(built):
    _, _, _, train = built
    silhouettes, joints = sequences(3)
    (params, points), (_, stats) = train(silhouettes, joints, np.ones((2, 3), bool))
    assert all(np.isfinite(g).all() for g in jax.tree.leaves((params, points)))
    assert np.abs(points).max() > 0

    longer, far_joints = (np.array(x) for x in sequences(6))
    longer[:, 3:] = np.nan
    mask = np.arange(6) < np.array([[3], [3]])
    (_, points_padded), (_, stats_padded) = train(longer, far_joints, mask)
    np.testing.assert_array_equal(points_padded[:, 3:], 0)
    peak = np.abs(points).max()
    np.testing.assert_allclose(points_padded[:, :3], points, atol=1e-3 * peak)
    for got, want in zip(*map(jax.tree.leaves, (stats_padded, stats)), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_bad_input(built):
    model, variables, _, _ = built
    silhouettes, joints = sequences(3)

    def run(silhouettes, joints, **kwargs):  # nothing needs computing to be refused
        jax.eval_shape(lambda: model.apply(variables, silhouettes, joints, **kwargs))

    with pytest.raises(ValueError, match=r"T at least 1; got \(2, 0, 12, 8\)"):
        run(silhouettes[:, :0], joints[:, :0])
    with pytest.raises(ValueError, match="resize all frames to one size"):
        run(silhouettes[..., :7], joints)
    with pytest.raises(ValueError, match=r"mask must be \(2, 3\)"):
        run(silhouettes, joints, mask=jnp.ones((2, 4), bool))
    with pytest.raises(ValueError, match=r"for frames \(2, 3\); got None"):
        run(silhouettes, None)
    with pytest.raises(ValueError, match=r"must be \[B, 17, 2\]"):
        run(silhouettes, joints[:, :, :5])
    cases = [
        (dict(position="absolute"), "unknown position 'absolute'"),
        (dict(map_size=(7, 10)), r"map_size must be even, tokens are 2 x 2; got \(7"),
        (dict(bins=(3,)), "divide the 4 rows"),
        (dict(window=(2, 2, 3)), "needs a window of rows and columns"),
    ]
    for fields, message in cases:
        changed = SwinGait(**{**FIELDS, **fields})
        with pytest.raises(ValueError, match=message):
            jax.eval_shape(changed.init, jax.random.key(0), silhouettes, joints)


def test_windows_over_time_take_whole_sequences():
    model = SwinGait(**{**FIELDS, "window": (2, 2, 3), "position": "table"})
    silhouettes, _ = sequences(3)
    for frames in (1, 3):
        output, _ = jax.eval_shape(
            model.init_with_output, jax.random.key(0), silhouettes[:, :frames]
        )
        assert output.embeddings.shape == (2, 2, 3)
    with pytest.raises(ValueError, match="takes whole sequences; got a mask"):
        model.init(jax.random.key(0), silhouettes, mask=jnp.ones((2, 3), bool))
