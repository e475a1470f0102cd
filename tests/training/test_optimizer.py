from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kprpe_jax.backbones.swin import Swin
from kprpe_jax.backbones.vit import PRESETS, ViT
from kprpe_jax.configs import landmarks as landmarks_config
from kprpe_jax.configs import pair_matching as pair_matching_config
from kprpe_jax.configs.base import vit_fields
from kprpe_jax.tasks import landmarks
from kprpe_jax.tasks.networks import network_fields
from kprpe_jax.tasks.pair_matching import make_model
from kprpe_jax.training.optimizer import (
    decay_mask,
    make_optimizer,
    make_schedule,
    position_mask,
)
from kprpe_jax.training.sharding import flatten_with_paths
from tests.training import toy

IMAGE = jax.ShapeDtypeStruct((1, 40, 40, 3), "float32")


def section(**fields):
    return toy.make_config(**{f"optimizer.{k}": v for k, v in fields.items()}).optimizer


def oracle(config, step, steps, unit=1):
    w = round(config.warmup * unit)
    if step < w:
        return config.learning_rate * (step + 1) / w
    p = min((step - w) / (steps - w), 1.0)
    base, end = config.learning_rate, config.end_learning_rate
    if config.schedule == "cosine":
        return end + (base - end) * (1 + np.cos(np.pi * p)) / 2
    if config.schedule == "polynomial":
        return end + (base - end) * (1 - p) ** config.power
    if config.schedule == "step":
        passed = sum(step >= round(b * unit) for b in config.boundaries)
        return base * config.step_factor**passed
    return base


@pytest.mark.parametrize("unit", [1, 2.5])
@pytest.mark.parametrize("warmup", [0.0, 4.0])
@pytest.mark.parametrize("name", ["cosine", "polynomial", "step", "constant"])
def test_schedule_equals_the_formula(name, warmup, unit):
    config = section(
        schedule=name,
        warmup=warmup,
        learning_rate=0.3,
        end_learning_rate=0.02,
        power=2.0,
        boundaries=(8, 12),
        schedule_unit="steps" if unit == 1 else "epochs",
    )
    schedule = make_schedule(config, steps=40, steps_per_epoch=unit)
    values = [float(schedule(t)) for t in range(45)]
    expected = [oracle(config, t, 40, unit) for t in range(45)]
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"schedule": "cosinus"}, "schedule must be one of cosine, .* got 'cosinus'"),
        (
            {"schedule_unit": "days"},
            "schedule_unit must be steps or epochs; got 'days'",
        ),
        ({"warmup": 40.0}, r"warmup must lie in \[0, steps\); got 40 of 40 steps"),
        ({"boundaries": (5, 3)}, r"boundaries must increase; got \(5, 3\)"),
        ({"schedule_unit": "epochs"}, "epochs needs steps_per_epoch"),
        ({"name": "adam"}, "name must be adamw or sgd; got 'adam'"),
        (
            {"position_factor": -1.0},
            "position_factor must be a finite number .* got -1.0",
        ),
        ({"clip_norm": -1.0}, "clip_norm must be a finite number >= 0; got -1.0"),
        ({"learning_rate": -1.0}, "learning_rate must be a finite number >= 0"),
        ({"learning_rate": np.nan}, "learning_rate must be a finite number .* got nan"),
        ({"learning_rate": 1e39}, "learning_rate must be a finite number >= 0; got 1e"),
        ({"weight_decay": np.inf}, "weight_decay must be a finite number .* got inf"),
        ({"power": -1.0}, "power must be a finite number >= 0; got -1.0"),
        ({"b1": 1.0}, r"b1 must lie in \[0, 1\); got 1.0"),
        ({"b2": 1 - 1e-9}, r"b2 must lie in \[0, 1\); got 0.999999999"),
        ({"momentum": -3.0}, r"momentum must lie in \[0, 1\); got -3.0"),
        ({"warmup": np.nan}, "warmup and optimizer.boundaries must be finite; got nan"),
        (
            {"schedule": "sgdr", "warmup": 8.0, "boundaries": (8, 20)},
            r"sgdr must lie after the warm-up .* between 8 and 40 .* got \(8, 20\)",
        ),
        (
            {"schedule": "sgdr", "boundaries": (20, 40)},
            r"boundaries of sgdr must lie .* before the end.* got \(20, 40\) steps",
        ),
    ],
)
def test_bad_fields(fields, message):
    with pytest.raises(ValueError, match=message):
        make_optimizer(section(**fields), steps=40)


def vit_params(position, **fields):
    config = vit_fields(position)
    config.update(dict(mask_ratio=0.5, scan=True, **fields))
    keypoints = jax.ShapeDtypeStruct((1, 5, 2), "float32")
    rngs = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    init = partial(ViT(**network_fields(ViT, config)).init, train=True)
    return jax.eval_shape(init, rngs, IMAGE, keypoints)["params"]


def aligner_params():
    model = landmarks.make_model(landmarks_config.get_config("small").model)
    init = partial(model.init, method="find_face")
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), "float32")
    return jax.eval_shape(init, jax.random.key(0), image)["params"]


def swin_params():
    model = Swin(
        image_size=(40, 40), patch_size=4, width=8, depths=(1,), num_heads=(2,),
        window=(5, 5),
    )  # fmt: skip
    return jax.eval_shape(model.init, jax.random.key(0), IMAGE)["params"]


def pair_params():
    model = make_model(pair_matching_config.get_config().model)
    patches = jax.ShapeDtypeStruct((1, 42, 512), "float32")
    return jax.eval_shape(model.init, jax.random.key(0), patches, patches)["params"]


IN_VIT = {  # whose blocks are scanned
    "position_embedding",
    *(f"blocks/norm{n}/{part}" for n in (1, 2) for part in ("bias", "scale")),
    *(f"blocks/{part}/bias" for part in ("attention/proj", "mlp/fc1", "mlp/fc2")),
}


@pytest.mark.parametrize(
    ("params", "kept"),
    [
        (
            lambda: vit_params("kprpe_multihead"),
            {"bias_tables/kernel", "bias_tables/bias", *IN_VIT},
        ),
        (lambda: vit_params("rpe"), {"bias_tables/table", *IN_VIT}),
        (lambda: vit_params("irpe"), {"bias_tables/table_k", *IN_VIT}),
        (
            swin_params,
            {
                *("layers_0/attention/qkv_bias", "layers_0/attention/logit_scale"),
                "layers_0/attention/offset_bias/hidden/kernel",
                "layers_0/attention/offset_bias/out/kernel",
            },
        ),
        (aligner_params, set()),
        (pair_params, {"encoder/position_embedding"}),
    ],
    ids=["kprpe", "rpe", "irpe", "swin", "aligner", "pair"],
)
def test_decay_spares_biases_and_what_places_tokens(params, kept):
    """Of everything that is no vector; all other kernels decay."""
    params = params()
    shapes, mask = flatten_with_paths(params), flatten_with_paths(decay_mask(params))
    assert {path for path, s in shapes.items() if s.ndim > 1 and not mask[path]} == kept
    assert not any(mask[path] for path, s in shapes.items() if s.ndim < 2)
    assert any(mask.values())


def test_adamw_equals_the_formula():
    config = section(schedule="constant", warmup=0.0, clip_norm=0.0, weight_decay=0.1)
    params = {"kernel": jnp.full((2, 2), 0.5), "bias": jnp.full(2, 0.5)}
    optimizer = make_optimizer(config, steps=10).transformation
    state = optimizer.init(params)
    w, m, v = {k: np.full(x.shape, 0.5) for k, x in params.items()}, {}, {}
    for t in range(1, 4):
        grads = {k: jnp.full(x.shape, 0.1 * t) for k, x in params.items()}
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        for k in w:
            g = 0.1 * t
            m[k] = 0.9 * m.get(k, 0) + 0.1 * g
            v[k] = 0.999 * v.get(k, 0) + 0.001 * g**2
            step = m[k] / (1 - 0.9**t) / (np.sqrt(v[k] / (1 - 0.999**t)) + 1e-8)
            w[k] = w[k] - 0.01 * (step + (0.1 * w[k] if k == "kernel" else 0))
    for k in w:
        np.testing.assert_allclose(params[k], w[k], rtol=1e-5)


def test_sgd_decays_before_momentum():
    config = section(
        name="sgd", schedule="constant", warmup=0.0, clip_norm=0.0, weight_decay=0.1
    )
    params = {"kernel": jnp.full((2, 2), 0.5)}
    optimizer = make_optimizer(config, steps=10).transformation
    state, w, momentum = optimizer.init(params), 0.5, 0.0
    for _ in range(3):
        updates, state = optimizer.update({"kernel": jnp.ones((2, 2))}, state, params)
        params = optax.apply_updates(params, updates)
        momentum = 0.9 * momentum + 1 + 0.1 * w
        w -= 0.01 * momentum
    np.testing.assert_allclose(params["kernel"], w, rtol=1e-6)


def test_position_parameters_learn_faster_by_the_factor():
    config = section(schedule="constant", warmup=0.0, position_factor=7.0)
    params = {
        "backbone": {"bias_tables": {"kernel": jnp.ones((2, 2))}},
        "bias_tables_of_another": {"kernel": jnp.ones((2, 2))},
    }
    plain, faster = (
        make_optimizer(config, steps=10).transformation
        for config in (section(schedule="constant", warmup=0.0), config)
    )
    grads = jax.tree.map(lambda x: 0.3 * x, params)
    (a, _), (b, _) = (t.update(grads, t.init(params), params) for t in (plain, faster))
    np.testing.assert_allclose(
        b["backbone"]["bias_tables"]["kernel"],
        7 * a["backbone"]["bias_tables"]["kernel"],
        rtol=1e-6,
    )
    other = "bias_tables_of_another"
    np.testing.assert_array_equal(b[other]["kernel"], a[other]["kernel"])


def test_the_factor_finds_the_position_parameters_of_the_vision_transformer():
    model = ViT(**PRESETS["tiny"])
    images, keypoints = jnp.zeros((1, 40, 40, 3)), jnp.zeros((1, 5, 2))
    params = jax.eval_shape(model.init, jax.random.key(0), images, keypoints)["params"]
    found = {
        path for path, yes in flatten_with_paths(position_mask(params)).items() if yes
    }
    tables = {"bias_tables/bias", "bias_tables/kernel"}
    assert found == {*tables, "position_embedding"}


def test_clipping_scales_to_the_global_norm():
    config = section(
        name="sgd",
        schedule="constant",
        warmup=0.0,
        clip_norm=0.5,
        weight_decay=0.0,
        momentum=0.0,
        learning_rate=1.0,
    )
    params = {"a": jnp.zeros((2, 2)), "b": jnp.zeros((3, 1))}
    optimizer = make_optimizer(config, steps=10).transformation
    grads = {"a": jnp.full((2, 2), 3.0), "b": jnp.full((3, 1), -4.0)}
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    norm = np.sqrt(4 * 9 + 3 * 16)
    np.testing.assert_allclose(updates["a"], -3 * 0.5 / norm, rtol=1e-6)
    np.testing.assert_allclose(updates["b"], 4 * 0.5 / norm, rtol=1e-6)
