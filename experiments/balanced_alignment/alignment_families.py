"""How much alignment each family of warps can do, and what it leaves of the person.

No network: every warp is fitted to the labeled landmarks by least squares, so it is
the strongest of its family (Balanced Alignment, Sec. 3.1); an 8 x 8 spline as strong as
its stiffness allows. People are then told apart by the aligned landmarks alone, which
hold what alignment takes away: the shape.

    python -m experiments alignment_families
"""

import argparse
import pathlib
import sys
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from experiments import options as shared
from kprpe_jax.alignment import warps
from kprpe_jax.alignment.template import frontal_template
from kprpe_jax.commands.options import add_data_dir
from kprpe_jax.data import store
from kprpe_jax.data.prepare import prepare
from kprpe_jax.data.synthetic.landmarks import KEYPOINTS
from kprpe_jax.evaluation.alignment_strength import alignment_nme
from kprpe_jax.evaluation.evaluators.aligned_recognition import rank_1
from kprpe_jax.evaluation.misaligned import misalign
from kprpe_jax.geometry import affine
from kprpe_jax.geometry import thin_plate_spline as tps
from kprpe_jax.geometry.point_fits import fit_affine, fit_similarity
from kprpe_jax.report.alignment import plot_points

# As configs/balanced_alignment.py:small; landmarks do not depend on the size.
_BUILDER = dict(
    num_identities=200, num_test_identities=100, images_per_identity=20, size=32
)
_GRIDS = (2, 3, 4, 6, 8)
_LEAST_STIFFNESS = 1e-3  # keeps splines of many points from folding
_STIFFNESS = (1.0, 0.1, 0.01)

Align = Callable[[jax.Array], jax.Array]


def families(template: np.ndarray) -> dict[str, Align]:
    """Functions from landmarks [N, S, 2] to the aligned ones, in [-1, 1].

    Args:
      template: [S, 2], in [-1, 1].
    """

    def fitted(fit: Callable, index: np.ndarray) -> Align:
        def align(faces: jax.Array) -> jax.Array:
            target = jnp.broadcast_to(template[index], (len(faces), len(index), 2))
            return affine.apply(fit(faces[:, index], target), faces)

        return align

    everything = np.arange(len(template))
    result = {
        "none": lambda faces: faces,
        "similarity, 5 points": fitted(fit_similarity, KEYPOINTS),
        "affine, 5 points": fitted(fit_affine, KEYPOINTS),
        "similarity": fitted(fit_similarity, everything),
        "affine": fitted(fit_affine, everything),
    }
    for n in _GRIDS:
        result[f"tps {n} x {n}"] = _spline(template, n, _LEAST_STIFFNESS)
    for stiffness in _STIFFNESS:
        name = f"tps 8 x 8, stiffness {stiffness:g}"
        result[name] = _spline(template, 8, stiffness)
    result["full align"] = lambda faces: warps.landmark_warp(
        "full_align", faces, template, ()
    ).to_output(faces)
    return result


def _spline(template: np.ndarray, side: int, stiffness: float) -> Align:
    """The spline that takes the template nearest to the landmarks without bending much.

    Where the template's points go is linear in the displacements d of the control
    points, B d, and the bending energy of Bookstein's spline is d' E d with E a part of
    the solved kernel system: the best d of |B d - r|^2 + stiffness d' E d is linear in
    what is to be met, r.
    """
    spline = tps.make_spline(tps.control_grid(side, side))
    count = side * side
    # The columns of B are where the template's points go by unit displacements.
    units = jnp.zeros((count, count, 2)).at[:, :, 0].set(jnp.eye(count))
    points = jnp.broadcast_to(template, (count, *template.shape))
    moved = jax.jit(tps.warp_points)(spline, units, points)
    basis = np.asarray(moved[..., 0], np.float64).T - template[:, :1]  # [S, M]
    energy = spline.operator[:count]
    system = basis.T @ basis + stiffness * energy
    solve = np.linalg.pinv(system) @ basis.T  # [M, S]

    def align(faces: jax.Array) -> jax.Array:
        displacements = jnp.einsum(
            "ms,nsc->nmc", np.float32(solve), faces - template, precision="highest"
        )
        return warps.spline_warp(spline, displacements).to_output(faces)

    return align


def measure(
    faces: np.ndarray, labels: np.ndarray, template: np.ndarray
) -> dict[str, tuple[float, float]]:
    """ANME and rank-1 by the aligned landmarks, of every family.

    Args:
      faces: [N, S, 2], in [-1, 1].
      labels: int [N]; each person's first row is the gallery.
      template: [S, 2], in [-1, 1].
    Returns: name -> (ANME, rank-1 by the cosine of landmarks less their mean).
    """
    eyes = tuple(KEYPOINTS[:2].tolist())
    results = {}
    for name, align in families(template).items():
        aligned = np.asarray(jax.jit(align)(faces), np.float64)
        shapes = (aligned - aligned.mean(0)).reshape(len(faces), -1)
        results[name] = (alignment_nme(aligned, eyes=eyes), rank_1(shapes, labels))
    return results


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_data_dir(parser)
    parser.set_defaults(data_dir="data/small")
    parser.add_argument(
        "--severity", type=float, default=1.0, help="of the misalignment (1)"
    )
    shared.add_picture(parser, "docs/figures/alignment_families.png")


def run(options: argparse.Namespace) -> None:
    """Measure, print a table and draw the plot."""
    prepare("synthetic_faces", options.data_dir, **_BUILDER)
    train, test = (
        store.open_split(options.data_dir, "synthetic_faces", split)
        for split in ("train", "test")
    )
    rows = test.__getitems__(range(len(test)))
    points = np.stack([row["landmarks"] for row in rows])
    labels = np.array([row["label"] for row in rows])
    frame = jnp.zeros((len(points), 2, 2, 3))
    moved = misalign(jax.random.key(0), frame, points, options.severity)[1]
    first = train.__getitems__(range(min(len(train), 2000)))
    template = frontal_template(
        np.stack([row["landmarks"] for row in first]), tuple(KEYPOINTS[:3].tolist())
    )
    results = measure(np.asarray(2 * moved - 1), labels, 2 * template - 1)
    sys.stdout.write("| warp | ANME | rank-1, % |\n|---|---|---|\n")
    for name, (anme, rank) in results.items():
        sys.stdout.write(f"| {name} | {anme:.3f} | {100 * rank:.1f} |\n")
    output = pathlib.Path(options.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    plot_points({n: (a, 100 * r) for n, (a, r) in results.items()}, output)
