"""What `kprpe-jax compile` says, of the faces demo on simulated CPU devices."""

import importlib.util
import json

import jax
import pytest

from kprpe_jax.commands.main import main
from kprpe_jax.compiled import hlo_text, report
from kprpe_jax.compiled.collectives import sent_by, sent_to_slices
from kprpe_jax.compiled.step import trace_evaluation, trace_step
from kprpe_jax.compiled.topology import Topology
from kprpe_jax.core.chips import Chip
from kprpe_jax.core.mesh import make_mesh
from kprpe_jax.training.config import load_config
from kprpe_jax.training.sharding import bytes_per_device

CHIP = Chip("CPU", 2**34, 1e10, 1e11, "made up")
SMALL = ("model.depth=1", "data.batch_size=16", "data.dir='no'", "evals.batch_size=8")


@pytest.mark.slow
def test_a_step_without_data_and_what_a_chip_does():
    config = load_config("faces_demo", SMALL)
    devices = jax.devices()[:2]
    mesh = make_mesh(config.mesh, devices)
    step = trace_step(config, mesh)
    kept = dict(topology=Topology("cpu", devices, CHIP, {}), chips=2)
    state = bytes_per_device(step.state)
    facts = report.compile_traced(step.traced, state_bytes=state, **kept)
    assert facts["fits"]
    assert facts["state_bytes"] == state > 0
    assert facts["sent_bytes"]["all-reduce"] > 0  # gradients
    assert facts["bytes_accessed"] > facts["state_bytes"]
    assert facts["largest_buffers"][0]["bytes"] > 0
    assert any(".py:" in buffer["source"] for buffer in facts["largest_buffers"])
    evaluated = trace_evaluation(config, step, mesh)
    embedding = report.compile_traced(evaluated, state_bytes=state, **kept)
    # Forward, and backward through both factors of each product, at twice the rows.
    assert 4 < facts["flops"] / embedding["flops"] < 8
    json.dumps({**facts, "evaluation": embedding})

    few = Topology("cpu", devices, CHIP._replace(memory=1000), {})
    kept["topology"] = few
    assert not report.compile_traced(evaluated, state_bytes=state, **kept)["fits"]


FUSED = """HloModule m, is_scheduled=true

FileNames
1 "/home/me/kprpe_jax/layers/attention.py"
2 "/home/me/train.py"

FunctionNames
1 "run"

FileLocations
1 {file_name_id=2 function_name_id=1 line=3 end_line=3 column=1 end_column=2}
2 {file_name_id=1 function_name_id=1 line=70 end_line=70 column=1 end_column=2}

StackFrames
1 {file_location_id=1 parent_frame_id=1}
2 {file_location_id=2 parent_frame_id=2}
3 {file_location_id=1 parent_frame_id=3}

%start (p: f32[4]) -> f32[8] {
  %p = f32[4]{0} parameter(0)
  ROOT %g = f32[8]{0} all-gather(%p), channel_id=7, replica_groups={{0,1}}
}

%end (q: f32[4]) -> f32[8] {
  %q = f32[4]{0} parameter(0)
  ROOT %h = f32[8]{0} all-gather(%q), channel_id=7, replica_groups={{0,1}}
}

ENTRY %main (x: f32[4]) -> f32[8] {
  %x = f32[4]{0} parameter(0)
  %s = f32[8]{0} fusion(%x), kind=kCustom, calls=%start
  %r = f32[8]{0} all-reduce(%s), channel_id=8, replica_groups={{0,1}}, to_apply=%add
  %c = f32[8]{0} collective-permute(%r), channel_id=9, source_target_pairs={{0,1},{1,0}}
  ROOT %e = f32[8]{0} fusion(%x), kind=kCustom, calls=%end
}
"""


def test_a_collective_that_starts_and_ends_in_fusions_is_counted_once():
    sent, waiting = sent_by(hlo_text.parse(FUSED))
    # Half of 32 bytes; all of them there and back; all of them to the neighbor.
    assert sent == {"all-gather": 16, "all-reduce": 32, "collective-permute": 32}
    assert waiting == {"all-reduce": 32, "collective-permute": 32}


SLICES = """HloModule m, is_scheduled=true

ENTRY %main (x: f32[512]) -> f32[512] {
  %x = f32[512]{0} parameter(0)
  %r = f32[512]{0} all-reduce(%x), replica_groups={{0,1},{2,3}}, metadata={op_name="g"}
  %b = f32[4,128]{1,0} bitcast(%r)
  %t = token[] after-all()
  %s = (f32[4,128]{1,0}, u32[], token[]) send(%b, %t), is_host_transfer=true, FAR
  %o = (f32[4,128]{1,0}, u32[], token[]) send(%b, %t), is_host_transfer=true
}
""".replace("FAR", 'frontend_attributes={_xla_megascale_transfer_type="ALL_REDUCE"}')


def test_what_slices_exchange():
    program = hlo_text.parse(SLICES)
    ((kind, source, size),) = sent_to_slices(program)
    assert (kind, source.name, size) == ("all-reduce", "r", 2048)
    assert list(report._between_slices(program, {})) == [
        {"collective": "all-reduce", "bytes": 2048, "source": "g"}
    ]


def test_the_line_that_asked_for_an_instruction():
    own = "layers/attention.py:70"
    assert hlo_text.source_lines(FUSED) == {1: "train.py:3", 2: own, 3: own}


def test_parts_by_their_place_in_the_program():
    line = '%f = f32[8]{0} fusion(%x), metadata={op_name="jit(step)/NAME/mul"}'

    def part(name, kind="fusion"):
        text = line.replace("NAME", name)
        return report.part_of(
            hlo_text.Instruction("f", kind, "f32[8]", (), text, False)
        )

    assert part("transpose(jvp(augmentation))/vmap()") == "augmentation"
    assert part("jvp(ViT)/while/body/blocks/attention/qkv") == "attention"
    assert part("transpose(jvp(class_centers))") == "class centers"
    assert part("anything", kind="all-reduce") == "collectives"
    assert part("anything") == "other"


def test_what_a_program_would_need_is_read_from_the_compilers_words():
    words = "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 34.5G of "
    needs = report._temporary_bytes(f"{words}15.75G hbm.", 2**30)
    assert needs == 33.5 * 2**30
    words = (
        "CompileTimeHbmOom: Ran out of memory on HBM, the total memory required for "
    )
    needs = report._temporary_bytes(f"{words}HLO temporaries (17.03G) exceeds", 2**30)
    assert needs == 17.03 * 2**30
    assert report._temporary_bytes("INTERNAL: no idea", 0) is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--topology=v9:2x2"], "must be VERSION:AxB"),
        (["--topology=v5e:16"], "must be VERSION:AxB"),
        (["--topology=h200:0"], "or CARD:COUNT"),
        (["--topology=h200:8", "--slices=2"], "only TPUs have slices"),
        (["--topology=v5e:2x2", "--output=no/folder/x.json"], "lies in no folder"),
    ],
)
def test_bad_options(arguments, words, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["compile", "--config=kprpe_faces", *arguments])
    assert stopped.value.code == 2
    assert words in capsys.readouterr().err


HAS_COMPILER = importlib.util.find_spec("libtpu") is not None


@pytest.mark.slow
def test_a_real_tpu_program(tmp_path, capsys):
    command = ["compile", "--config=digits_recognition", "--topology=v5e:2x2"]
    command += [f"--config.{field}" for field in SMALL]
    if not HAS_COMPILER:
        with pytest.raises(SystemExit):
            main(command)
        assert "install the extra [aot]" in capsys.readouterr().err
        pytest.skip("the TPU compiler is not installed (the extra [aot])")
    main([*command, f"--output={tmp_path / 'step.json'}"])
    facts = json.loads((tmp_path / "step.json").read_text())
    assert facts["fits"]
    assert facts["chip_memory_bytes"] == 16 * 2**30
    assert facts["cycles"]["attention"] > 0
    assert facts["sent_bytes"]["all-reduce"] > 0
    assert facts["evaluation"]["fits"]
