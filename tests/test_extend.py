"""The page "Extend it": its files work once the registry has their lines."""

import io
import json
import pathlib
import re
import sys
import types
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from kprpe_jax import registry
from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.backbones.vit import PRESETS, ViT
from kprpe_jax.commands.main import main
from kprpe_jax.core.features import Features
from kprpe_jax.core.input_spec import InputSpec
from kprpe_jax.data.store import open_split
from kprpe_jax.evaluation.evaluators import build_evaluators
from kprpe_jax.evaluation.evaluators.faces import FaceData
from kprpe_jax.fusion.cluster_aggregate import ImageSets
from kprpe_jax.losses.margin import make_margin
from kprpe_jax.tasks.networks import make_network
from kprpe_jax.tasks.set_fusion import make_model
from tests.meshes import mesh_of

PAGE = (pathlib.Path(__file__).parents[1] / "docs" / "extend.md").read_text()
FILES = {
    re.match(r"# (\S+)\.py\n", code)[1].replace("/", "."): code
    for code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
}
LINES = dict(re.findall(r'^    "(\w+)": "(\S+)",$', PAGE, re.MULTILINE))


@pytest.fixture
def add(monkeypatch):
    """Add a name of the page to a registry, with its file."""

    def add(name, names):
        path = LINES[name]
        module = types.ModuleType(path.partition(":")[0])
        monkeypatch.setitem(sys.modules, module.__name__, module)
        exec(FILES[module.__name__], module.__dict__)
        monkeypatch.setitem(names, name, path)

    return add


def test_each_file_has_its_line():
    assert set(FILES) == {path.partition(":")[0] for path in LINES.values()}
    assert len(FILES) == len(LINES)


@pytest.mark.slow
def test_backbone(add):
    add("two_convs", registry.BACKBONES)
    model = dict(image_size=(32, 48), output_dim=8, width=4)
    network = make_network(ConfigDict(dict(backbone="two_convs", model=model)))
    images = jnp.ones((2, 32, 48, 3))
    variables = network.init(jax.random.key(0), images)
    features = network.apply(variables, images, method="features")
    assert network.grid == (2, 3)
    assert features.embeddings.shape == (2, 8)
    assert features.patches.shape == (2, 6, 8)
    assert features.style.shape == (2, 12, 2)


@pytest.mark.slow
def test_position_encoding(add):
    add("token_table", registry.POSITIONS)
    model = ViT(**PRESETS["tiny"], position="token_table")
    images = jax.random.normal(jax.random.key(1), (2, 40, 40, 3))
    variables = model.init(jax.random.key(0), images)
    bias = model.apply(variables, method="bias")
    assert (len(bias), bias[0].shape) == (4, (1, 4, 25, 25))
    table = variables["params"]["bias_tables"]["table"]
    assert table.shape == (4, 1, 4, 25, 49)
    gradient = jax.grad(lambda v: model.apply(v, images).sum())(variables)
    assert np.abs(gradient["params"]["bias_tables"]["table"]).max() > 0


def test_margin(add):
    add("quality_cosface", registry.MARGINS)
    margin = make_margin("quality_cosface", margin=0.4)
    assert margin.uses_quality
    cosine = jnp.array([0.1, 0.9])
    np.testing.assert_allclose(margin.target_cosine(cosine, 1.0), cosine - 0.4)
    np.testing.assert_allclose(margin.target_cosine(cosine, -1.0), cosine)


@pytest.mark.slow
def test_fusion(add):
    add("softmax_norm", registry.FUSIONS)
    options = ConfigDict(dict(method="softmax_norm", variant="paper", temperature=0.5))
    model = make_model(options, embed_dim=4)
    embeddings = jax.random.normal(jax.random.key(0), (2, 3, 4))
    mask = jnp.array([[True, True, True], [True, False, False]])
    sets = ImageSets(Features(embeddings), mask)
    variables = model.init(jax.random.key(1), sets)
    fused = model.apply(variables, sets).embeddings
    norms = jnp.linalg.norm(embeddings[0], axis=-1)
    units = embeddings[0] / norms[:, None]
    np.testing.assert_allclose(fused[0], jax.nn.softmax(2 * norms) @ units, atol=1e-6)
    halves = [
        jax.tree.map(lambda x, p=p: x[:, p], sets) for p in (slice(1), slice(1, 3))
    ]
    states = [
        model.apply(variables, model.init_state(2), half, method="update")
        for half in halves
    ]
    joined = model.apply(variables, model.merge(*states), method="finalize")
    np.testing.assert_allclose(joined.embeddings, fused, atol=1e-6)


@pytest.fixture
def imported(add, tmp_path):
    """Folder of a data set of two images of two people, by the page's importer."""
    add("zip", registry.IMPORTERS)
    pixels = np.random.default_rng(0).integers(256, size=(2, 16, 16, 3), dtype=np.uint8)
    with zipfile.ZipFile(tmp_path / "faces.zip", "w") as archive:
        for name, image in zip(("ann/1.png", "bob/1.png"), pixels, strict=True):
            encoded = io.BytesIO()
            Image.fromarray(image).save(encoded, "PNG")
            archive.writestr(name, encoded.getvalue())
        archive.writestr("alone.png", encoded.getvalue())
    source = ["import", "zip", "--source", str(tmp_path / "faces.zip")]
    target = ["--name", "mine", "--data-dir", str(tmp_path), "--on-error", "skip"]
    main([*source, *target])
    return tmp_path


def test_data_set(imported):
    assert len(open_split(imported, "mine", "train")) == 2
    report = json.loads(next(imported.rglob("import_report.json")).read_text())
    assert "alone.png" in json.dumps(report)


@pytest.mark.slow
def test_evaluator(add, imported):
    add("two_convs", registry.BACKBONES)
    add("norms", registry.EVALUATORS["faces"])
    module = registry.resolve(LINES["two_convs"])((16, 16), 8)
    variables = module.init(jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
    recognizer = Recognizer(variables, module, InputSpec((16, 16)), "made")
    data = FaceData(
        str(imported), "other", "train", (), (16, 16), "keypoints", False, 4
    )
    evals = ConfigDict({"mine": {"type": "norms", "dataset": "mine"}})
    evaluate = build_evaluators(evals, "faces", data)["mine"]
    got = evaluate(recognizer, mesh_of(1, 1, 1))
    rows = data.open("mine", "train", ())
    images = jnp.stack([rows[row]["image"] for row in range(2)]) / 127.5 - 1
    norms = jnp.linalg.norm(recognizer.embed(images), axis=-1)
    np.testing.assert_allclose(
        [got["mean"], got["std"]], [norms.mean(), norms.std()], 1e-4
    )
