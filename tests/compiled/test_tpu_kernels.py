"""The Pallas kernels go through the real TPU compiler."""

import importlib.util

import jax
import pytest
from jax.sharding import SingleDeviceSharding

from benchmarks.kernel_registers import kernel_cases
from kprpe_jax.compiled.topology import describe_topology
from kprpe_jax.layers.platforms import kernels_for


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="the TPU compiler is not installed (the extra [aot])",
)
@pytest.mark.parametrize("topology", ["v5e:2x2", "v5p:2x2x1", "v6e:2x2"])
def test_kernels_compile(topology):
    """Attention in all widths and types that configs use, and Sinkhorn."""
    place = SingleDeviceSharding(describe_topology(topology).devices[0])
    names = []
    with kernels_for("tpu"):
        for name, function, shapes in kernel_cases():
            if name.endswith("forward"):  # a part of backward
                continue
            shapes = jax.tree.map(
                lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=place), shapes
            )
            traced = jax.jit(function).trace(*shapes)
            compiled = traced.lower(lowering_platforms=("tpu",)).compile()
            assert "tpu_custom_call" in compiled.as_text(), name
            names.append(name)
    assert len(names) == 5
