"""Recognizers as ONNX files; jax2onnx lives in an environment of its own."""

import importlib.util
from functools import partial

import jax
import numpy as np
import pytest

from kprpe_jax.commands.main import main
from kprpe_jax.recognizers import load_recognizer
from kprpe_jax.weights.onnx_program import _replay, export_onnx, run_onnx
from kprpe_jax.weights.program_check import check_recognizer

HAS_IT = importlib.util.find_spec("jax2onnx") is not None
NAME = "kprpe_tiny_synthetic"


def test_calls_and_choices_by_platform_are_replayed_as_primitives():
    @jax.custom_vjp
    def twice(x):
        return 2 * x

    twice.defvjp(lambda x: (twice(x), None), lambda _, g: (2 * g,))

    @jax.jit
    def function(x):
        y = jax.lax.platform_dependent(
            x, cpu=lambda x: x * np.nan, default=lambda x: x + 1
        )
        return twice(jax.nn.relu(y)) + jax.lax.cond(
            y[0] > 0, jax.numpy.sin, jax.numpy.cos, y
        )

    x = np.linspace(-2, 2, 5).astype(np.float32)
    closed = jax.make_jaxpr(function)(x)
    (got,) = _replay(closed.jaxpr, closed.consts, x)
    np.testing.assert_allclose(got, 2 * np.maximum(x + 1, 0) + np.cos(x + 1), rtol=1e-6)
    again = str(jax.make_jaxpr(partial(_replay, closed.jaxpr, closed.consts))(x))
    assert "platform_index" not in again
    assert "custom_vjp" not in again


@pytest.mark.skipif(HAS_IT, reason="jax2onnx is installed")
def test_without_jax2onnx_a_sentence_says_how(tmp_path, capsys):
    output = tmp_path / "a.onnx"
    with pytest.raises(SystemExit) as stopped:
        main(["export", f"--model={NAME}", "--format=onnx", f"--output={output}"])
    assert stopped.value.code == 2
    assert "make onnx" in capsys.readouterr().err
    assert not output.exists()


@pytest.mark.slow
@pytest.mark.skipif(not HAS_IT, reason="jax2onnx is not installed (make onnx)")
def test_onnxruntime_agrees_with_keypoints(tmp_path):
    live = load_recognizer(NAME)
    export_onnx(tmp_path / "a.onnx", live)
    rng = np.random.default_rng(0)
    images = rng.uniform(-1, 1, (5, *live.image_size, 3)).astype(np.float32)
    points = rng.uniform(0.2, 0.8, (5, 5, 2)).astype(np.float32)
    run = partial(run_onnx, tmp_path / "a.onnx")
    assert check_recognizer(live, run, images, points) < 1e-5
    assert np.abs(run(images, points[::-1]) - run(images, points)).max() > 1e-3
