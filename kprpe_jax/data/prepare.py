"""Prepare a data set on disk: `python -m kprpe_jax.data.prepare --name digits`.

`--name mnist --idx_dir FOLDER` reads MNIST's four IDX files from a folder.
`--name synthetic_faces` draws faces, `--name synthetic_walkers` silhouettes of people
who walk, as the configs of these names want them. Others go into another --data_dir:
`--num_identities 1000 --images_per_identity 50 --data_dir data/more`.
"""

import sys
from typing import Any

from absl import app, flags, logging

from kprpe_jax.data import store
from kprpe_jax.data.synthetic import walker_builder
from kprpe_jax.data.synthetic.builder import ARGUMENTS
from kprpe_jax.data.synthetic.nuisance import LAYOUTS

_NAME = flags.DEFINE_string(
    "name", "digits", "digits, mnist, synthetic_faces or synthetic_walkers."
)
_DATA_DIR = flags.DEFINE_string("data_dir", "data", "Folder of all data sets.")
flags.DEFINE_string("idx_dir", None, "mnist: folder of the IDX files.")
_FACES, _WALKERS = "synthetic_faces: ", "synthetic_walkers: "
_DRAWN = "synthetic_faces, synthetic_walkers: "
flags.DEFINE_integer("num_identities", None, _DRAWN + "people to train on (500, 100).")
flags.DEFINE_integer(
    "num_test_identities", None, _DRAWN + "others, of the split test (100)."
)
flags.DEFINE_integer("images_per_identity", None, _FACES + "pictures of each (20).")
flags.DEFINE_integer(
    "sequences_per_identity", None, _WALKERS + "sequences of each (6)."
)
flags.DEFINE_integer("num_frames", None, _WALKERS + "of a sequence (16).")
flags.DEFINE_integer("seed", None, _DRAWN + "of all people and pictures (0).")
flags.DEFINE_float(
    "difficulty", None, _DRAWN + "0 = clean, 1 = ordinary (default), 2 = hard."
)
flags.DEFINE_integer("size", None, _DRAWN + "side (112) or height (32) in pixels.")
flags.DEFINE_enum(
    "layout", None, LAYOUTS, _FACES + "aligned (default) or anywhere in the frame."
)


def main(argv: list[str]) -> None:
    """Prepare the data set that the flags name and say where it is."""
    logging.set_verbosity(logging.WARNING)
    try:
        if argv[1:]:
            raise ValueError(
                f"prepare: everything is given by flags; got {argv[1:]}; see --help"
            )
        path = store.prepare(_NAME.value, _DATA_DIR.value, **_builder_args())
        counts = {
            split: len(store.open_split(_DATA_DIR.value, _NAME.value, split))
            for split in ("train", "test")
        }
    except ValueError as e:
        sys.exit(f"error: {e}")
    rows = ", ".join(f"{split} {count} rows" for split, count in counts.items())
    sys.stdout.write(f"{_NAME.value}: {rows}; in {path}\n")


def _builder_args() -> dict[str, Any]:
    """Arguments of the data set's builder, those that were given."""
    names = dict.fromkeys(("idx_dir", *ARGUMENTS, *walker_builder.ARGUMENTS))
    given = {name: flags.FLAGS[name].value for name in names}
    return {name: value for name, value in given.items() if value is not None}


if __name__ == "__main__":
    app.run(main)
