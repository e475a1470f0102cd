import jax
import numpy as np
import pytest

from kprpe_jax.core import mesh as mesh_lib


@pytest.mark.parametrize(
    ("sizes", "shape"),
    [((-1, 1, 1), (8, 1, 1)), ((2, -1, 2), (2, 2, 2)), ((1, 8, 1), (1, 8, 1))],
)
def test_mesh_takes_all_devices(sizes, shape):
    mesh = mesh_lib.make_mesh(dict(zip(mesh_lib.AXES, sizes, strict=True)))
    assert tuple(mesh.shape.values()) == shape
    assert tuple(mesh.shape) == ("data", "fsdp", "class")


@pytest.mark.parametrize("sizes", [(3, -1, 1), (2, 2, 1), (16, 1, 1), (4, 4, 1)])
def test_mesh_that_does_not_fit(sizes):
    with pytest.raises(ValueError, match=r"does not fit 8 devices; make the product"):
        mesh_lib.make_mesh(dict(zip(mesh_lib.AXES, sizes, strict=True)))


@pytest.mark.parametrize("sizes", [(-1, -1, 1), (0, 1, 1), (-2, 1, 1)])
def test_mesh_with_senseless_sizes(sizes):
    with pytest.raises(ValueError, match=r"at least 1 and one may be -1; got data="):
        mesh_lib.make_mesh(dict(zip(mesh_lib.AXES, sizes, strict=True)))


def test_batch_rows_lie_over_all_axes():
    mesh = mesh_lib.make_mesh({"data": 2, "fsdp": 2, "class": 2})
    rows = np.arange(16 * 3).reshape(16, 3)
    batch = mesh_lib.put_batch({"x": rows}, mesh)
    np.testing.assert_array_equal(batch["x"], rows)
    assert {s.data.shape for s in batch["x"].addressable_shards} == {(2, 3)}
    assert len({str(s.index) for s in batch["x"].addressable_shards}) == 8


def test_batch_that_does_not_divide():
    mesh = mesh_lib.make_mesh({"data": -1, "fsdp": 1, "class": 1})
    mesh_lib.check_batch_size(32, 4, mesh)
    with pytest.raises(ValueError, match="24 rows .* 8 devices x 2 .* multiple of 16"):
        mesh_lib.check_batch_size(24, 2, mesh)


@pytest.mark.parametrize(
    ("environ", "several"),
    [
        ({}, False),
        ({"SLURM_NTASKS": "4"}, False),  # a shell in an allocation, no step
        ({"SLURM_STEP_NUM_TASKS": "4"}, True),
        ({"SLURM_STEP_NUM_TASKS": "1"}, False),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, False),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, True),
        ({"JAX_COORDINATOR_ADDRESS": "a:1"}, True),
    ],
)
def test_environment_says_several_processes(monkeypatch, environ, several):
    for name in ("SLURM_STEP_NUM_TASKS", "TPU_WORKER_HOSTNAMES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *a: calls.append(a))
    assert mesh_lib.initialize_distributed() == several
    assert calls == ([()] if several else [])


def test_explicit_processes(monkeypatch):
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *a: calls.append(a))
    assert mesh_lib.initialize_distributed("h:1", 2, 1)
    assert mesh_lib.initialize_distributed("auto")
    assert calls == [("h:1", 2, 1), ()]
    with pytest.raises(ValueError, match="belong together; got"):
        mesh_lib.initialize_distributed("h:1", 2)
    with pytest.raises(ValueError, match=r"process_id must lie in .* got 2 of 2"):
        mesh_lib.initialize_distributed("h:1", 2, 2)
