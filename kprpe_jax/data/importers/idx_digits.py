"""Import MNIST, or a data set of its form, from its four IDX files."""

import os
from typing import Any, NamedTuple

import numpy as np

from kprpe_jax.data.builders import Mnist, read_mnist
from kprpe_jax.data.importers.progress import REPORT, write_json
from kprpe_jax.data.prepare import write


class IdxDigits(NamedTuple):
    """Digits of IDX files, ready to be written.

    Attributes:
      folder: of the four files, each plain or with .gz.
      labels: split -> uint8 [N].
    """

    folder: str
    labels: dict[str, np.ndarray]
    noun = "images"

    def write(
        self, *, name: str, data_dir: str | os.PathLike, on_error: str = "fail"
    ) -> dict[str, Any]:
        """Write the data set.

        Args:
          name, data_dir: of the data set.
          on_error: either; a damaged file is refused as a whole.
        Returns: the report, which is also in the data set's import_report.json.
        Raises: ValueError: a name in use.
        """
        del on_error
        folder = write(Mnist, name, data_dir, idx_dir=self.folder)
        labels = np.concatenate(list(self.labels.values()))
        report = {
            "source": self.folder,
            "rows": len(labels),
            "identities": len(np.unique(labels)),
            "bad": {},
            **{split: {"images": len(x)} for split, x in self.labels.items()},
        }
        write_json(os.path.join(folder, REPORT), report)
        return report


def open_idx_digits(folder: str | os.PathLike) -> IdxDigits:
    """Open the four IDX files of a folder, and check them.

    Args:
      folder: see `IdxDigits`.
    Raises: ValueError: as `read_mnist`.
    """
    labels = {split: read_mnist(folder, split)[1] for split in ("train", "test")}
    return IdxDigits(os.fspath(folder), labels)
