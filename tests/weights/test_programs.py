"""Recognizers, fusion models and detectors as programs that JAX alone runs."""

import json
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from jax import export

from kprpe_jax.commands.main import main
from kprpe_jax.core.features import Features
from kprpe_jax.core.program import ExportedProgram, make_program, without_kernels
from kprpe_jax.detection.detector import retinaface_detector
from kprpe_jax.detection.retinaface import RetinaFace
from kprpe_jax.fusion.cluster_aggregate import ClusterAggregate, ImageSets
from kprpe_jax.fusion.files import make_fusion
from kprpe_jax.fusion.scored import ScoredFusion
from kprpe_jax.fusion.weighted import METHODS, WeightedFusion
from kprpe_jax.recognizers import load_recognizer
from kprpe_jax.weights.program_check import (
    check_detector_programs,
    check_fusion_programs,
    check_recognizer,
)
from kprpe_jax.weights.programs import (
    export_detector,
    export_fusion,
    export_recognizer,
)
from tests.alignment.tiny import TINY, random_variables
from tests.siblings import aligned_sibling, sibling

SMALL = "deepface_emd_cosface"  # which compiles in a second


def inputs(recognizer, count):
    rng = np.random.default_rng(3)
    images = rng.uniform(-1, 1, (count, *recognizer.image_size, 3)).astype(np.float32)
    return images, rng.uniform(0.2, 0.8, (count, 5, 2)).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("program") / "out"
    export_recognizer(path, sibling(SMALL), ("cpu", "tpu"))
    return path


@pytest.fixture
def copy(folder, tmp_path):
    path = tmp_path / "copy"
    path.mkdir()
    for file in folder.iterdir():
        (path / file.name).write_bytes(file.read_bytes())
    return path


def change(path, **values):
    about = json.loads((path / "program.json").read_text())
    (path / "program.json").write_text(json.dumps(about | values))


def test_a_folder_is_a_recognizer(folder):
    live, program = sibling(SMALL), load_recognizer(str(folder))
    assert program.fingerprint == live.fingerprint
    assert program.input_spec == live.input_spec
    assert (program.name, program.license) == (live.name, live.license)
    assert program.grid == live.grid
    assert check_recognizer(live, program.embed, *inputs(live, 5)) < 1e-6
    want, got = live.shapes(), program.shapes()
    assert got.patches.shape == want.patches.shape
    # Wider images are cut to the network's, as by the network itself.
    images, points = inputs(live, 2)
    wide = np.pad(images, [(0, 0), (0, 0), (8, 8), (0, 0)])
    np.testing.assert_allclose(
        program.embed(wide, points), live.embed(images, points), atol=1e-5
    )


def test_it_runs_spread_over_devices(folder):
    from kprpe_jax.evaluation.embedding import embed

    live, program = sibling(SMALL), load_recognizer(str(folder))
    rows = [
        {"image": np.uint8(np.random.default_rng(n).integers(0, 255, (112, 96, 3)))}
        for n in range(11)
    ]
    got, want = (embed(x, rows, batch_size=8).embeddings for x in (program, live))
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_it_is_refused_where_it_was_changed(copy):
    arrays = dict(np.load(copy / "weights.npz"))
    name = next(iter(arrays))
    np.savez(copy / "weights.npz", **arrays | {name: arrays[name] + 1})
    with pytest.raises(ValueError, match=r"weights\.npz: was changed"):
        load_recognizer(str(copy))
    program = copy / "recognizer.stablehlo"
    program.write_bytes(program.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match=r"recognizer\.stablehlo: was changed"):
        load_recognizer(str(copy))
    program.unlink()
    with pytest.raises(ValueError, match="must be a program"):
        load_recognizer(str(copy))
    change(copy, of="fusion")
    with pytest.raises(ValueError, match="must describe a recognizer"):
        load_recognizer(str(copy))


def test_other_shapes_and_platforms_are_refused(folder):
    program = load_recognizer(str(folder))
    with pytest.raises(ValueError, match="images must be 112 x 96"):
        program.embed(np.zeros((1, 100, 96, 3), np.float32))
    weights = jax.tree.map(lambda x: x[..., :1], program.variables)
    with pytest.raises(ValueError, match=r"recognizer\.stablehlo"):
        program.replace(variables=weights).embed(inputs(program, 1)[0])
    shape = jax.ShapeDtypeStruct((2,), np.float32)
    other = ExportedProgram(make_program(lambda x: x + 1, [shape], ["tpu"]), "p")
    with pytest.raises(ValueError, match="is for tpu; got cpu"):
        other.call(np.zeros(2, np.float32))
    with pytest.raises(ValueError, match="--platforms must be some of"):
        make_program(lambda x: x, [shape], ["gpu"])


def test_a_program_that_calls_the_host_is_refused():
    """A callback's address could be any; nothing that a stranger names is called."""

    def calls(x):
        return jax.pure_callback(lambda x: x, x, x)

    shape = jax.ShapeDtypeStruct((2,), np.float32)
    checks = [
        export.DisabledSafetyCheck.custom_call("xla_ffi_python_cpu_callback"),
        export.DisabledSafetyCheck.custom_call("xla_python_cpu_callback"),
    ]
    try:
        data = export.export(jax.jit(calls), disabled_checks=checks)(shape).serialize()
    except NotImplementedError:  # JAX serializes none with callbacks
        data = None
    if data is not None:
        with pytest.raises(ValueError, match="must hold no custom call"):
            ExportedProgram(bytes(data), "p")
    triangular = jax.jit(lambda x: jax.scipy.linalg.solve_triangular(x, x))
    square = jax.ShapeDtypeStruct((3, 3), np.float32)
    data = export.export(triangular, platforms=["cpu"])(square).serialize()
    with pytest.raises(ValueError, match="must hold no custom call"):
        ExportedProgram(bytes(data), "p")
    with pytest.raises(ValueError, match="is not readable as a program"):
        ExportedProgram(b"not a program", "p")


def test_a_folder_with_something_in_it_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(ValueError, match="must name a new or an empty folder"):
        export_recognizer(tmp_path, sibling(SMALL))


# Of networks that differ in their position encoding or in options alone, one.
KINDS = (
    *("vit_kprpe_base_multihead", "swin_kprpe_base", "iresnet_ir50", "mobilefacenet"),
    *("deepface_emd_arcface", "dlib_resnet_v1", "facenet", "aligned"),
)


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_network_agrees(name, tmp_path):
    live = aligned_sibling() if name == "aligned" else sibling(name)
    program = export_recognizer(tmp_path / "out", live)
    assert program.module.program.platforms == ("cpu", "cuda", "tpu")
    assert program.fingerprint == live.fingerprint
    assert check_recognizer(live, program.embed, *inputs(live, 5)) < 1e-5


FUSIONS = {
    "cluster_aggregate": ClusterAggregate(
        embed_dim=8, style_dim=8, norm_dim=8, num_heads=2, depth=1
    ),
    **{x: WeightedFusion(embed_dim=8, method=x) for x in METHODS},
    "landmark_score": ScoredFusion(embed_dim=8),
}


@pytest.mark.slow
@pytest.mark.parametrize("method", FUSIONS)
def test_every_fusion_agrees(method, tmp_path, rng):
    model = FUSIONS[method]
    features = Features(
        rng.normal(size=(6, 8)).astype(np.float32),
        style=rng.uniform(size=(6, 12, 2)).astype(np.float32),
        keypoints=rng.uniform(0.2, 0.8, (6, 5, 2)).astype(np.float32),
    )
    sets = ImageSets(jax.tree.map(lambda x: x[None], features), np.ones((1, 6), bool))
    variables = model.init(jax.random.key(0), sets)
    file = make_fusion(model, variables, backbone="")
    one = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype), features
    )
    export_fusion(tmp_path / "out", file, one, ("cpu", "tpu"))
    assert check_fusion_programs(tmp_path / "out", file, features) < 1e-5
    about = json.loads((tmp_path / "out" / "program.json").read_text())
    reads_style = method in ("cluster_aggregate", "pfe", "cfan")
    assert ("style" in about["inputs"]) == reads_style
    assert ("keypoints" in about["inputs"]) == (method == "landmark_score")


def test_a_kernel_does_not_leave():
    live = sibling("vit_kprpe_base_multihead").module
    assert without_kernels(live) == live
    with_kernel = live.clone(attention="pallas")
    assert without_kernels(with_kernel) == live.clone(attention="xla")


@pytest.mark.slow
def test_a_detector_agrees(tmp_path):
    model = RetinaFace(**TINY)
    images = np.random.default_rng(3).uniform(-1, 1, (2, 64, 64, 3)).astype(np.float32)
    variables = random_variables(model, np.random.default_rng(0))
    detector = retinaface_detector(model, variables, max_side=64, min_score=0.01)
    export_detector(tmp_path / "out", detector, ("cpu", "cuda", "tpu"))
    assert check_detector_programs(tmp_path / "out", detector, images) < 1e-5


OUTSIDE = """
import json, sys
sys.modules["kprpe_jax"] = None  # cannot be imported
import numpy as np
from jax import export

folder = sys.argv[1]
with open(f"{folder}/recognizer.stablehlo", "rb") as file:
    program = export.deserialize(bytearray(file.read()))
weights = dict(np.load(f"{folder}/weights.npz"))
images, keypoints = np.load(sys.argv[2]), np.load(sys.argv[3])
np.save(sys.argv[4], program.call(weights, images, keypoints)["embeddings"])
"""


@pytest.mark.slow
def test_the_command_then_a_gallery_and_jax_alone(tmp_path, capsys):
    name, folder = "kprpe_tiny_synthetic", tmp_path / "program"
    main(["export", f"--model={name}", "--format=stablehlo", f"--output={folder}"])
    assert "differs from the network by at most" in capsys.readouterr().out
    about = json.loads((folder / "program.json").read_text())
    assert about["agreement"]["difference"] < 1e-5
    assert about["agreement"]["images"] == "8 rendered faces"
    assert "Apache" in about["license"]

    live = load_recognizer(name)
    images, points = inputs(live, 3)
    files = [tmp_path / f"{x}.npy" for x in ("images", "points", "out")]
    np.save(files[0], images)
    np.save(files[1], points)
    script = tmp_path / "outside.py"
    script.write_text(OUTSIDE)
    subprocess.run([sys.executable, script, folder, *files], cwd=tmp_path, check=True)
    np.testing.assert_allclose(np.load(files[2]), live.embed(images, points), atol=1e-4)

    _render_people(tmp_path / "people")
    gallery = tmp_path / "g.gallery"
    main(
        ["enroll", f"--gallery={gallery}", f"--photos={tmp_path / 'people'}",
         f"--model={name}"]
    )  # fmt: skip
    ask = ["identify", f"--gallery={gallery}", f"--photos={tmp_path / 'people'}"]
    main([*ask, f"--output={tmp_path / 'live.json'}"])
    main([*ask, f"--model={folder}", f"--output={tmp_path / 'program.json'}"])
    live, program = (
        json.loads((tmp_path / f"{x}.json").read_text()) for x in ("live", "program")
    )
    assert [x["person"] for x in live] == [x["person"] for x in program]
    for one, other in zip(live, program, strict=True):
        assert one["score"] == pytest.approx(other["score"], abs=1e-5)


def _render_people(folder: pathlib.Path):
    from PIL import Image

    from kprpe_jax.data.synthetic.faces import render_faces

    faces = render_faces(0, np.arange(6) // 2, np.arange(6) % 2)
    for row, pixels in enumerate(np.asarray(faces.images)):
        path = folder / f"person{row // 2}" / f"{row % 2}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
