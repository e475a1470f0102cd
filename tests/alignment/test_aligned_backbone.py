"""The aligner in front of a backbone, and inside of it."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.alignment.aligned_backbone import AlignedBackbone
from kprpe_jax.alignment.localization import WIDTHS, LocalizationNet
from kprpe_jax.backbones.iresnet import IResNet

SIZE, FACES = 16, 2
# Five points; those of the images lie two pixels to the right and one down.
TEMPLATE = ((0.3, 0.3), (0.7, 0.3), (0.5, 0.5), (0.3, 0.7), (0.7, 0.7))
SHIFT = np.float32([2 / SIZE, 1 / SIZE])
LANDMARKS = np.tile(np.float32(TEMPLATE) + SHIFT, (FACES, 1, 1))


class Tiny(nn.Module):
    """A convolution, something that is no map, and what comes out where."""

    @nn.compact
    def __call__(self, images, keypoints=None, *, train=False):
        x = nn.Conv(3, (1, 1), use_bias=False, name="stem")(images)
        self.sow("intermediates", "pixels", x)
        embedding = nn.Dense(2, name="head")(x.mean((1, 2)))
        return embedding if keypoints is None else keypoints.reshape(FACES, -1)


def images_of(rng):
    return rng.uniform(-1, 1, (FACES, SIZE, SIZE, 3)).astype(np.float32)


def init_and_apply(model, *inputs):
    variables = jax.jit(lambda *a: model.init(jax.random.key(0), *a))(*inputs)
    return variables, jax.jit(lambda v, *a: model.apply(v, *a).embeddings)


def test_a_learned_warp_starts_at_the_identity(rng):
    images = images_of(rng)
    model = AlignedBackbone(
        Tiny(), after="stem", control=(2, 3), localization=dict(widths=(2, 2), blocks=1)
    )
    variables, apply = init_and_apply(model, images, LANDMARKS)
    assert variables["params"]["localization"]["out"]["kernel"].shape == (2, 12)
    plain = jax.jit(Tiny().apply)({"params": variables["params"]["backbone"]}, images)
    got = apply(variables, images, LANDMARKS)
    np.testing.assert_allclose(got, plain, atol=1e-5)


@pytest.mark.parametrize(
    "method", ["affine2d", pytest.param("full_align", marks=pytest.mark.slow)]
)
def test_the_map_is_warped_where_it_is_said(method, rng):
    """A stem of 1 x 1 commutes with a shift by whole pixels, the mean after it not."""
    images = images_of(rng)
    seen = []
    for after in ("input", "stem"):
        model = AlignedBackbone(Tiny(), method, after=after, template=TEMPLATE)
        variables, _ = init_and_apply(model, images, LANDMARKS)
        embeddings, state = jax.jit(
            lambda v, i, model=model: (lambda out: (out[0].embeddings, out[1]))(
                model.apply(v, i, LANDMARKS, mutable="intermediates")
            )
        )(variables, images)
        seen.append((embeddings, state["intermediates"]["backbone"]["pixels"][0]))
    kernel = np.asarray(variables["params"]["backbone"]["stem"]["kernel"])[0, 0]
    black = images.copy()
    black[:, :-1, :-2] = images[:, 1:, 2:]
    black[:, -1], black[:, :, -2:] = -1, -1
    zeros = black.copy()
    zeros[:, -1], zeros[:, :, -2:] = 0, 0
    np.testing.assert_allclose(seen[0][1], black @ kernel, atol=2e-3)
    np.testing.assert_allclose(seen[1][1], zeros @ kernel, atol=2e-3)


def test_keypoints_are_carried_to_a_backbone_that_reads_them():
    model = AlignedBackbone(Tiny(), "affine2d", template=TEMPLATE, carry=True)
    images = jnp.zeros((FACES, SIZE, SIZE, 3))
    variables, apply = init_and_apply(model, images, LANDMARKS, LANDMARKS[:, :2])
    got = apply(variables, images, LANDMARKS, LANDMARKS[:, :2])
    want = np.float32(TEMPLATE)[:2].reshape(-1)
    np.testing.assert_allclose(got, np.tile(want, (FACES, 1)), atol=1e-5)
    model = AlignedBackbone(Tiny(), "affine2d", template=TEMPLATE, carry=False)
    _, apply = init_and_apply(model, images, LANDMARKS, LANDMARKS[:, :2])
    got = apply(variables, images, LANDMARKS, LANDMARKS[:, :2])
    np.testing.assert_allclose(got, LANDMARKS[:, :2].reshape(FACES, -1), atol=1e-6)


@pytest.mark.parametrize(
    ("after", "fields"),
    [("input", {}), ("stem_act", {}), ("stages_0_1", {}), ("stages_1_0", {})],
)
def test_every_stage_of_an_iresnet_can_be_warped(after, fields):
    backbone = IResNet((2, 1, 1, 1), (SIZE, SIZE), 4, widths=(2, 2, 2, 2))
    model = AlignedBackbone(backbone, after=after, **fields)
    images = jnp.zeros((FACES, SIZE, SIZE, 3))
    shapes = jax.eval_shape(
        lambda i: model.init(jax.random.key(0), i, LANDMARKS), images
    )
    assert "stem_conv" in shapes["params"]["backbone"]
    assert shapes["params"]["localization"]["out"]["bias"].shape == (128,)


def test_the_localization_network_is_the_papers():
    assert WIDTHS == (8, 16, 32, 64, 64)
    network = LocalizationNet(6)
    shapes = jax.eval_shape(
        lambda i: network.init(jax.random.key(0), i, train=True),
        jnp.zeros((1, 112, 112, 3)),
    )["params"]
    convolutions = [
        leaf.shape
        for path, leaf in jax.tree_util.tree_leaves_with_path(shapes)
        if path[-1].key == "kernel" and leaf.ndim == 4 and leaf.shape[0] == 3
    ]
    assert len(convolutions) == 17  # of ResNet-18, whose 18th layer is the last
    last = [shapes[f"stage{n}_1"]["conv2"]["kernel"].shape[-1] for n in range(1, 5)]
    assert last == [16, 32, 64, 64]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(method="rigid"), "method must be one of none, affine2d, .*got 'rigid'"),
        (dict(after="stage9"), "got 'stage9'; there are head, stem"),
        (dict(after="head"), r"must come out of head; got \(2, 2\); warp the input"),
        (dict(method="full_align"), r"be \[B, 0, 2\] for this template; got \(2, 5, 2"),
        (dict(localization=dict(pool="max")), "of average, flatten; got 'max'"),
    ],
)
def test_faults_are_one_sentence(fields, message):
    model = AlignedBackbone(Tiny(), **fields)
    images = jnp.zeros((FACES, SIZE, SIZE, 3))
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda: model.init(jax.random.key(0), images, LANDMARKS))
