"""How far apart the keypoints of two data sets of the same images are.

Such as those of a landmark table and those that a detector found. Errors are mean
distances over the five points, in eye distances of the first data set.

    python -m experiments keypoint_agreement --data-dir data \
        --first lfw --second lfw_retinaface
"""

import argparse
import sys

import numpy as np

from kprpe_jax.commands.options import add_data_dir
from kprpe_jax.data.importers.decode import decode_rgb
from kprpe_jax.data.store import open_split
from kprpe_jax.evaluation.landmarks import (
    eye_distance,
    normalized_errors,
    summarize_errors,
)

_READ_AT_ONCE = 1024


def read_points(data_dir: str, name: str, split: str) -> dict[bytes, np.ndarray]:
    """Keypoints in pixels, float64 [5, 2], of each row by its key; NaN = unknown."""
    rows = open_split(data_dir, name, split)
    points = {}
    for start in range(0, len(rows), _READ_AT_ONCE):
        for row in rows.__getitems__(
            range(start, min(start + _READ_AT_ONCE, len(rows)))
        ):
            height, width = decode_rgb(row["image"].item()).shape[:2]
            known = row["keypoints"].astype(np.float64) * (width, height)
            points[row["key"].item()] = (
                known if row["has_keypoints"] else known * np.nan
            )
    return points


def compare(
    first: dict[bytes, np.ndarray], second: dict[bytes, np.ndarray]
) -> tuple[dict[str, float], np.ndarray]:
    """Compare the keypoints of images that both data sets have.

    Returns: the summary of `evaluation.landmarks` with `p95`, the error that 95 % of
      images stay below; the median distance of each point, float64 [5].
    Raises: ValueError: no image whose keypoints both know.
    """
    keys = [k for k, p in first.items() if k in second and not np.isnan(p).any()]
    true, other = (
        np.reshape([points[key] for key in keys], (-1, 5, 2))
        for points in (first, second)
    )
    found = ~np.isnan(other).any((1, 2))
    if not found.any():
        raise ValueError(
            "keypoint_agreement: the data sets must share images whose keypoints both "
            f"know; got {len(keys)} known to the first one, 0 of them to the second; "
            "compare data sets of the same images"
        )
    errors = normalized_errors(
        np.nan_to_num(other), true, eye_distance(true), found=found
    )
    summary = summarize_errors(errors)
    summary["p95"] = float(np.quantile(errors[found], 0.95))
    apart = np.linalg.norm(other - true, axis=-1) / eye_distance(true)[:, None]
    return summary, np.median(apart[found], axis=0)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_data_dir(parser)
    parser.add_argument(
        "--first", metavar="NAME", required=True, help="data set of the true keypoints"
    )
    parser.add_argument(
        "--second", metavar="NAME", required=True, help="data set to compare with it"
    )
    parser.add_argument("--split", default="train", help="of both (train)")


def run(options: argparse.Namespace) -> None:
    """Compare the keypoints and print the figures."""
    first, second = (
        read_points(options.data_dir, name, options.split)
        for name in (options.first, options.second)
    )
    summary, by_point = compare(first, second)
    sys.stdout.write(
        f"{summary['count']} images, {summary['missing']} without keypoints in "
        f"{options.second}; distance over eye distance: median "
        f"{100 * summary['median']:.1f} %, mean {100 * summary['nme']:.1f} %, 95 % "
        f"below {100 * summary['p95']:.1f} %, above 10 %: "
        f"{100 * summary['failure_rate']:.1f} % of images; medians of eyes, nose and "
        f"mouth corners: {', '.join(f'{100 * point:.1f}' for point in by_point)} %\n"
    )
