"""Render a data set of synthetic faces or walkers, or photos; or prepare digits.

    kprpe-jax synthesize faces --num-identities 1000 --data-dir data/more
    kprpe-jax synthesize photos --output FOLDER

KIND is faces, walkers, digits (scikit-learn's) or photos: portraits of people in
FOLDER/people, group photos of them and of strangers in FOLDER/questions, and who is
where in FOLDER/truth.csv. Everything depends on the numbers given here alone.
Training by a config that uses such a data set renders it by itself; a data set that is
there already is kept, and refused if it was made from other numbers.
"""

import argparse
import sys
from typing import Any

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
    "photos": (*_BOTH, "images_per_identity", "faces_per_photo", "output"),
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options; None where the data set's own default applies."""
    parser.usage = "kprpe-jax synthesize KIND [options]"
    add = parser.add_argument
    add("kind", choices=ARGUMENTS, metavar="KIND", help="what to render")
    add("--name", help="of the data set (synthetic_faces, synthetic_walkers, digits)")
    shared.add_data_dir(parser)
    shared.add_output(parser, "folder to make, of photos")

    add = parser.add_argument_group("faces, walkers and photos").add_argument
    number = {"metavar": "N", "type": shared.positive}
    add("--num-identities", **number,
        help="people of the split train (500, 100), with portraits (12)")  # fmt: skip
    add("--num-test-identities", **number,
        help="others, of the split test (100), or strangers of photos (3)")  # fmt: skip
    add("--seed", metavar="N", type=int, help="of all people and images (0)")
    add("--difficulty", metavar="X", type=float,
        help="0 = clean, 1 = ordinary (the default; photos 0.5), 2 = hard")  # fmt: skip
    add("--size", **number, help="side (112), height (32, photos 224), pixels")

    add = parser.add_argument_group("faces and photos").add_argument
    add("--images-per-identity", **number, help="images of each person (20, 3)")
    add("--faces-per-photo", **number, help="people of a group photo (3)")
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
    if options.kind == "photos":
        _write_photos(given)
        return
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


def _write_photos(given: dict[str, Any]) -> None:
    """Render photos with the options that are given."""
    from kprpe_jax.data.synthetic.photos import write_photos

    if "output" not in given:
        raise ValueError("--output: must name the folder of the photos; got none.")
    portraits, groups = write_photos(**given)
    sys.stdout.write(
        f"{portraits} portraits and {groups} group photos; in {given['output']}\n"
    )
