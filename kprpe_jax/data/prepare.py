"""Prepare a data set on disk: `python -m kprpe_jax.data.prepare --name digits`.

`--name mnist --idx_dir FOLDER` reads MNIST's four IDX files from a folder.
"""

import sys

from absl import app, flags, logging

from kprpe_jax.data import store

_NAME = flags.DEFINE_string("name", "digits", "Data set: digits or mnist.")
_DATA_DIR = flags.DEFINE_string("data_dir", "data", "Folder of all data sets.")
_IDX_DIR = flags.DEFINE_string("idx_dir", None, "mnist: folder of the IDX files.")


def main(argv: list[str]) -> None:
    """Prepare the data set that the flags name and say where it is."""
    logging.set_verbosity(logging.WARNING)
    builder_args = {} if _IDX_DIR.value is None else {"idx_dir": _IDX_DIR.value}
    try:
        if argv[1:]:
            raise ValueError(
                f"prepare: everything is given by flags; got {argv[1:]}; see --help"
            )
        path = store.prepare(_NAME.value, _DATA_DIR.value, **builder_args)
        counts = {
            split: len(store.open_split(_DATA_DIR.value, _NAME.value, split))
            for split in ("train", "test")
        }
    except ValueError as e:
        sys.exit(f"error: {e}")
    rows = ", ".join(f"{split} {count} rows" for split, count in counts.items())
    sys.stdout.write(f"{_NAME.value}: {rows}; in {path}\n")


if __name__ == "__main__":
    app.run(main)
