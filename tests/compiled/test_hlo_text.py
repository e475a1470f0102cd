"""What is counted in compiled programs, against counts by hand."""

import jax
import jax.numpy as jnp
import pytest

from kprpe_jax.compiled import hlo_text

SIZE, TURNS = 4 * 16 * 16, 5  # bytes of a matrix; of the loop


def compiled(function, *shapes):
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return hlo_text.parse(jax.jit(function).lower(*arguments).compile().as_text())


def test_products_of_a_loop_count_as_often_as_it_runs():
    def turn(x, weights):
        return jnp.tanh(x @ weights), None

    program = compiled(
        lambda x, w: jax.lax.scan(turn, x, w)[0], (3, 16), (TURNS, 16, 16)
    )
    assert hlo_text.matrix_flops(program) == TURNS * 2 * 3 * 16 * 16


def test_products_inside_of_batches():
    program = compiled(
        lambda x, y: jnp.einsum("bij,bkj->bik", x, y), (2, 3, 16), (2, 5, 16)
    )
    assert hlo_text.matrix_flops(program) == 2 * 2 * 3 * 5 * 16


def test_a_kernel_reads_its_operands_and_writes_its_result():
    program = compiled(lambda x, y: x * y + x, (16, 16), (16, 16))
    assert hlo_text.bytes_moved(program) == 3 * SIZE


# A loop's turn changes one matrix of a stack in place and multiplies.
SLICED = """HloModule m, is_scheduled=true

%fused (p.0: f32[5,16,16], p.1: s32[], p.2: f32[16,16]) -> f32[16,16] {
  %p.0 = f32[5,16,16]{2,1,0} parameter(0)
  %p.1 = s32[] parameter(1)
  %p.2 = f32[16,16]{1,0} parameter(2)
  %c = s32[] constant(0)
  %d = f32[1,16,16]{2,1,0} dynamic-slice(%p.0, %p.1, %c, %c)
  %n = f32[1,16,16]{2,1,0} negate(%d)
  %b = f32[16,16]{1,0} bitcast(%n)
  %u = f32[5,16,16]{2,1,0} dynamic-update-slice(%p.0, %n, %p.1, %c, %c)
  ROOT %t = (f32[5,16,16]{2,1,0}, f32[16,16]{1,0}) tuple(%u, %b)
}

%body (arg: (s32[], f32[5,16,16], f32[16,16])) -> (s32[], f32[5,16,16]) {
  %arg = (s32[], f32[5,16,16], /*index=2*/f32[16,16]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%arg), index=0
  %x = f32[5,16,16]{2,1,0} get-tuple-element(%arg), index=1
  %y = f32[16,16]{1,0} get-tuple-element(%arg), index=2
  %f = (f32[5,16,16], f32[16,16]) fusion(%x, %i, %y), kind=kLoop, calls=%fused
  %l = f32[5,16,16]{2,1,0} get-tuple-element(%f), index=0
  %r = f32[16,16]{1,0} get-tuple-element(%f), index=1
  %g = (f32[16,16]{1,0}, s8[4096]{0}) custom-call(%r, %y), PRODUCT
  %h = f32[16,16]{1,0} get-tuple-element(%g), index=0
  ROOT %o = (s32[], f32[5,16,16], f32[16,16]) tuple(%i, %l, %h)
}

ENTRY %main (a: (s32[], f32[5,16,16], f32[16,16])) -> (s32[], f32[5,16,16]) {
  %a = (s32[], f32[5,16,16]{2,1,0}, f32[16,16]{1,0}) parameter(0)
  ROOT %w = (s32[], f32[5,16,16]) while(%a), condition=%c, body=%body, COUNT
}
"""
PARTS = {
    "PRODUCT": 'custom_call_target="__cublas$lt$matmul", backend_config={"dot":'
    '{"lhs_contracting_dimensions":["1"],"rhs_contracting_dimensions":["0"]}}',
    "COUNT": 'backend_config={"known_trip_count":{"n":"5"}}',
}


def test_slices_of_a_stack_and_changes_in_place():
    """Of the stack a matrix is read and one written; the unused operand is not read."""
    text = SLICED
    for name, part in PARTS.items():
        text = text.replace(name, part)
    program = hlo_text.parse(text)
    fusion = 3 * SIZE + 4  # the slice, its place, the change, the other result
    assert hlo_text.bytes_moved(program) == TURNS * (fusion + 3 * SIZE)
    assert hlo_text.matrix_flops(program) == TURNS * 2 * 16**3


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("bf16[2,3]{1,0:T(8)}", [(2, (2, 3))]),
        ("(pred[], /*index=1*/u8[4]{0})", [(1, ()), (1, (4,))]),
        ("f8e4m3fn[4]", [(1, (4,))]),
    ],
)
def test_arrays_of_a_type(text, want):
    assert hlo_text.arrays(text) == want
