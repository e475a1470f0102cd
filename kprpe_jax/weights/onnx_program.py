"""Recognizers as ONNX files, by jax2onnx.

jax2onnx needs an older Orbax than this package, so it lives in an environment of its
own (`make onnx`), in which nothing but this export is meant to run.
"""

import importlib.util
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
from jax.extend import core

from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.core.program import without_kernels

HOW = "make onnx, then .venv-onnx/bin/python -m kprpe_jax export ..."
_NEEDED = ("jax2onnx", "onnx", "onnxruntime")
# Functions inside of functions; ONNX has none of them.
_CALLS = ("jit", "pjit", "closed_call", "core_call", "custom_jvp_call", "remat2",
          "custom_vjp_call", "custom_vjp_call_jaxpr", "checkpoint")  # fmt: skip


def export_onnx(path: str | os.PathLike, recognizer: Recognizer) -> None:
    """Write a recognizer as an ONNX file of any batch size.

    Its inputs are `images` float32 [B, H, W, 3], RGB in [-1, 1], and `keypoints`
    [B, K, 2] where the network reads them; it applies the input contract by itself.
    Its output is `embeddings` [B, D]. The metadata hold the contract, the license and
    the fingerprint.

    Args:
      path: .onnx file; its folder must exist.
      recognizer: any.
    Raises: ValueError: as `check_onnx`; jax2onnx cannot convert the network.
    """
    path = check_onnx(path)
    import onnx
    from jax2onnx import to_onnx

    spec = recognizer.input_spec
    inputs = {"images": ("B", *spec.image_size, 3)}
    if spec.uses_keypoints:
        inputs["keypoints"] = "B", spec.num_keypoints, 2
    plain = recognizer.replace(module=without_kernels(recognizer.module))

    def embed(*inputs: Any) -> Any:
        closed = jax.make_jaxpr(plain.embed)(*inputs)
        return _replay(closed.jaxpr, closed.consts, *inputs)[0]

    try:
        model = to_onnx(embed, inputs=list(inputs.values()))
    except Exception as error:  # jax2onnx raises errors of any kind
        reason = (str(error).splitlines() or [""])[0][:160]
        raise ValueError(
            f"--format onnx: jax2onnx cannot convert {recognizer.name} "
            f"({type(error).__name__}: {reason}); take --format stablehlo."
        ) from error
    _rename(model.graph, list(inputs))
    about = {
        "name": recognizer.name,
        "license": recognizer.license or "unknown",
        "fingerprint": recognizer.fingerprint,
        "input_spec": json.dumps(spec._asdict()),
        "contract": "images float32 RGB in [-1, 1], keypoints in fractions of the "
        f"image; {spec.describe()}",
    }
    for key, value in about.items():
        model.metadata_props.add(key=key, value=value)
    partial = path.with_name(f"{path.name}.partial")
    onnx.save(model, partial)
    partial.replace(path)


def check_onnx(path: str | os.PathLike) -> pathlib.Path:
    """Raise ValueError unless an ONNX file can be written there with what is here."""
    path = pathlib.Path(path)
    if path.suffix != ".onnx":
        raise ValueError(f"--output {path}: must end with .onnx.")
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(
            f"--format onnx: needs jax2onnx, in an environment of its own ({HOW}); "
            f"got an environment without {missing[0]}."
        )
    return path


def run_onnx(path: str | os.PathLike, *inputs: Any) -> Any:
    """Embeddings [B, D] of an ONNX file, by onnxruntime on the CPU.

    Args:
      path: that `export_onnx` wrote.
      inputs: images, and keypoints where it reads them.
    Raises: ValueError: onnxruntime cannot run it.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(
        os.fspath(path), providers=["CPUExecutionProvider"]
    )
    names = [x.name for x in session.get_inputs()]
    try:
        return session.run(None, dict(zip(names, inputs, strict=True)))[0]
    except Exception as error:  # onnxruntime raises errors of its own
        reason = (str(error).splitlines() or [""])[0][:200]
        raise ValueError(f"{path}: onnxruntime cannot run it ({reason}).") from error


def _rename(graph: Any, inputs: Sequence[str]) -> None:
    """Give inputs and output the names that users know."""
    pairs = zip((*graph.input, *graph.output), (*inputs, "embeddings"), strict=True)
    names = {}
    for value, name in pairs:
        names[value.name] = name
        value.name = name
    for node in graph.node:
        for values in (node.input, node.output):
            for place, name in enumerate(values):
                values[place] = names.get(name, name)


class _Choice(int):
    """Which form of an operation is taken."""


def _replay(jaxpr: Any, consts: Sequence[Any], *inputs: Any) -> list[Any]:
    """Bind the primitives of a jaxpr again, those inside of calls among them.

    Where an operation has a faster form on some platform, the form of all others is
    taken, as ONNX knows no platforms.
    """
    values = dict(zip(jaxpr.constvars, consts, strict=True))
    values |= zip(jaxpr.invars, inputs, strict=True)

    def read(variable: Any) -> Any:
        literal = isinstance(variable, core.Literal)
        return variable.val if literal else values[variable]

    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        args = [read(x) for x in equation.invars]
        if name == "platform_index":
            results = [_Choice(len(params["platforms"]) - 1)]  # the default is last
        elif name == "cond" and isinstance(args[0], _Choice):
            branch = params["branches"][args[0]]
            results = _replay(branch.jaxpr, branch.consts, *args[1:])
        elif any(isinstance(x, _Choice) for x in args):  # bounded, or converted
            results = [x for x in args if isinstance(x, _Choice)]
        elif name in _CALLS:
            inner = next(
                params[x] for x in ("jaxpr", "call_jaxpr", "fun_jaxpr") if x in params
            )
            results = _replay(
                getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), *args
            )
        else:
            results = equation.primitive.bind(*args, **params)
            results = results if equation.primitive.multiple_results else [results]
        values |= zip(equation.outvars, results, strict=True)
    return [read(x) for x in jaxpr.outvars]
