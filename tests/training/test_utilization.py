"""FLOPs of a network by its formula, and what the devices tell."""

import types

import jax
import pytest

from kprpe_jax import tasks
from kprpe_jax.compiled.step import batch_shapes
from kprpe_jax.core.chips import GPUS, TPUS, find_chip
from kprpe_jax.core.mesh import make_mesh
from kprpe_jax.evaluation.evaluators import entries
from kprpe_jax.training import utilization
from kprpe_jax.training.config import load_config
from kprpe_jax.training.optimizer import make_optimizer
from kprpe_jax.training.state import abstract_state
from kprpe_jax.training.step import make_train_step

BATCH, CLASSES = 8, 2048  # 2,000, padded


def formula(*, tokens, width, hidden, depth, heads, patch, output, pooled):
    """Of a batch: twice as many for gradients, once where the input needs none."""
    block = 2 * tokens * (4 * width**2 + 2 * width * hidden)
    block += 2 * 2 * tokens**2 * width  # queries by keys, weights by values
    head = 2 * (pooled * width + width * output) + 2 * output * CLASSES
    first = 2 * tokens * 3 * patch**2 * width
    # Five keypoints, and the places of tokens, which all images share, read a table.
    table = 2 * 2 * 49 * depth * heads
    first += 5 * table + table * tokens / BATCH
    return BATCH * (3 * (depth * block + head) + 2 * first)


def test_flops_are_those_of_the_formula_however_they_are_computed():
    """Behind augmentation, recomputed blocks and kernels."""
    overrides = ["model.remat=true", "model.attention=pallas"]
    overrides += [f"data.batch_size={BATCH}", "optimizer.accumulate_steps=1"]
    config = load_config("tiny_synthetic", overrides)
    assert config.augmentation.preset == "kprpe"
    with config.unlocked():
        for name in entries(config.evals):
            del config.evals[name]
        config.evals.in_training, config.checkpoint.best_metric = (), ""
    mesh = make_mesh({"data": 1, "fsdp": 1, "class": 1}, jax.devices()[:1])
    task = tasks.build(config, mesh)
    optimizer = make_optimizer(config.optimizer, steps=9000, steps_per_epoch=9.0)
    step = make_train_step(
        task.loss,
        optimizer,
        mesh=mesh,
        accumulate_steps=1,
        sample_classes=task.sample_classes,
    )
    state = abstract_state(task, mesh, optimizer.transformation)
    batch = batch_shapes(config, task, BATCH)
    sizes = dict(tokens=49, width=64, hidden=128, depth=4, heads=4, patch=16)
    wanted = formula(**sizes, output=128, pooled=49 * 64)
    assert utilization.step_flops(step, (state, batch)) == wanted


@pytest.mark.parametrize("chip", [*TPUS.values(), *GPUS.values()])
def test_chips_are_found_by_the_name_of_the_platform(chip):
    assert find_chip(chip.name) == chip
    assert chip.source


def test_unknown_chips_have_no_peak():
    assert find_chip("TPU v5e") == TPUS["v5e"]
    assert find_chip("cpu") is None
    mesh = make_mesh({"data": -1, "fsdp": 1, "class": 1})
    assert utilization.least_step_seconds(None, (), mesh) == (0.0, "")


def test_a_known_chip(monkeypatch):
    chip = TPUS["v5e"]._replace(bfloat16=1e6)
    monkeypatch.setattr(utilization, "find_chip", lambda kind: chip)
    mesh = make_mesh({"data": 2, "fsdp": 1, "class": 1}, jax.devices()[:2])
    shapes = (jax.ShapeDtypeStruct((4, 4), "float32"),) * 2
    seconds, line = utilization.least_step_seconds(lambda x, y: x @ y, shapes, mesh)
    assert seconds == 2 * 4**3 / 2e6
    assert "per TPU v5 lite (Google Cloud's page of the TPU)" in line


def test_memory_of_the_fullest_device(monkeypatch):
    assert utilization.memory_in_use() == {}  # CPUs do not tell
    stats = [{"bytes_in_use": n, "peak_bytes_in_use": 2 * n} for n in (3, 5)]
    devices = [types.SimpleNamespace(memory_stats=lambda s=s: s) for s in stats]
    monkeypatch.setattr(jax, "local_devices", lambda: devices)
    wanted = {"memory/in_use_bytes": 5.0, "memory/peak_bytes": 10.0}
    assert utilization.memory_in_use() == wanted
