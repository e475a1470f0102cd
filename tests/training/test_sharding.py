import jax
import jax.numpy as jnp
import optax
import pytest
from jax.sharding import PartitionSpec as P

from kprpe_jax.training.sharding import bytes_per_device, flatten_with_paths
from kprpe_jax.training.sharding import parameter_spec as spec_of
from kprpe_jax.training.state import abstract_state
from tests.meshes import mesh_of
from tests.training import toy


@pytest.mark.parametrize(
    ("path", "shape", "spec"),
    [
        ("dense/kernel", (64, 128), P(None, "fsdp")),
        ("dense/kernel", (128, 64), P("fsdp")),
        ("dense/kernel", (130, 64), P(None, "fsdp")),  # 130 does not divide by 4
        ("dense/kernel", (130, 66), P()),
        ("dense/bias", (128,), P()),  # small
        ("blocks/mlp/kernel", (128, 64, 32), P(None, "fsdp")),  # not over the layers
        ("block_0/mlp/kernel", (128, 64, 32), P("fsdp")),
        ("head/kernel", (64, 128), P(None, "class")),
        ("head/deep/kernel", (64, 128), P(("data", "fsdp"))),
    ],
)
def test_rules_then_the_largest_dimension(path, shape, spec):
    rules = (
        ("head/deep", P(("data", "fsdp"))),
        ("^head/kernel", P(None, "class")),
        ("head", P()),
    )
    assert spec_of(path, shape, rules, mesh_of(1, 4, 2)) == spec


def test_without_fsdp_nothing_is_split():
    assert spec_of("dense/kernel", (64, 128), (), mesh_of(8, 1, 1)) == P()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (P("model"), "over the axis 'model'; the mesh has data, fsdp, class"),
        (P("class"), "dimension 0: 5 does not divide by the 2 parts of class"),
        (P(None, ("fsdp", "class")), "dimension 1: 12 does .* the 8 parts of fsdpxcla"),
        (P(None, None, "fsdp"), "has 2 dimensions; P.* has 3"),
    ],
)
def test_rule_that_does_not_fit(spec, message):
    with pytest.raises(ValueError, match=message):
        spec_of("a/kernel", (5, 12), (("kernel$", spec),), mesh_of(1, 4, 2))


def test_optimizer_state_follows_its_parameter():
    mesh = mesh_of(2, 2, 2)
    for optimizer in (optax.adamw(0.1), optax.sgd(0.1, momentum=0.9)):
        state = abstract_state(toy.make_task(), mesh, optimizer)
        params = flatten_with_paths(state.params)
        assert params["hidden/kernel"].sharding.spec == P(None, "fsdp")
        assert params["head/kernel"].sharding.spec == P(None, "class")
        followers = 0
        for path, leaf in flatten_with_paths(state.opt_state).items():
            for name, parameter in params.items():
                if path.endswith(name):
                    followers += 1
                    assert leaf.sharding == parameter.sharding
        assert followers in (len(params), 2 * len(params))
        assert state.step.sharding.spec == P()
        specs = {x.sharding.spec for x in jax.tree.leaves(state.collections)}
        assert specs == {P()}


def test_same_ending_takes_the_longest_path():
    # "kernel" and "inner/kernel" both end the path of the optimizer's inner/kernel.
    task = toy.Task(
        init=lambda rng: {
            "params": {
                "kernel": jnp.ones((8, 8)),
                "inner": {"kernel": jnp.ones((8, 8))},
            }
        },
        loss=None,
        open_training=None,
        check_batch=None,
        evaluators={},
        sharding_rules=(("inner", P("fsdp")), ("^kernel", P("class"))),
    )
    state = abstract_state(task, mesh_of(2, 2, 2), optax.sgd(0.1, momentum=0.9))
    trace = flatten_with_paths(state.opt_state)
    specs = {path: leaf.sharding.spec for path, leaf in trace.items()}
    assert set(specs.values()) == {P("fsdp"), P("class")}
    assert [s for path, s in specs.items() if "inner" in path] == [P("fsdp")]


def test_bytes_per_device():
    state = abstract_state(toy.make_task(), mesh_of(2, 2, 2))
    whole = (2 * 64 + 4) * 4  # biases and the norm's scale
    assert bytes_per_device(state.params) == whole + 26 * 64 * 4 // 2 + 64 * 4 * 4 // 2
