"""Check a batch on the host before anything is computed with it."""

import numpy as np

# A keypoint further out than one image size is a unit error, not a bad detection.
KEYPOINT_RANGE = (-1.0, 2.0)


def check_batch(
    batch: dict[str, np.ndarray],
    *,
    num_classes: int,
    image_shape: tuple[int, int, int],
    num_keypoints: int,
) -> None:
    """Raise unless a batch of the loader is what the model was built for.

    Looks at every label and keypoint and at the images' shape and type; a few
    tens of microseconds. Padding rows (mask False) are looked at too: they are
    copies of a real row.

    Args:
      batch: image uint8 [b, h, w, c], label int32 [b], keypoints float32 [b, K, 2];
        id int32 [b], if there, names the rows in messages.
      num_classes: labels must be 0 <= label < num_classes.
      image_shape: (h, w, c).
      num_keypoints: K.
    Raises: ValueError: a missing entry; another image size, number of channels or
      type; another number of keypoints; keypoints that are NaN, infinite or
      outside [-1, 2]; labels out of range.
    """
    missing = sorted({"image", "label", "keypoints"} - set(batch))
    if missing:
        raise ValueError(
            f"check_batch: a batch must have image, label and keypoints; {missing} "
            f"missing, got {sorted(batch)}; choose a data set that has them"
        )
    images, labels, points = batch["image"], batch["label"], batch["keypoints"]
    ids = batch.get("id", np.arange(len(labels)))
    if images.shape[1:] != tuple(image_shape) or images.dtype != np.uint8:
        raise ValueError(
            f"check_batch: images must be uint8 [b, {_sizes(image_shape)}]; got "
            f"{images.dtype} {list(images.shape)}; prepare the data set in this size "
            "or change the config"
        )
    if points.shape != (len(images), num_keypoints, 2):
        raise ValueError(
            f"check_batch: keypoints must be [{len(images)}, {num_keypoints}, 2]; got "
            f"{list(points.shape)}; change the model's number of keypoints or the data"
        )
    if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"check_batch: labels must be integers [{len(images)}]; got {labels.dtype} "
            f"{list(labels.shape)}; give one class number per image"
        )
    bad = (labels < 0) | (labels >= num_classes)
    if bad.any():
        raise ValueError(
            f"check_batch: labels must be 0..{num_classes - 1}; got "
            f"{_some(labels[bad])} in rows with id {_some(ids[bad])}; change the "
            "number of classes or the data"
        )
    low, high = KEYPOINT_RANGE
    bad = ~((points >= low) & (points <= high)).all(axis=(1, 2))  # NaN is bad, too
    if bad.any():
        worst = points[bad].reshape(int(bad.sum()), -1)
        worst = worst[~((worst >= low) & (worst <= high))]
        raise ValueError(
            f"check_batch: keypoints must be finite and within [{low:g}, {high:g}], in "
            f"fractions of width and height; got {_some(worst)} in rows with id "
            f"{_some(ids[bad])}; repair these rows"
        )


def _sizes(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))


def _some(values: np.ndarray) -> str:
    """List a few values, and say that there are more."""
    shown = ", ".join(f"{value:g}" for value in values[:5])
    return f"[{shown}, ... {len(values)} in all]" if len(values) > 5 else f"[{shown}]"
