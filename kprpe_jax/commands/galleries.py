"""What the verbs on faces and galleries share."""

import argparse
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# Those of the thesis, in `matching.patch_weights`, which imports JAX.
WEIGHTINGS = ("uniform", "apc", "cc", "sc", "landmarks", "sc_distance")
CANDIDATES = 100


def add_ranking(parser: argparse._ActionsContainer) -> None:
    """--candidates, --alpha, --weighting, --solver, --matcher: the second stage."""
    add = parser.add_argument
    add(
        "--candidates",
        type=int,
        metavar="K",
        help="photos of the gallery whose patches are compared again; 0 = none",
    )
    add(
        "--alpha",
        type=float,
        help="share of the patches' similarity in the score, 0..1 (0.7)",
    )
    add(
        "--weighting",
        choices=WEIGHTINGS,
        help="of the patches in the earth mover's distance (apc)",
    )
    add(
        "--solver",
        metavar="SETTINGS",
        help="of that distance: domain (kernel, log, pallas), epsilon, iterations "
        "(domain=kernel,epsilon=0.05,iterations=100); log is OTT's",
    )
    add(
        "--matcher",
        metavar="SPEC",
        help="in place of that distance: the run of a two-image network, "
        "FOLDER[@best|@last|@STEP], or NAME:FILE",
    )


def load_networks(
    options: argparse.Namespace, *, detect: bool = True
) -> tuple[Any, Any]:
    """The recognizer and the detector that the options name, or that are installed.

    The detector is None where photos are aligned faces, and unless `detect`.
    """
    from kprpe_jax.recognizers import NO_DETECTOR, load_detector, load_recognizer
    from kprpe_jax.weights.installed import default_networks

    style_maps = getattr(options, "style_maps", ())
    model, spec = default_networks(options.model, options.detector)
    recognizer = load_recognizer(model, style_maps=style_maps)
    recognizer = recognizer.with_framing(options.align)
    if spec in (None, NO_DETECTOR) or not detect:
        return recognizer, None
    detector = load_detector(
        spec, min_score=options.min_score, max_side=options.max_side
    )
    return recognizer, detector


def load_gallery_networks(options: argparse.Namespace) -> Any:
    """The networks of a gallery, those that the options name among them."""
    from kprpe_jax.gallery.networks import load_gallery_networks

    return load_gallery_networks(
        options.gallery,
        options.model,
        options.detector,
        align=getattr(options, "align", None),
        style_maps=getattr(options, "style_maps", ()),
        min_score=options.min_score,
        max_side=options.max_side,
    )


def make_matcher(options: argparse.Namespace, header: Any) -> Any:
    """The matcher that the options name, for the patches of a gallery.

    Raises: ValueError: two are named; as `load_matcher` and `check_patches`.
    """
    from kprpe_jax.matching.matchers import EarthMoversMatcher
    from kprpe_jax.matching.patch_weights import DEFAULT_WEIGHTING
    from kprpe_jax.matching.sinkhorn import FAST, parse_solver
    from kprpe_jax.recognizers import load_matcher

    if options.matcher is None:
        weighting = options.weighting or DEFAULT_WEIGHTING
        solver = FAST if options.solver is None else parse_solver(options.solver)
        return EarthMoversMatcher(weighting, header.grid, solver)
    for option in ("weighting", "solver"):
        if getattr(options, option) is not None:
            raise ValueError(
                f"--{option} belongs to the earth mover's distance, which --matcher "
                "replaces; give one of them."
            )
    matcher = load_matcher(options.matcher)
    try:
        matcher.check_patches(header.grid, header.channels)
    except ValueError as error:
        raise ValueError(f"--matcher {options.matcher}: {error}") from error
    return matcher


def check_output(option: str, path: str | None) -> None:
    """Raise ValueError unless a file can be written there."""
    if path is None:
        return
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder) or os.path.isdir(path):
        raise ValueError(
            f"{option} {path}: must name a file in a folder that is there; got another "
            "path; make the folder first."
        )


def show_progress(files: Sequence) -> Iterable:
    """A bar on stderr, if that is a terminal and there is some work."""
    from tqdm import tqdm

    return tqdm(files, unit=" photos", disable=not sys.stderr.isatty(), delay=2)


def say_left_out(rows: Iterable[Any]) -> None:
    """Say on stderr what was left out, and why; rows are `RejectedRecord`s."""
    for row in rows:
        sys.stderr.write(f"left out: {row.key}: {row.reason}\n")


def close_account(
    rows: Iterable[Any],
    *details: str,
    output: str | None = None,
    table: str | None = None,
    account: Any = None,
    **used: int,
) -> None:
    """List what was left out, and write a command's last line.

    Args:
      rows: what was left out, each as a `RejectedRecord`.
      details: what else the line tells.
      output: file or folder that the command has written; the list goes into it or
        beside it. None: there is none, and the list is on stderr alone.
      table: file that takes the list in its place.
      account: counts of many rows, which are not told on stderr; None = `make_account`
        counts them.
      used: of `make_account`.
    """
    from kprpe_jax.data.left_out import left_out_path, make_account, write_left_out

    listed = "on stderr"
    if account is None:
        rows = list(rows)
        say_left_out(rows)
        account = make_account(rows, **used)
    path = table or (output and left_out_path(output))
    if path is not None:
        listed = f"in {path}"
        write_left_out(path, rows)
    parts = [account.describe(), *details]
    if sum(account.left_out.values()):
        parts.append(f"left out: listed {listed}")
    sys.stdout.write("; ".join(parts) + "\n")


def say_notes(notes: Mapping[str, str]) -> None:
    """Say on stderr what else is worth telling of photos."""
    for name, note in notes.items():
        sys.stderr.write(f"note: {name}: {note}\n")


def count(number: int, singular: str, plural: str = "") -> str:
    """A number and its noun."""
    return f"{number} {singular if number == 1 else plural or singular + 's'}"
