"""The aligner in front of a backbone, and inside of it."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.alignment.aligned_backbone import AlignedBackbone
from kprpe_jax.alignment.localization import WIDTHS, LocalizationNet
from kprpe_jax.backbones.iresnet import IResNet
from kprpe_jax.backbones.network import Network
from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.core.features import style_statistics
from kprpe_jax.core.input_spec import InputSpec

SIZE, FACES = 16, 2
# Five points; those of the images lie two pixels to the right and one down.
TEMPLATE = ((0.3, 0.3), (0.7, 0.3), (0.5, 0.5), (0.3, 0.7), (0.7, 0.7))
SHIFT = np.float32([2 / SIZE, 1 / SIZE])
LANDMARKS = np.tile(np.float32(TEMPLATE) + SHIFT, (FACES, 1, 1))


class Tiny(Network):
    """A convolution, something that is no map, and what comes out where."""

    reads: int = 0  # keypoints, which then are the embedding
    image_size = (SIZE, SIZE)
    patch_map = "pixels"
    style_maps = ("pixels",)

    @property
    def num_keypoints(self):
        return self.reads

    @property
    def uses_keypoints(self):
        return self.reads > 0

    @property
    def grid(self):
        return self.image_size

    def setup(self):
        self.stem = nn.Conv(3, (1, 1), use_bias=False)
        self.head = nn.Dense(2)

    def feature_maps(self, images, keypoints=None, *, train=False):
        x = self.stem(images)
        self.sow("intermediates", "pixels", x)
        if keypoints is not None:
            self.sow("intermediates", "keypoints", keypoints)
        return {"pixels": x}

    def embed_map(self, pixels, *, train=False):
        return self.head(pixels.mean((1, 2)))


def images_of(rng):
    return rng.uniform(-1, 1, (FACES, SIZE, SIZE, 3)).astype(np.float32)


def init_and_apply(model, *inputs):
    variables = jax.jit(lambda *a: model.init(jax.random.key(0), *a))(*inputs)
    return variables, jax.jit(model.apply)


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
            lambda v, i, model=model: model.apply(
                v, i, LANDMARKS, mutable="intermediates"
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


@pytest.mark.slow
@pytest.mark.parametrize("method", ["affine2d", "none", "affine"])
def test_keypoints_are_carried_to_a_backbone_that_reads_them(method, rng):
    """Two of the five landmarks; learned warps and none take the two alone, too."""
    options = dict(template=TEMPLATE, points=(0, 1), localization=dict(widths=(2, 2)))
    if method == "affine2d":
        options["points"] = (0, 1, 2)
    model = AlignedBackbone(Tiny(reads=len(options["points"])), method, **options)
    images, count = images_of(rng), len(options["points"])
    variables, _ = init_and_apply(model, images, LANDMARKS)

    @jax.jit
    def carried(keypoints):
        _, state = model.apply(variables, images, keypoints, mutable="intermediates")
        return state["intermediates"]["backbone"]["keypoints"][0]

    want = np.float32(TEMPLATE) if method == "affine2d" else LANDMARKS[0]
    got = carried(LANDMARKS)
    np.testing.assert_allclose(got, np.tile(want[:count], (FACES, 1, 1)), atol=1e-5)
    if method == "affine2d":
        assert model.num_keypoints == 5
        return
    assert model.num_keypoints == 2
    np.testing.assert_array_equal(carried(LANDMARKS[:, :2]), got)


def test_what_is_read_at_inference():
    assert AlignedBackbone(Tiny(), "tps", template=TEMPLATE).num_keypoints == 0
    assert not AlignedBackbone(Tiny(), "none", template=TEMPLATE).uses_keypoints
    given = AlignedBackbone(Tiny(), "affine2d", template=TEMPLATE)
    assert (given.num_keypoints, given.uses_keypoints) == (5, True)
    with pytest.raises(ValueError, match=r"must be \[B, 5, 2\] .* got none"):
        jax.eval_shape(
            lambda: given.init(jax.random.key(0), jnp.zeros((FACES, SIZE, SIZE, 3)))
        )


@pytest.mark.slow
@pytest.mark.parametrize("after", ["input", "stem"])
def test_features_are_the_backbones_behind_the_warp(after, rng):
    """One recognizer: the same embeddings by every method, and style of the maps."""
    images = images_of(rng)
    model = AlignedBackbone(Tiny(), "affine2d", after=after, template=TEMPLATE)
    spec = InputSpec((SIZE, SIZE), num_keypoints=model.num_keypoints)
    variables, apply = init_and_apply(model, images, LANDMARKS)
    recognizer = Recognizer(variables, model, spec, "tiny")
    features = jax.jit(Recognizer.features)(recognizer, images, LANDMARKS)
    embeddings = apply(variables, images, LANDMARKS)
    np.testing.assert_allclose(features.embeddings, embeddings, atol=1e-6)
    np.testing.assert_array_equal(features.keypoints, LANDMARKS)
    maps = jax.jit(
        lambda: model.apply(variables, images, LANDMARKS, method="feature_maps")
    )()
    assert features.patches.shape == (FACES, SIZE * SIZE, 3)
    np.testing.assert_allclose(
        features.style, style_statistics([maps["pixels"]]), atol=1e-6
    )
    inner = model.apply(variables, maps["pixels"], method="embed_map")
    np.testing.assert_allclose(inner, embeddings, atol=1e-6)


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
