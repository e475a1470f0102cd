"""Bounds of compiled programs, without the compiler for GPUs."""

import json

import jax
import jax.numpy as jnp
import pytest

from benchmarks import compiled_for_gpu, harness
from kprpe_jax.compiled import gpu_cards, hlo_text
from kprpe_jax.core.chips import GPUS

SETTINGS = {"card": "h200", "preset": "base"}


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setattr(gpu_cards, "find_assembler", lambda: None)
    with pytest.raises(
        ValueError, match="needs jax-cuda12-plugin, jax-cuda12-pjrt and"
    ):
        gpu_cards.describe_devices(GPUS["h100"])


def test_a_card_is_described_by_its_own_numbers():
    text = gpu_cards.describe(GPUS["h200"])
    assert 'device_description_str: "NVIDIA H200"' in text
    assert "memory_bandwidth: 4800000000000\n" in text
    assert "device_memory_size: 141000000000\n" in text
    assert text.count("{") == text.count("}") == 3


def test_the_larger_of_both_times_bounds_a_kernel():
    moved = 3.35e12 * 2
    assert compiled_for_gpu.least_time(989e12, moved, "h100") == pytest.approx(2)
    assert compiled_for_gpu.least_time(3 * 989e12, moved, "h100") == pytest.approx(3)
    assert compiled_for_gpu.least_time(0, moved, "h200") == pytest.approx(6.7 / 4.8)


def test_bounds_of_a_program():
    """A product of 2 x 512**3 FLOPs and a sum, whose bytes take longer."""

    def function(x, y):
        return jnp.tanh(x @ y)

    shape = jax.ShapeDtypeStruct((512, 512), jnp.float32)
    traced = jax.jit(function).trace(shape, shape)
    compiled = traced.lower().compile()
    got = compiled_for_gpu.examine(traced, compiled)
    moved = hlo_text.bytes_moved(hlo_text.parse(compiled.as_text()))
    assert got["tflop"] == 2 * 512**3 / 1e12
    assert got["pallas_tflop"] == 0
    assert got["gigabytes"] == pytest.approx(moved / 1e9)
    assert sum(got["gigabytes_by_part"].values()) == pytest.approx(moved / 1e9)
    assert got["kernel_by_kernel_s"]["h100"] == pytest.approx(moved / 3.35e12)
    assert got["peak_mib"] >= 3  # two arguments and a result of one MiB


@pytest.mark.parametrize(
    ("place", "part"),
    [
        ("jvp(ViT)/blocks/attention/bhid,bhjd->bhij/dot_general", "attention"),
        ("jvp(ViT)/blocks/attention/qkv/dot_general", "products with weights"),
        ("blocks/mlp/fc1/reduce_sum", "products with weights"),
        ("blocks/norm2/neg", "norms"),
        ("jit(dynamic_update_index_in_dim)/dynamic_update_slice", "kept for backward"),
        ("jit(_where)/select_n", "other"),
    ],
)
def test_parts_by_place(place, part):
    line = f'%a = f32[] add(%b, %c), metadata={{op_name="jit(train_step)/{place}"}}'
    one = hlo_text.Instruction("a", "add", "f32[]", ("b", "c"), line, False)
    assert compiled_for_gpu.part_of(one) == part


def test_tables_join_lines_of_the_same_settings(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    names = (*compiled_for_gpu.PARTS, "other")

    def line(key, gigabytes, settings=SETTINGS):
        result = {
            "peak_mib": 2048.0, "temporary_mib": 1024.0, "tflop": 989.0,
            "gigabytes": gigabytes, "kernel_by_kernel_s": {"h200": 4.0},
            "gigabytes_by_part": dict.fromkeys(names, 6.4),
        }  # fmt: skip
        return json.dumps({"settings": settings, "results": {key: result}}) + "\n"

    (tmp_path / "compiled_for_gpu.jsonl").write_text(
        line("train, kprpe, 1024", 4800.0)
        + line("train, kprpe, 128", 1.0)
        + line("train, kprpe, 128", 9600.0)
        + line("train, plain, 128", 4800.0)
        + line("train, irpe, 128", 4800.0, {"card": "h100"})
    )
    text = compiled_for_gpu.tables(SETTINGS)
    rows = [row for row in text if "128 |" in row or "1024 |" in row]
    assert rows == [
        "| plain | 128 | 2.0 | 1.0 | 989.0 | 4800 | 128 | 128 | 32 |",
        "| kprpe | 128 | 2.0 | 1.0 | 989.0 | 9600 | 128 | 64 | 32 |",
        "| kprpe | 1024 | 2.0 | 1.0 | 989.0 | 4800 | 1,024 | 1,024 | 256 |",
        "| plain | 128 | 50 | 50 | 50 | 50 | 50 |",
        "| kprpe | 128 | 50 | 50 | 50 | 50 | 50 |",
        "| kprpe | 1024 | 6 | 6 | 6 | 6 | 6 |",
    ]
