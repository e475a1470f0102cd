"""Tune a backbone on the earth mover's similarity itself, and see who is found then.

Source: DeepFace-EMD, Ch. 6 (future work).

    python -m experiments earth_movers_tuning --faces orl_faces.npz \
        --model mobilefacenet:mobilefacenet.npz

The last bottlenecks of MobileFaceNet and its last map learn to match crops of half of
the people with their whole photos, patch by patch; the other half are searched for.
"""

import argparse
import json
import pathlib
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from experiments import options as shared
from kprpe_jax import registry
from kprpe_jax.backbones.mobilefacenet import MobileFaceNet
from kprpe_jax.commands.options import add_model
from kprpe_jax.core.features import Features
from kprpe_jax.core.input_spec import to_unit_range
from kprpe_jax.evaluation.altered import crop_faces
from kprpe_jax.evaluation.retrieval import count_relevant, retrieval
from kprpe_jax.matching.earth_movers import match_faces
from kprpe_jax.matching.matchers import EarthMoversMatcher
from kprpe_jax.matching.sinkhorn import FAST, Solver
from kprpe_jax.matching.two_stage import first_stage, rank_again
from kprpe_jax.recognizers import load_recognizer

_FROZEN = 12  # bottlenecks in front of those that learn
_CROPS = 4  # of each training photo
_TEMPERATURE = 0.05  # of similarities, in the softmax over people
_LEARN = Solver(iterations=50)  # differentiated: OTT's iterations (decision 005)
_RANK = FAST._replace(iterations=50)


class Halves(NamedTuple):
    """Maps in front of the layers that learn.

    Attributes:
      whole: float32 [N, h, w, C], of the photos.
      crops: float32 [versions, N, h, w, C], of random crops.
      labels: int [N].
    """

    whole: np.ndarray
    crops: np.ndarray
    labels: np.ndarray


def read_orl(path: str | pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """Images float32 [N, 112, 96, 3] in [-1, 1] and subjects int [N].

    Raises: ValueError: another file.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            images, labels = file["images"], file["subject"]
    except (OSError, KeyError, ValueError) as e:
        raise ValueError(
            f"read_orl: {path} must be an .npz with images and subject; got {e}"
        ) from e
    images = np.pad(images, ((0, 0), (0, 0), (2, 2)), mode="edge")
    images = np.repeat(images[..., None], 3, -1)
    return to_unit_range(images), labels.astype(np.int32)


def freeze(
    model: MobileFaceNet,
    variables: Any,
    images: np.ndarray,
    labels: np.ndarray,
    crops: int,
    seed: int,
) -> Halves:
    """Run the layers that do not learn, once."""

    def front(network: MobileFaceNet, x: Array) -> Array:
        x, _ = registry.network("mobilefacenet").input_spec.apply(x)
        x = network.conv2(network.conv1(x, False), False)
        for block in network.blocks[:_FROZEN]:
            x = block(x, False)
        return x

    @jax.jit
    def both(images: Array, rng: Array) -> tuple[Array, Array]:
        points = jnp.zeros((len(images), 5, 2))
        cropped, _ = crop_faces(rng, images, points)
        return tuple(model.apply(variables, x, method=front) for x in (images, cropped))

    size, whole, versions = 40, [], []
    for version in range(crops):
        parts = []
        for start in range(0, len(images), size):
            rng = jax.random.fold_in(jax.random.key(seed + version), start)
            plain, cropped = both(images[start : start + size], rng)
            parts.append(np.asarray(cropped))
            if not version:
                whole.append(np.asarray(plain))
        versions.append(np.concatenate(parts))
    return Halves(np.concatenate(whole), np.stack(versions), labels)


def back(model: MobileFaceNet, variables: Any, maps: Array) -> Features:
    """The layers that learn: maps [B, h, w, C] -> faces."""

    def rest(network: MobileFaceNet, x: Array) -> tuple[Array, Array]:
        for block in network.blocks[_FROZEN:]:
            x = block(x, False)
        x = network.conv3(x, False)
        return network.embed_map(x), x

    embeddings, last = model.apply(variables, maps, method=rest)
    return Features(embeddings, last.reshape(len(last), -1, last.shape[-1]))


def tune(
    model: MobileFaceNet,
    variables: Any,
    data: Halves,
    *,
    steps: int,
    people: int,
    seed: int,
) -> tuple[Any, list[float]]:
    """Learn to match crops with other photos of the same person, by the flow.

    Args:
      model, variables: with statistics, which stay as they are.
      data: people to learn from.
      steps: updates.
      people: in a batch.
      seed: of the batches.
    Returns: the variables, and the loss of each step.
    """
    optimizer = optax.adam(3e-4)
    params, rest = variables["params"], {"batch_stats": variables["batch_stats"]}

    def loss(params: Any, queries: Array, gallery: Array) -> Array:
        own = {"params": params, **rest}
        query, other = (back(model, own, x) for x in (queries, gallery))
        query = jax.tree.map(lambda x: x[:, None], query)
        other = jax.tree.map(lambda x: x[None], other)
        score = match_faces(query, other, weighting="uniform", solver=_LEARN).score
        target = jnp.arange(len(score))
        return optax.softmax_cross_entropy_with_integer_labels(
            score / _TEMPERATURE, target
        ).mean()

    @jax.jit
    def step(params: Any, state: Any, queries: Array, gallery: Array) -> tuple:
        value, gradient = jax.value_and_grad(loss)(params, queries, gallery)
        update, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, update), state, value

    rng, losses, state = np.random.default_rng(seed), [], optimizer.init(params)
    known = np.unique(data.labels)
    for _ in range(steps):
        chosen = rng.choice(known, people, replace=False)
        pairs = [
            rng.choice(np.flatnonzero(data.labels == label), 2, replace=False)
            for label in chosen
        ]
        first, second = np.array(pairs).T
        version = rng.integers(len(data.crops))
        queries, gallery = data.crops[version][first], data.whole[second]
        params, state, value = step(params, state, queries, gallery)
        losses.append(value)
    return {"params": params, **rest}, [float(x) for x in losses]


def find(
    model: MobileFaceNet, variables: Any, data: Halves
) -> dict[str, dict[str, float]]:
    """P@1 and MAP@R in percent of crops, the own photo not in the gallery."""
    apply = jax.jit(lambda x: back(model, variables, x))
    faces = [jax.device_get(apply(x)) for x in (data.crops[0], data.whole)]
    own = np.arange(len(data.labels))
    relevant = count_relevant(data.labels, data.labels, without_own=True)
    ranks = int(relevant.max())
    k = min(50, len(own) - 1)
    first = first_stage(*faces, ranks=max(k, ranks), exclude_rows=own)
    matcher = EarthMoversMatcher("uniform", solver=_RANK)
    patches = matcher.score(*faces, first.rows[:, :k])
    figures = {}
    for name, alpha in (("cosine", 0.0), ("mixed", 0.7), ("patches", 1.0)):
        rows = rank_again(first, patches, alpha).rows
        result = retrieval(data.labels[rows], data.labels, relevant)
        figures[name] = {
            "p_at_1": 100 * float(result.precision_at_1.mean()),
            "map_at_r": 100 * float(result.map_at_r.mean()),
        }
    return figures


def table(results: dict[str, Any]) -> str:
    """Before and after, and the loss of the first and the last ten steps."""
    lines = [
        "| ranked by | P@1 | P@1 tuned | MAP@R | MAP@R tuned |",
        "|---|---|---|---|---|",
    ]
    for name, before in results["before"].items():
        after = results["after"][name]
        cells = [
            f"{x[key]:.1f}" for key in ("p_at_1", "map_at_r") for x in (before, after)
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    first, last = (np.mean(results["loss"][part]) for part in (np.s_[:10], np.s_[-10:]))
    return "\n".join(lines) + f"\nloss: {first:.3f} -> {last:.3f}\n"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--faces", metavar="FILE", required=True, help="ORL as .npz")
    add_model(parser)
    shared.add_report(parser, "reports/earth_movers_tuning")
    parser.add_argument("--steps", type=int, default=60, help="of the tuning (60)")
    parser.add_argument("--people", type=int, default=10, help="in a batch (10)")


def run(options: argparse.Namespace) -> None:
    """Run the experiment."""
    images, labels = read_orl(options.faces)
    recognizer = load_recognizer(options.model)
    model, variables = recognizer.module, recognizer.variables
    if not isinstance(model, MobileFaceNet):
        raise ValueError(
            f"--model {options.model}: the last layers of a MobileFaceNet are tuned; "
            f"got a {type(model).__name__}; name a MobileFaceNet."
        )
    learns = labels <= np.median(labels)
    train, test = (
        freeze(model, variables, images[part], labels[part], crops, seed)
        for part, crops, seed in ((learns, _CROPS, 0), (~learns, 1, 100))
    )
    before = find(model, variables, test)
    tuned, losses = tune(
        model, variables, train, steps=options.steps, people=options.people, seed=0
    )
    results = {"before": before, "after": find(model, tuned, test), "loss": losses}
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    sys.stdout.write(table(results))
