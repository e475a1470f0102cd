"""Every network of the registry at two further sizes that no published file has.

By shapes, and by value for the small siblings: what is written for one size shows here.
"""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.core.features import Features
from kprpe_jax.detection.priors import RETINAFACE_ANCHORS, make_priors
from kprpe_jax.fusion.cluster_aggregate import ImageSets
from kprpe_jax.registry import NETWORKS
from kprpe_jax.tasks.networks import example_inputs
from tests.quick import quick_jit
from tests.siblings import SIBLINGS

pytestmark = pytest.mark.slow

# Class -> sizes (height, width) of its images; multiples of patches where it has some.
RECOGNIZERS = {
    "ViT": ((96, 144), (128, 80)),
    "Swin": ((96, 144), (120, 84)),
    "IResNet": ((96, 144), (127, 81)),
    "MobileFaceNet": ((96, 144), (128, 80)),
    "InsightFaceMobileFaceNet": ((96, 144), (128, 80)),
    "ArcFaceResNet": ((96, 160), (144, 112)),
    "SphereFace": ((96, 144), (128, 80)),
    "InceptionResNet": ((144, 200), (181, 139)),
    "DlibResNet": ((120, 170), (181, 139)),
}
NAMES = {kind: [] for kind in ("recognizer", "detector", "fusion", "pair matcher")}
NAMES["gait"] = []
for _name, _published in NETWORKS.items():
    if _published not in [NETWORKS[n] for n in NAMES[_published.kind]]:  # no aliases
        NAMES[_published.kind].append(_name)


def variables_of(module, *inputs, **options):
    """Shapes of the variables."""
    init = lambda *x: module.init(jax.random.key(0), *x, **options)  # noqa: E731
    return jax.eval_shape(init, *inputs)


def resized(name, size, **fields):
    """The network of a name at another size; five keypoints and one more where read."""
    made = NETWORKS[name].make(image_size=size, **fields)
    if not made.uses_keypoints:
        return made
    return made.clone(position_options=made.position_options | dict(num_keypoints=6))


def spec_of(name, module):
    spec = NETWORKS[name].input_spec
    return spec._replace(
        image_size=tuple(module.image_size), num_keypoints=module.num_keypoints
    )


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("name", NAMES["recognizer"])
def test_recognizers(name, which):
    kind = type(NETWORKS[name].make()).__name__
    module = resized(name, RECOGNIZERS[kind][which])
    inputs = example_inputs(spec_of(name, module), 1)
    variables = variables_of(module, *inputs)
    spec = spec_of(name, module)
    got = Recognizer(variables, module, spec, name).shapes()
    assert got.embeddings.shape == (1, module.output_dim)
    assert got.patches.shape[1] == module.grid[0] * module.grid[1]
    params = variables["params"]
    if "position_embedding" in params:
        assert params["position_embedding"].shape[0] == got.patches.shape[1]


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("name", SIBLINGS)
def test_small_recognizers_by_value(name, which):
    kind = type(NETWORKS[name].make()).__name__
    size = RECOGNIZERS[kind][which]
    fields = SIBLINGS[name]
    if "patch_size" in fields and kind == "ViT":
        fields = fields | dict(patch_size=16)
    module = resized(name, size, **fields)
    rng = np.random.default_rng(0)
    inputs = [
        rng.uniform(-1, 1, x.shape).astype(np.float32)
        for x in example_inputs(spec_of(name, module), 2)
    ]
    variables = quick_jit(module.init)(jax.random.key(0), *inputs)
    got = quick_jit(module.apply)(variables, *inputs)
    assert got.shape == (2, module.output_dim)
    assert np.isfinite(got).all()
    assert np.abs(got[0] - got[1]).max() > 0


@pytest.mark.parametrize("side", [96, 224])
def test_detectors(side):
    for name in NAMES["detector"]:
        module = NETWORKS[name].make()
        if hasattr(module, "input_size"):
            module = module.clone(input_size=side, output_size=(side, side - 16))
            photos = jnp.zeros((2, 50, 70, 3))
            variables = variables_of(module, photos)
            out = jax.eval_shape(module.apply, variables, photos)
            assert out.images.shape == (2, side, side - 16, 3)
            assert out.keypoints.shape == (2, 5, 2)
            continue
        if hasattr(module, "anchors") and hasattr(module, "image_size"):  # BlazeFace
            own = module.image_size[0]
            photos = jnp.zeros((2, side, side, 3))
            out = jax.eval_shape(module.apply, variables_of(module, photos), photos)
            cells = [(side * cells // own, count) for cells, count in module.anchors]
            count = sum(each * width**2 for width, each in cells)
            assert out.logits.shape == (2, count)
            continue
        photos = jnp.zeros((2, side, side + 32, 3))
        heads = jax.eval_shape(module.apply, variables_of(module, photos), photos)
        assert heads.boxes.shape[1] == len(
            make_priors((side, side + 32), RETINAFACE_ANCHORS)
        )


@pytest.mark.parametrize(("width", "clusters"), [(96, 3), (256, 5)])
@pytest.mark.parametrize("name", NAMES["fusion"])
def test_fusions(name, width, clusters):
    module = NETWORKS[name].make(embed_dim=width, num_clusters=clusters)
    features = Features(jnp.zeros((2, 3, width)), style=jnp.zeros((2, 3, 40, 2)))
    sets = ImageSets(features, jnp.ones((2, 3), bool))
    fused = jax.eval_shape(module.apply, variables_of(module, sets), sets)
    assert fused.embeddings.shape == (2, width)


@pytest.mark.parametrize(("patches", "width"), [(25, 48), (81, 96)])
@pytest.mark.parametrize("name", NAMES["pair matcher"])
def test_pair_matchers(name, patches, width):
    module = NETWORKS[name].make()
    encoder = module.encoder.clone(num_patches=patches, width=width, mlp_dim=40)
    module = module.clone(encoder=encoder)
    image = jnp.zeros((2, patches, width))
    if encoder.windows is not None:
        size, stride, padding, *_ = encoder.windows
        side = (int(patches**0.5) - 1) * stride + size - 2 * padding
        image = jnp.zeros((2, side, side, 3))
    images = (image,) if name.startswith(("facevit_h1", "facevit_v")) else (image,) * 2
    out = jax.eval_shape(module.apply, variables_of(module, *images), *images)
    assert all(leaf.shape[0] in (2, 4) for leaf in jax.tree.leaves(out))


@pytest.mark.parametrize(
    ("size", "map_size", "bins"),
    [((48, 36), (24, 18), (12,)), ((96, 64), (36, 24), (6, 3))],
)
@pytest.mark.parametrize("name", NAMES["gait"])
def test_gait(name, size, map_size, bins):
    given = dict(image_size=size, map_size=map_size, bins=bins, num_classes=7)
    own = NETWORKS[name].make().__dataclass_fields__
    module = NETWORKS[name].make(**{k: x for k, x in given.items() if k in own})
    clips = jnp.zeros((2, 3, *size))
    out = jax.eval_shape(module.apply, variables_of(module, clips), clips)
    branches = 2 if "gaitset" in name else 1
    assert out.embeddings.shape == (2, branches * sum(bins), module.part_dim)
    if "num_classes" in own:
        assert out.logits.shape == (2, sum(bins), 7)


def test_every_kind_is_swept():
    kinds = {published.kind for published in NETWORKS.values()}
    assert kinds == set(NAMES)
    classes = {type(NETWORKS[n].make()).__name__ for n in NAMES["recognizer"]}
    assert classes == set(RECOGNIZERS)
    here = inspect.getsource(inspect.getmodule(test_every_kind_is_swept))
    assert all(f'NAMES["{kind}"]' in here for kind in kinds)
