"""Type `verification`: pairs of faces that lie badly, or whose keypoints are wrong.

Source: KP-RPE, Sec. 4.2 (aligned and unaligned test sets), Eq. 12 and Fig. 6 (error of
the keypoints); the distortion is ours.
"""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.data.keypoints import perturb_keypoints
from kprpe_jax.evaluation.embedding import Treatment, embed
from kprpe_jax.evaluation.evaluators import Evaluator
from kprpe_jax.evaluation.evaluators.faces import FaceData
from kprpe_jax.evaluation.misaligned import check_severities, misalign
from kprpe_jax.evaluation.pairs import Pairs
from kprpe_jax.evaluation.roc import resolved_rates, roc_curve, tar_at_far
from kprpe_jax.evaluation.scores import pair_distance
from kprpe_jax.evaluation.verification import fold_accuracy

KEYPOINTS = ("moved", "swapped")
NOISES = ("uniform", "scale")


def build(
    data: FaceData,
    *,
    dataset: str = "",
    split: str = "train",
    identities: tuple = (),
    pairs: int = 0,
    severity: float = 0.0,
    keypoints: str = "moved",
    alphas: tuple = (),
    mirror: str = "sum",
) -> Evaluator | None:
    """Build the evaluator.

    How a row is misaligned depends on the row and the batch size alone, so every
    network and every mesh sees the same pairs. Conditions that differ only in their
    numbers share one compiled program.

    Args:
      data: of the run.
      dataset: "" = that of training.
      split: of the data set.
      identities: held-out identities, (first, last); () = all.
      pairs: how many are sampled; 0 = the official pairs of the data set.
      severity: of `misalign`.
      keypoints: `moved` along with the face, or `swapped` between the images of a
        batch, which shows how much a network relies on them.
      alphas: keypoint errors, Eq. 12; each literally (`scale`) and as random noise
        (`uniform`).
      mirror: of `embed`.
    Returns: function (recognizer, mesh) -> accuracy over the folds of the pairs, its
      standard deviation over them and, where there are 100 impostor pairs, TAR at FAR
      1e-2; with alphas {NOISE_ALPHA: accuracy}; and the number of pairs. None for a
      network without keypoints where the evaluator is about them.
    Raises: ValueError: a value out of its range; a batch of one row whose keypoints
      are to be swapped; as `FaceData.open_pairs`.
    """
    check_severities([severity])
    if keypoints not in KEYPOINTS:
        raise ValueError(
            f"keypoints must be one of {', '.join(KEYPOINTS)}; got {keypoints!r}."
        )
    if not data.needs_keypoints and (keypoints != "moved" or alphas):
        return None
    if keypoints == "swapped" and data.batch_size < 2:
        raise ValueError(
            "config.evals.batch_size must be at least 2, as keypoints are swapped "
            f"between the images of a batch; got {data.batch_size}."
        )
    faces, listed = data.open_pairs(dataset, split, identities, pairs)
    faces, listed = of_pairs(faces, listed)
    options = dict(batch_size=data.batch_size, mirror=mirror)

    def verify(
        recognizer: Recognizer, mesh: Mesh, alpha: float, noise: str
    ) -> dict[str, float]:
        found = embed(
            recognizer,
            faces,
            mesh=mesh,
            treatment=_distort(keypoints, noise),
            arguments=(np.float32(severity), np.float32(alpha)),
            **options,
        )
        return verify_sampled(found.embeddings, listed)

    def evaluate(recognizer: Recognizer, mesh: Mesh) -> dict[str, float]:
        if alphas:
            found = {
                f"{noise}_{alpha:g}": verify(recognizer, mesh, alpha, noise)["accuracy"]
                for noise in NOISES
                for alpha in alphas
            }
        else:
            found = verify(recognizer, mesh, 0.0, NOISES[0])
        return {**found, "pairs": len(listed.same)}

    return evaluate


def of_pairs(faces, pairs: Pairs):
    """Only the rows that the pairs name, and the pairs of these."""
    rows = np.unique(np.concatenate([pairs.first, pairs.second]))
    first, second = (np.searchsorted(rows, side) for side in pairs[:2])
    return faces.select(rows), pairs._replace(first=first, second=second)


def verify_sampled(embeddings: np.ndarray, pairs: Pairs) -> dict[str, float]:
    """Accuracy, its deviation over the folds, and TAR at FAR 1e-2 where it is known."""
    sides = embeddings[pairs.first], embeddings[pairs.second]
    distance = np.asarray(pair_distance(*sides))
    folds = fold_accuracy(distance, pairs.same, num_folds=pairs.num_folds)
    numbers = {"accuracy": folds.mean, "std": folds.std}
    if fars := resolved_rates([1e-2], (~pairs.same).sum()):
        tar = tar_at_far(roc_curve(-distance, pairs.same), fars)
        numbers["tar_at_far_1e-2"] = float(tar.tar[0])
    return numbers


@cache
def _distort(keypoints: str, noise: str) -> Treatment:
    """The treatment of a kind; one object each, so that it is compiled once."""

    def distort(
        rng: Array, images: Array, points: Array, numbers: tuple[Array, Array]
    ) -> tuple[Array, Array]:
        severity, alpha = numbers
        images, points = misalign(rng, images, points, severity)
        if keypoints == "swapped":
            points = jnp.roll(points, 1, axis=0)
        points = perturb_keypoints(
            jax.random.fold_in(rng, 1), points, alpha=alpha, noise=noise
        )
        return images, points

    return distort
