"""Inference of convolutional networks on a CPU, beside XLA's convolutions and PyTorch.

    taskset -c 0 python -m benchmarks cpu_inference [--batch-sizes 1,8 --rounds 5]

Weights are random, types float32. `xla` is the same network with XLA's own convolutions
(`nn.Conv`); PyTorch runs an iResNet-50 of the same layers where it is installed, and so
does onnxruntime, with the package `onnx`, on a file that PyTorch exports. Ratios are
those of the shortest processor times of a run. On several cores those of PyTorch and
onnxruntime include what their threads wait for each other: there, on an idle machine,
take --clock wall. Appends to benchmarks/results/cpu_inference.jsonl.
"""

import argparse
import contextlib
import io
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp

from benchmarks import harness
from kprpe_jax.backbones import mobilefacenet
from kprpe_jax.backbones.iresnet import PRESETS, WIDTHS, IResNet
from kprpe_jax.detection import retinaface
from kprpe_jax.layers import convolution

# Name -> network and (height, width) of its images.
NETWORKS = {
    "iresnet50": (IResNet(**PRESETS["ir50"]), (112, 112)),
    "mobilefacenet": (mobilefacenet.MobileFaceNet(), (112, 112)),
    "retinaface_256": (retinaface.RetinaFace(), (256, 256)),
    "retinaface_512": (retinaface.RetinaFace(), (512, 512)),
}


CLOCKS = {"processor": time.process_time, "wall": time.perf_counter}
PAUSE = 0.3  # seconds; other frameworks' threads wait actively after a call


class _GroupedConv(nn.Module):
    """`DepthwiseConv` by XLA's grouped convolution; parameters are the same."""

    size: tuple[int, int]
    stride: int = 1
    padding: int = 0
    dtype: Any = jnp.float32
    kernel_init: Any = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = *self.size, 1, x.shape[-1]
        kernel = self.param("kernel", self.kernel_init, shape)
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, kernel, (self.stride,) * 2, [(self.padding,) * 2] * 2,
            feature_group_count=x.shape[-1], dimension_numbers=numbers,
        )  # fmt: skip


@contextlib.contextmanager
def xla_convolutions() -> Iterator[None]:
    """Trace networks with XLA's own convolutions."""
    with (
        mock.patch.object(convolution, "_choose_faster", return_value=None),
        mock.patch.object(retinaface, "DepthwiseConv", _GroupedConv),
        mock.patch.object(mobilefacenet, "DepthwiseConv", _GroupedConv),
    ):
        yield


def measure(
    name: str, batch_size: int, *, rounds: int, clock: str
) -> dict[str, dict[str, float]]:
    """Time a network's variants in turn.

    Args:
      name: of NETWORKS.
      batch_size: images a call.
      rounds: timed calls of each.
      clock: of CLOCKS.
    Returns: variant -> min_s, items_per_s and time_ratio: of the shortest times, to
      `ours`.
    """
    network, size = NETWORKS[name]
    images = jax.random.uniform(jax.random.key(0), (batch_size, *size, 3), minval=-1)
    variables = jax.jit(network.init)(jax.random.key(1), images[:1])

    def compile_network() -> Callable[[], Any]:
        # A function of its own, so that nothing traced before is used again.
        apply = jax.jit(lambda variables, images: network.apply(variables, images))
        program = apply.lower(variables, images).compile()
        return lambda: program(variables, images)

    calls = {"ours": compile_network()}
    with xla_convolutions():
        calls["xla"] = compile_network()
    if name == "iresnet50":
        calls |= other_frameworks(batch_size)
    seconds = harness.time_variants(
        calls, rounds=rounds, clock=CLOCKS[clock], pause=PAUSE
    )
    shortest = {key: min(values) for key, values in seconds.items()}
    return {
        key: dict(
            min_s=value,
            items_per_s=batch_size / value,
            time_ratio=value / shortest["ours"],
        )
        for key, value in shortest.items()
    }


def other_frameworks(batch_size: int) -> dict[str, Callable[[], Any]]:
    """Calls of iResNet-50 in PyTorch and onnxruntime, of those that are installed."""
    try:
        import torch
    except ImportError:
        return {}
    model = _torch_iresnet(torch).eval()
    images = torch.rand(batch_size, 3, 112, 112)

    def call() -> Any:
        with torch.inference_mode():
            return model(images)

    calls = {"pytorch": call}
    try:
        import onnx  # noqa: F401  PyTorch needs it to export
        import onnxruntime
    except ImportError:
        return calls
    file = io.BytesIO()
    torch.onnx.export(model, (images,), file, input_names=["images"], dynamo=False)
    session = onnxruntime.InferenceSession(
        file.getvalue(), providers=["CPUExecutionProvider"]
    )
    return calls | {
        "onnxruntime": lambda: session.run(None, {"images": images.numpy()})
    }


def _torch_iresnet(torch: Any) -> Any:
    """The layers of `IResNet(**PRESETS["ir50"])`, without dropout."""
    layers = torch.nn

    class Unit(layers.Module):
        def __init__(self, inputs: int, width: int, stride: int):
            super().__init__()
            options = dict(padding=1, bias=False)
            self.branch = layers.Sequential(
                layers.BatchNorm2d(inputs),
                layers.Conv2d(inputs, width, 3, **options),
                layers.BatchNorm2d(width),
                layers.PReLU(width),
                layers.Conv2d(width, width, 3, stride, **options),
                layers.BatchNorm2d(width),
            )
            self.shortcut = layers.MaxPool2d(1, stride)
            if inputs != width:
                conv = layers.Conv2d(inputs, width, 1, stride, bias=False)
                self.shortcut = layers.Sequential(conv, layers.BatchNorm2d(width))

        def forward(self, x: Any) -> Any:
            return self.branch(x) + self.shortcut(x)

    stem = layers.Conv2d(3, 64, 3, padding=1, bias=False)
    units, inputs = [stem, layers.BatchNorm2d(64), layers.PReLU(64)], 64
    for width, count in zip(WIDTHS, PRESETS["ir50"]["stage_sizes"], strict=True):
        for index in range(count):
            units.append(Unit(inputs, width, 1 if index else 2))
            inputs = width
    head = layers.Linear(512 * 49, 512)
    last = layers.BatchNorm2d(512), layers.Flatten(), head, layers.BatchNorm1d(512)
    return layers.Sequential(*units, *last)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--batch-sizes", default="1,8", help="images a call (1,8)")
    parser.add_argument(
        "--networks", default=",".join(NETWORKS), help="of all by default"
    )
    parser.add_argument("--rounds", type=int, default=5, help="timed calls (5)")
    parser.add_argument(
        "--clock", choices=CLOCKS, default="processor", help="what is timed (processor)"
    )


def run(options: argparse.Namespace) -> None:
    """Measure, print and record."""
    results = {}
    for name in options.networks.split(","):
        for batch_size in map(int, options.batch_sizes.split(",")):
            key = f"{name}, batch {batch_size}"
            results[key] = measure(
                name, batch_size, rounds=options.rounds, clock=options.clock
            )
            sys.stdout.write(f"\n{key}\n")
            for variant, row in results[key].items():
                sys.stdout.write(
                    f"  {variant:12} {row['items_per_s']:8.1f} images/s  "
                    f"time x {row['time_ratio']:.2f}\n"
                )
            sys.stdout.flush()
    settings = dict(
        networks=options.networks,
        batch_sizes=options.batch_sizes,
        rounds=options.rounds,
        clock=options.clock,
    )
    harness.record("cpu_inference", settings, results)
