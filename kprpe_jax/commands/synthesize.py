"""Render a data set of synthetic faces or walkers, or prepare scikit-learn's digits.

    kprpe-jax synthesize faces --num-identities 1000 --data-dir data/more

KIND is faces, walkers or digits. Everything depends on the numbers given here alone.
Training by a config that uses such a data set renders it by itself; a data set that is
there already is kept, and refused if it was made from other numbers.
"""

import argparse
import sys

from kprpe_jax.commands import options as shared

DATA_SETS = {  # kind -> key of registry.DATA_SETS, also its default name
    "faces": "synthetic_faces",
    "walkers": "synthetic_walkers",
    "digits": "digits",
}
_BOTH = ("num_identities", "num_test_identities", "seed", "difficulty", "size")
ARGUMENTS = {
    "faces": (*_BOTH, "images_per_identity", "layout"),
    "walkers": (*_BOTH, "sequences_per_identity", "num_frames"),
    "digits": (),
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options; None where the data set's own default applies."""
    parser.usage = "kprpe-jax synthesize KIND [options]"
    add = parser.add_argument
    add("kind", choices=DATA_SETS, metavar="KIND", help="what to render")
    add("--name", help="of the data set (synthetic_faces, synthetic_walkers, digits)")
    shared.add_data_dir(parser)

    add = parser.add_argument_group("faces and walkers").add_argument
    number = {"metavar": "N", "type": shared.positive}
    add("--num-identities", **number, help="people of the split train (500, 100)")
    add("--num-test-identities", **number, help="others, of the split test (100)")
    add("--seed", metavar="N", type=int, help="of all people and images (0)")
    add("--difficulty", metavar="X", type=float,
        help="0 = clean, 1 = ordinary (the default), 2 = hard")  # fmt: skip
    add("--size", **number, help="side (112) or height (32), pixels")

    add = parser.add_argument_group("faces").add_argument
    add("--images-per-identity", **number, help="images of each person (20)")
    add("--layout", choices=("aligned", "free"),
        help="aligned (the default), or anywhere in the image")  # fmt: skip

    add = parser.add_argument_group("walkers").add_argument
    add("--sequences-per-identity", **number, help="sequences of each person (6)")
    add("--num-frames", **number, help="frames of a sequence (16)")


def run(options: argparse.Namespace) -> None:
    """Run the synthesize command."""
    every = {name for names in ARGUMENTS.values() for name in names}
    given = {n: getattr(options, n) for n in sorted(every)}
    given = {name: value for name, value in given.items() if value is not None}
    if other := [name for name in given if name not in ARGUMENTS[options.kind]]:
        raise ValueError(
            f"--{other[0].replace('_', '-')}: is no option of {options.kind}; leave it "
            "out"
        )
    from kprpe_jax.data import store
    from kprpe_jax.data.prepare import prepare

    data_set = DATA_SETS[options.kind]
    name = options.name or data_set
    path = prepare(name, options.data_dir, builder=data_set, **given)
    counts = {
        split: len(store.open_split(options.data_dir, name, split))
        for split in ("train", "test")
    }
    rows = ", ".join(f"{split} {count} rows" for split, count in counts.items())
    sys.stdout.write(f"{name}: {rows}; in {path}\n")
