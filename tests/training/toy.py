"""A small task on random rows that learns in milliseconds, for tests of the loop."""

import time

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from kprpe_jax.data import order
from kprpe_jax.tasks.task import Task, TrainingRows
from kprpe_jax.training.optimizer import make_optimizer
from kprpe_jax.training.state import abstract_state, new_state
from kprpe_jax.training.step import CompiledStep, make_train_step

CLASSES = 4


class Source:
    """Rows that depend on their number alone; `bad_row` has a NaN among its points."""

    def __init__(
        self, size: int = 96, bad_row: int | None = None, hang_row: int | None = None
    ):
        self.size, self.bad_row, self.hang_row = size, bad_row, hang_row
        self.visits = 0  # of `hang_row`, which never comes the third time

    def __len__(self):
        return self.size

    def __getitem__(self, row):
        self.visits += row == self.hang_row
        while row == self.hang_row and self.visits > 2:
            time.sleep(1)
        rng = np.random.default_rng(row)
        label = row % CLASSES
        image = rng.integers(0, 100, (4, 4, 1)).astype(np.uint8)
        image[label] += 100
        keypoints = rng.random((5, 2), np.float32)  # constant inputs would be noise
        if row == self.bad_row:
            keypoints[0] = np.nan
        return {
            "image": image,
            "label": np.int32(label),
            "keypoints": keypoints,
            "id": np.int32(row),
        }

    def __getitems__(self, rows):
        return [self[row] for row in rows]


class Net(nn.Module):
    """MLP with batch norm (over the global batch) and dropout."""

    batch_norm: bool = True

    @nn.compact
    def __call__(self, x, train):
        x = nn.Dense(64, use_bias=False, name="hidden")(x)  # a bias would be noise
        if self.batch_norm:
            x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)
        x = nn.relu(x)
        x = nn.Dropout(0.1 if self.batch_norm else 0.0, deterministic=not train)(x)
        return nn.Dense(CLASSES, name="head")(x)


def make_task(
    *,
    batch_norm: bool = True,
    sharding_rules=None,
    bad_row: int | None = None,
    hang_row: int | None = None,
) -> Task:
    """Build the toy; without batch norm and dropout a loss is a mean over rows."""
    net = Net(batch_norm)

    def pixels(batch):
        x = batch["image"].astype(jnp.float32) / 127.5 - 1
        points = batch["keypoints"]
        return jnp.concatenate(
            [x.reshape(len(x), -1), points.reshape(len(points), -1)], axis=1
        )

    def init(rng):
        return net.init(rng, jnp.zeros((1, 26)), train=False)

    def loss(params, collections, batch, rng, *, train):
        logits, new = net.apply(
            {"params": params, **collections},
            pixels(batch),
            train=train,
            mutable=list(collections) if train else [],
            rngs={"dropout": rng},
        )
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
        accuracy = jnp.mean(logits.argmax(-1) == batch["label"])
        return jnp.mean(losses), (new if train else collections, {"accuracy": accuracy})

    def evaluate(state, mesh):
        rows = Source().__getitems__(range(32))
        batch = {k: np.stack([row[k] for row in rows]) for k in rows[0]}
        # Each process has the same rows: no global arrays, only the values.
        gather = jax.jit(lambda tree: tree, out_shardings=NamedSharding(mesh, P()))
        whole = gather((state.params, state.collections))
        params, collections = jax.device_get(whole)
        value, (_, metrics) = loss(
            params, collections, batch, jax.random.key(0), train=False
        )
        return {"loss": float(value), "accuracy": float(metrics["accuracy"])}

    if sharding_rules is None:
        sharding_rules = (("head/kernel", P(None, "class")),)
    source = Source(bad_row=bad_row, hang_row=hang_row)
    return Task(
        init=init,
        loss=loss,
        open_training=lambda seed: TrainingRows(
            source, order.shuffled(len(source), seed=seed)
        ),
        check_batch=lambda batch: None,
        evaluators={"clean": evaluate},
        sharding_rules=sharding_rules,
    )


def make_config(**overrides) -> ConfigDict:
    """Build the toy's config; `overrides` are {"section.field": value}."""
    config = ConfigDict(
        {
            "task": "toy",
            "seed": 0,
            "steps": 20,
            "data": {
                "name": "toy",
                "dir": "",
                "train_split": "train",
                "batch_size": 16,
                "num_threads": 1,
                "num_workers": 0,
            },
            "optimizer": {
                "name": "adamw",
                "learning_rate": 0.01,
                "end_learning_rate": 0.0,
                "schedule": "cosine",
                "schedule_unit": "steps",
                "warmup": 2.0,
                "power": 1.0,
                "boundaries": (),
                "step_factor": 0.1,
                "weight_decay": 0.05,
                "b1": 0.9,
                "b2": 0.999,
                "momentum": 0.9,
                "clip_norm": 1.0,
                "position_factor": 1.0,
                "accumulate_steps": 1,
            },
            "mesh": {"data": -1, "fsdp": 1, "class": 1},
            "checkpoint": {
                "every_steps": 5,
                "keep_last": 2,
                "best_metric": "clean/accuracy",
                "best_mode": "max",
            },
            "log": {"every_steps": 1},
            "evals": {"every_steps": 10, "batch_size": 32, "in_training": ("clean",)},
        }
    )
    config.update_from_flattened_dict(overrides)
    return config.lock()


def start(task, mesh, *, accumulate_steps=1, **fields):
    """Give a new state and the compiled step of a task; fields are the optimizer's."""
    config = make_config(**{f"optimizer.{k}": v for k, v in fields.items()})
    optimizer = make_optimizer(config.optimizer, steps=20)
    abstract = abstract_state(task, mesh, optimizer.transformation)
    state = new_state(task, optimizer.transformation, abstract, seed=0)
    step = make_train_step(
        task.loss,
        optimizer,
        mesh=mesh,
        accumulate_steps=accumulate_steps,
        sample_classes=task.sample_classes,
    )
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    return state, CompiledStep(step, shardings, mesh)


def get_config(arg=None):
    """Serve as a config file too, as the tests of config.py use it."""
    config = make_config()
    if arg:
        with config.unlocked():
            config.task = arg
    return config
