"""What face tasks share: rows, their check, augmentation, and evaluators."""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh
from ml_collections import ConfigDict

from kprpe_jax.augmentation.recipe import Recipe, make_recipe
from kprpe_jax.augmentation.sharded import augment_sharded
from kprpe_jax.augmentation.spatial import FACE_MIRROR
from kprpe_jax.core.input_spec import to_unit_range
from kprpe_jax.data import order
from kprpe_jax.data.check import check_batch
from kprpe_jax.data.faces import FaceRows, landmarks_of, open_faces
from kprpe_jax.data.landmark_layouts import mirror_order
from kprpe_jax.data.store import open_split
from kprpe_jax.data.synthetic.landmarks import MIRROR
from kprpe_jax.detection.mesh_mirror import MESH_MIRROR
from kprpe_jax.evaluation.altered import wear_mask
from kprpe_jax.evaluation.evaluators import Evaluator, build_evaluators
from kprpe_jax.evaluation.evaluators.faces import FaceData
from kprpe_jax.tasks.task import TrainingRows

# Number of keypoints -> the points of a mirrored face, for those that are known.
MIRRORS = {
    5: FACE_MIRROR,
    68: tuple(MIRROR[:68].tolist()),  # iBUG's
    len(MIRROR): tuple(MIRROR.tolist()),
    len(MESH_MIRROR): MESH_MIRROR,
}
_MIRROR_ROWS = 2048  # whose landmarks show which mirror which


def open_training(
    config: ConfigDict, seed: int, *, needs_keypoints: bool = False
) -> TrainingRows:
    """The config's training identities: shuffled or balanced, some rows repeated.

    Reads data: dir, name, train_split, image_shape; where they are there
    train_identities ((first, last), () = all), images_per_identity (0 = shuffled) and
    repeat_probability.

    Args:
      config: of the run.
      seed: of the order.
      needs_keypoints: of `open_people`.
    """
    data = config.data
    people = data.get("train_identities", ())
    source = open_people(
        config, data.train_split, people, needs_keypoints=needs_keypoints
    )
    rows = order.shuffled(len(source), seed=seed)
    if count := data.get("images_per_identity", 0):
        rows = order.balanced(source.labels(), images_per_identity=count, seed=seed)
    if probability := data.get("repeat_probability", 0):
        rows = order.repeated(rows, probability=probability, seed=seed)
    return TrainingRows(source, rows)


def open_people(
    config: ConfigDict,
    split: str,
    identities: Sequence[int] = (),
    *,
    needs_keypoints: bool = False,
) -> FaceRows:
    """The rows of a split of the config's data set.

    Reads data: dir, name, image_shape, points (field that the keypoints come from).

    Args:
      config: of the run.
      split: name.
      identities: (first, last), () = all people.
      needs_keypoints: every row that is read must have keypoints, as where the network
        reads them.
    Raises: ValueError: as `open_faces`; a row without keypoints.
    """
    data = config.data
    return open_faces(
        data.dir,
        data.name,
        split,
        image_size=tuple(data.image_shape[:2]),
        identities=tuple(identities) or None,
        points=data.points,
        needs_keypoints=needs_keypoints,
    )


def batch_check(config: ConfigDict) -> Callable[[dict[str, np.ndarray]], None]:
    """`check_batch` with the sizes of the config's data."""
    data = config.data
    return partial(
        check_batch,
        num_classes=data.num_classes,
        image_shape=tuple(data.image_shape),
        num_keypoints=data.num_keypoints,
    )


def row(config: ConfigDict) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of a row, as the loader gives it."""
    data = config.data
    return {
        "image": jax.ShapeDtypeStruct(tuple(data.image_shape), np.uint8),
        "label": jax.ShapeDtypeStruct((), np.int32),
        "keypoints": jax.ShapeDtypeStruct((data.num_keypoints, 2), np.float32),
        "has_keypoints": jax.ShapeDtypeStruct((), np.bool_),
    }


def augmentation(
    config: ConfigDict, mesh: Mesh
) -> Callable[[dict[str, Array], Array], tuple[Array, Array]]:
    """Build the augmentation that the config's section `augmentation` states.

    Reads augmentation: preset, changes of its parts (`make_recipe`), and where it is
    there mask_prob, the share of faces that wear a surgical mask (DeepFace-EMD's
    fine-tuning); data.num_keypoints, where the data have others than the five of a
    face. The mirror images of landmarks whose layout is not in MIRRORS are seen in the
    training images (`mirror_order`).

    Returns: (batch, rng) -> images float32 [B, H, W, 3] in [-1, 1], keypoints float32
      [B, K, 2], NaN where the batch's keypoint_mask has none.
    Raises: ValueError: as `make_recipe`; flips of points whose mirror images are not
      known; masks on faces of other than five points.
    """
    mask_prob = config.augmentation.get("mask_prob", 0.0)
    count = config.data.get("num_keypoints", len(FACE_MIRROR))
    recipe = read_recipe(config)
    mirror = MIRRORS.get(count, tuple(range(count)))
    if count not in MIRRORS and recipe.spatial.flip_prob > 0:
        mirror = _seen_mirror(config)
    if not 0 <= mask_prob <= 1 or (mask_prob and count != len(FACE_MIRROR)):
        raise ValueError(
            "config.augmentation.mask_prob must lie in 0..1, and be 0 where faces have "
            f"other than five keypoints; got {mask_prob} with {count} keypoints"
        )

    def augmented(batch: dict[str, Array], rng: Array) -> tuple[Array, Array]:
        arrays = batch["image"], batch["keypoints"]
        if "keypoint_mask" in batch:  # so the mask goes along with the points
            known = batch["keypoint_mask"][..., None]
            arrays = arrays[0], jnp.where(known, arrays[1], jnp.nan)
        if mask_prob:
            rng, mask_rng = jax.random.split(rng)
            arrays = _wear_masks(mask_rng, batch, mask_prob), arrays[1]
        return augment_sharded(rng, *arrays, recipe, mesh=mesh, mirror=mirror)

    return augmented


def _seen_mirror(config: ConfigDict) -> tuple[int, ...]:
    """Which landmarks of the training images mirror each other."""
    data = config.data
    source = open_split(data.dir, data.name, data.train_split)
    step = -(-len(source) // _MIRROR_ROWS)
    rows = source.__getitems__(range(0, len(source), step))
    shapes = [landmarks_of(row, data.points) for row in rows]
    shapes = np.stack([shape for shape in shapes if np.isfinite(shape).any()] or shapes)
    order = mirror_order(shapes) if shapes.shape[1] == data.num_keypoints else None
    if order is None:
        raise ValueError(
            f"config.augmentation: the mirror images of {data.num_keypoints} landmarks "
            f"are not known (of {sorted(MIRRORS)} they are, and of others where those "
            "of the training images lie alike on both sides), so nothing can be "
            "flipped; set changes.spatial.flip_prob to 0"
        )
    return order


def _wear_masks(rng: Array, batch: dict[str, Array], share: float) -> Array:
    """Draw masks on a share of the faces whose keypoints are known.

    Returns: images float32 [B, H, W, 3] in [-1, 1].
    """
    images = to_unit_range(batch["image"])
    choice_rng, mask_rng = jax.random.split(rng)
    chosen = jax.random.uniform(choice_rng, (len(images),)) < share
    chosen &= batch.get("has_keypoints", True)
    masked, _ = wear_mask(mask_rng, images, batch["keypoints"])
    return jnp.where(chosen[:, None, None, None], masked, images)


def read_recipe(config: ConfigDict) -> Recipe:
    """The recipe of the config's section `augmentation`; raises as `make_recipe`."""
    options = config.augmentation
    return make_recipe(options.preset, **options.changes.to_dict())


def evaluators(config: ConfigDict, *, needs_keypoints: bool) -> dict[str, Evaluator]:
    """The evaluators of faces that `config.evals` names, for a `Recognizer`.

    Args:
      config: reads data and evals.
      needs_keypoints: whether the recognizer reads keypoints.
    Raises: ValueError: as `build_evaluators`.
    """
    data = FaceData.of(config, needs_keypoints=needs_keypoints)
    return build_evaluators(config.evals, "faces", data)
