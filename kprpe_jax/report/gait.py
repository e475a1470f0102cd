"""Pictures and the table of gait: joints, offsets in windows, what a search found."""

import pathlib
from collections.abc import Sequence

import matplotlib

matplotlib.use("Agg")  # files only, on any machine
import matplotlib.pyplot as plt
import numpy as np
from ml_collections import ConfigDict

from kprpe_jax.layers.windows import Windows, token_places
from kprpe_jax.report.robustness import Layout, numbered_evaluators

_GRAY, _RED = 150, np.array([255, 60, 40], np.uint8)


def layout(evals: ConfigDict) -> Layout:
    """Report of an experiment on encodings for gait.

    Source: KP-RPE, Table 5; the conditions are ours.
    Args:
      evals: section of a config, whose evaluators are shown.
    """
    columns = [
        ("aligned/rank_1", "rank-1"),
        ("aligned/rank_5", "rank-5"),
        ("aligned/rank_10", "rank-10"),
        ("aligned/map", "mAP"),
        ("aligned/minp", "mINP"),
    ]
    misaligned = numbered_evaluators(evals, "misaligned", "severity")
    noise = numbered_evaluators(evals, "noise", "alpha")
    missing = numbered_evaluators(evals, "missing", "missing")
    columns += [(f"{n}/rank_1", f"misaligned, {s:g}") for s, n in misaligned.items()]
    columns += [(f"{n}/rank_1", f"joints off, {a:g}") for a, n in noise.items()]
    columns += [
        (f"{name}/rank_1", f"{100 * share:.0f} % of joints missing")
        for share, name in missing.items()
    ]
    columns.append(("swapped/rank_1", "swapped joints"))
    places = {0.0: "aligned", **misaligned}
    places = {s: f"{name}/rank_1" for s, name in places.items()}
    return Layout(
        title="Gait with and without keypoint-relative attention",
        text="Retrieval of held-out identities, in percent, mean ± "
        "standard deviation over seeds, of the last checkpoint; from the column "
        "misaligned on rank-1. Misaligned at severity 1: turned by up to 30 degrees, "
        "scaled by 0.75 to 1.25, shifted by 15 % of the side, each sequence by "
        "itself.",
        columns=columns,
        severity=lambda results: places,
        severity_label="severity of rotation, scale and shift",
        curves={"aligned_over_steps.png": "aligned/rank_1"},
    )


def with_joints(silhouette: np.ndarray, joints: np.ndarray) -> np.ndarray:
    """Paint joints into a silhouette.

    Args:
      silhouette: uint8 [H, W].
      joints: float [K, 2], fractions of the frame; those outside leave no mark.
    Returns: uint8 [H, W, 3]: the person gray, the joints red.
    """
    height, width = silhouette.shape
    y, x = np.indices((height, width)) + 0.5
    apart = np.square(x - joints[:, 0, None, None] * width)
    apart += np.square(y - joints[:, 1, None, None] * height)
    near = (apart <= (height / 60) ** 2).any(0)[..., None]
    gray = np.repeat((silhouette * (_GRAY / 255)).astype(np.uint8)[..., None], 3, -1)
    return np.where(near, _RED, gray)


def plot_window_offsets(
    biases: Sequence[np.ndarray],
    plans: Sequence[Windows],
    silhouettes: np.ndarray,
    joints: np.ndarray,
    path: str | pathlib.Path,
    *,
    query: tuple[int, int],
    head: int = 0,
    titles: Sequence[str] = (),
) -> None:
    """Draw what one token's window adds to its attention, for several frames.

    A row per frame: the silhouette, then for each block the offsets to the keys of the
    query's window, darker = attended more; all other tokens are empty. The star is the
    query, dots are the joints.

    Args:
      biases: per block, float32 [frames, windows, heads, n, n], from `SwinGait.bias`.
      plans: per block, how it cuts its map, without padding.
      silhouettes: uint8 [frames, H, W].
      joints: [frames, K, 2], fractions of the frame.
      path: of the picture.
      query: (row, column) of the token.
      head: which to draw.
      titles: one per block, or none.
    Raises: ValueError: the query lies outside the map.
    """
    rows, columns = plans[0].grid
    if not (0 <= query[0] < rows and 0 <= query[1] < columns):
        raise ValueError(
            f"plot_window_offsets: query must lie on the {rows} x {columns} map; got "
            f"{query}; choose another"
        )
    count = len(silhouettes), 1 + len(biases)
    aspect = silhouettes.shape[1] / silhouettes.shape[2]
    figure, axes = plt.subplots(
        *count, figsize=(1.5 * count[1], 1.5 * aspect * count[0]), squeeze=False
    )
    for frame, (silhouette, points) in enumerate(zip(silhouettes, joints, strict=True)):
        picture = axes[frame, 0]
        picture.imshow(silhouette, cmap="gray", extent=(0, 1, 1, 0), aspect="auto")
        _mark(picture, points, query, (rows, columns))
        for block, (bias, plan) in enumerate(zip(biases, plans, strict=True)):
            axis = axes[frame, 1 + block]
            offsets = _on_map(np.asarray(bias[frame, :, head]), plan, query)
            axis.imshow(
                silhouette,
                cmap="gray_r",
                alpha=0.15,
                extent=(0, 1, 1, 0),
                aspect="auto",
            )
            axis.imshow(
                offsets, cmap="Blues", extent=(0, 1, 1, 0), aspect="auto", alpha=0.85
            )
            _mark(axis, points, query, (rows, columns))
            if frame == 0 and titles:
                axis.set_title(titles[block], fontsize=7)
    figure.tight_layout(pad=0.3)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _on_map(bias: np.ndarray, plan: Windows, query: tuple[int, int]) -> np.ndarray:
    """Offsets [rows, columns] of the query's window; NaN outside, or masked."""
    places = token_places(plan)
    window, token = np.argwhere((places == np.array(query)).all(-1))[0]
    keys = places[window]
    wrapped = keys < np.array(plan.shift)
    seen = (wrapped == wrapped[token]).all(-1) & (keys < np.array(plan.grid)).all(-1)
    offsets = np.full(plan.grid, np.nan)
    offsets[tuple(keys[seen].T)] = bias[window, token, seen]
    return offsets


def _mark(axis, points: np.ndarray, query: tuple[int, int], grid: tuple[int, int]):
    axis.scatter(*points.T, s=4, c="tab:orange", linewidths=0)
    y, x = ((place + 0.5) / side for place, side in zip(query, grid, strict=True))
    axis.scatter([x], [y], marker="*", s=30, color="red")
    axis.set(xlim=(0, 1), ylim=(1, 0), xticks=[], yticks=[])
