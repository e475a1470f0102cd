import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from kprpe_jax.training import state as state_lib
from kprpe_jax.training.checkpoint import Checkpoints, restore_for_eval
from kprpe_jax.training.optimizer import make_optimizer
from tests.meshes import mesh_of
from tests.training import toy


def new_state(mesh, *, task=None, seed=0):
    """Give a state on the mesh, and its abstract form."""
    task = task or toy.make_task()
    transformation = make_optimizer(toy.make_config().optimizer, steps=20)[0]
    abstract = state_lib.abstract_state(task, mesh, transformation)
    state = state_lib.new_state(task, transformation, abstract, seed=seed)
    return state.replace(opt_state=jax.tree.map(lambda x: x + 1, state.opt_state)), (
        abstract
    )


def host(state):
    state = state.replace(rng=jax.random.key_data(state.rng))
    return jax.device_get(state)


def save(folder, states, metrics=None, **fields):
    fields = {f"checkpoint.{k}": v for k, v in fields.items()}
    checkpoints = Checkpoints(folder, toy.make_config(**fields).checkpoint)
    for step, state in states.items():
        values = (metrics or {}).get(step)
        meta = {"x": 1, "config": toy.make_config().to_dict()}
        checkpoints.save(state, step=step, meta=meta, metrics=values)
    checkpoints.wait()
    return checkpoints


@pytest.mark.slow
def test_any_mesh_restores_onto_any_other(tmp_path):
    state, abstract = new_state(mesh_of(2, 2, 2))
    wanted = host(state)
    for i, sizes in enumerate([(1, 1, 1), (1, 2, 2), (2, 2, 2)]):
        save(tmp_path / str(i), {3: state}).close()
        _, abstract = new_state(mesh_of(*sizes))
        state = Checkpoints(tmp_path / str(i)).restore(3, abstract)
        jax.tree.map(np.testing.assert_array_equal, host(state), wanted)
        for leaf, target in zip(
            jax.tree.leaves(state), jax.tree.leaves(abstract), strict=True
        ):
            assert leaf.sharding == target.sharding
    kernel = state.params["head"]["kernel"]
    assert kernel.sharding.spec == P(None, "class")


def test_a_save_holds_the_state_of_its_moment(tmp_path):
    # The next step writes over donated buffers while the saving thread still runs.
    mesh = mesh_of(8, 1, 1)
    state, abstract = new_state(mesh)
    wanted = host(jax.tree.map(jnp.copy, state))
    checkpoints = Checkpoints(tmp_path, toy.make_config().checkpoint)
    checkpoints.save(state, step=1, meta={})
    add = jax.jit(lambda t: jax.tree.map(lambda x: x + 1, t), donate_argnums=0)
    params = state.params
    for _ in range(20):
        params = add(params)
    checkpoints.wait()
    restored = host(checkpoints.restore(1, abstract))
    jax.tree.map(np.testing.assert_array_equal, restored, wanted)


@pytest.mark.slow
def test_last_ones_and_the_best_stay(tmp_path):
    state, _ = new_state(mesh_of(1, 1, 1))
    accuracies = {2: 0.3, 4: 0.9, 6: float("nan"), 8: 0.5}
    metrics = {step: {"clean/accuracy": a} for step, a in accuracies.items()}
    steps = dict.fromkeys(range(1, 10), state)
    checkpoints = save(tmp_path, steps, metrics)
    assert checkpoints.steps == [4, 8, 9]
    assert checkpoints.best_step("clean/accuracy", "max") == 4
    assert checkpoints.metrics(4) == {"clean/accuracy": 0.9}
    assert checkpoints.metrics(9) == {}
    checkpoints.close()
    checkpoints = save(tmp_path, {10: state, 11: state})  # a restart remembers the best
    assert checkpoints.steps == [4, 10, 11]
    checkpoints = save(tmp_path / "min", steps, metrics, best_mode="min", keep_last=1)
    assert checkpoints.steps == [2, 9]
    checkpoints = save(tmp_path / "none", steps, metrics, best_metric="")
    assert checkpoints.steps == [8, 9]


def test_meta_holds_what_was_given_and_the_arrays(tmp_path):
    state, _ = new_state(mesh_of(1, 1, 1))
    meta = save(tmp_path, {1: state}).meta(1)
    assert meta["x"] == 1
    assert meta["arrays"]["params/hidden/kernel"] == "float32[26, 64]"
    assert any(path.startswith("opt_state/") for path in meta["arrays"])


def resized(task):
    def init(rng):
        variables = task.init(rng)
        params = dict(variables["params"])
        params["head"] = {"kernel": jnp.ones((64, 6)), "scale": jnp.ones(6)}
        return {**variables, "params": params}

    return task._replace(init=init)


def test_checkpoint_of_another_model(tmp_path):
    state, _ = new_state(mesh_of(1, 1, 1))
    checkpoints = save(tmp_path, {1: state})
    _, other = new_state(mesh_of(1, 1, 1), task=resized(toy.make_task()))
    message = (
        r"step 1 in .* is of another model: 9 arrays differ: params/head/bias is "
        r"float32\[4\] there and absent here; params/head/kernel is float32\[64, 4\] "
        r"there and float32\[64, 6\] here; params/head/scale is absent there"
    )
    with pytest.raises(ValueError, match=message) as caught:
        checkpoints.restore(1, other)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="is of another model: 3 arrays differ"):
        restore_for_eval(tmp_path, "last", other, toy.make_config())


def test_another_dtype_is_not_cast(tmp_path):
    state, abstract = new_state(mesh_of(1, 1, 1))
    checkpoints = save(tmp_path, {1: state})
    other = abstract.replace(
        params=jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, jnp.bfloat16, sharding=x.sharding),
            abstract.params,
        )
    )
    with pytest.raises(ValueError, match=r"float32\[.* there and bfloat16\[.* here"):
        checkpoints.restore(1, other)


@pytest.mark.slow
def test_restore_for_eval(tmp_path):
    mesh = mesh_of(2, 2, 2)
    states = {step: new_state(mesh, seed=step)[0] for step in (1, 2, 3)}
    metrics = {1: {"clean/accuracy": 0.5}, 2: {"clean/accuracy": 0.4}}
    save(tmp_path, states, metrics).close()
    files = sorted(p.name for p in tmp_path.rglob("*"))
    abstract = state_lib.abstract_state(toy.make_task(), mesh_of(1, 2, 2))
    metric = "clean/accuracy"
    for checkpoint, best_metric, step in (
        ("best", metric, 1),
        ("best", "", 3),
        ("last", metric, 3),
        (2, metric, 2),
        ("2", metric, 2),
    ):
        config = toy.make_config(**{"checkpoint.best_metric": best_metric})
        state = restore_for_eval(tmp_path, checkpoint, abstract, config)
        wanted = states[step]
        pair = (host(s.replace(rng=wanted.rng)) for s in (state, wanted))
        got, expected = ((s.params, s.collections) for s in pair)
        jax.tree.map(np.testing.assert_array_equal, got, expected)
        assert state.opt_state is None
    assert files == sorted(p.name for p in tmp_path.rglob("*"))


def test_restore_for_eval_of_what_is_not_there(tmp_path):
    abstract = state_lib.abstract_state(toy.make_task(), mesh_of(1, 1, 1))
    with pytest.raises(ValueError, match="holds none; train first"):
        restore_for_eval(tmp_path / "no", "last", abstract, toy.make_config())
    assert not (tmp_path / "no").exists()
    save(tmp_path, {4: new_state(mesh_of(1, 1, 1))[0]}).close()
    for checkpoint in (7, "7", "newest"):
        with pytest.raises(
            ValueError, match=r"has no .*; ask for best, last or .*\[4\]"
        ):
            restore_for_eval(tmp_path, checkpoint, abstract, toy.make_config())
    other = toy.make_config(**{"checkpoint.best_metric": "x/y"})
    with pytest.raises(ValueError, match="none in .* was evaluated by 'x/y'; ask for"):
        restore_for_eval(tmp_path, "best", abstract, other)


def test_restore_for_eval_of_another_network(tmp_path):
    state, abstract = new_state(mesh_of(1, 1, 1))
    save(tmp_path, {4: state}).close()
    message = (
        "step 4 in .* is of another network: 2 fields of the config differ: "
        "model.pool is 'absent' in the run and 'mean' here; task is 'toy' in the run"
    )
    other = toy.make_config(task="gait").unlock()
    other.model = {"pool": "mean"}
    with pytest.raises(ValueError, match=message):
        restore_for_eval(tmp_path, "last", abstract, other)


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        ValueError("RESOURCE_EXHAUSTED: ... to file 5 [os_error_code='28']"),
        RuntimeError("a save failed"),
    ],
)
def test_a_save_on_a_full_disk_names_the_folder(tmp_path, monkeypatch, error):
    """Whoever of Orbax, TensorStore and Python tells it."""
    error.__context__ = OSError(28, "No space left on device")
    checkpoints = Checkpoints(tmp_path, toy.make_config().checkpoint)

    def fail():
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints._manager, "wait_until_finished", fail)
        with pytest.raises(OSError, match="No space left on device") as caught:
            checkpoints.wait()
        assert caught.value.filename == str(tmp_path / "checkpoints")
        error.__context__ = None
        if isinstance(error, RuntimeError):
            with pytest.raises(RuntimeError, match="a save failed"):
                checkpoints.wait()
    checkpoints.close()
