"""Write data sets to disk: those that need no files, and any TFDS builder's."""

import contextlib
import difflib
import inspect
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import tensorflow_datasets as tfds

from kprpe_jax import registry
from kprpe_jax.core.paths import is_bucket
from kprpe_jax.data.store import is_finished


class RowsBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A TFDS data set of rows that come in their final order, without downloads.

    Args:
      description: of the data set.
      features: field -> TFDS feature or type.
      splits: name -> function that yields the split's rows, as dicts.
      metadata: JSON values that are kept with it; what is put into their dicts while
        the rows are read is kept, too.
      **kwargs: of the TFDS builder.
    """

    VERSION = tfds.core.Version("1.0.0")

    def __init__(
        self,
        *,
        description: str,
        features: Mapping[str, Any],
        splits: Mapping[str, Callable[[], Iterable[dict[str, Any]]]],
        metadata: Mapping[str, Any] | None = None,
        **kwargs,
    ):
        self._about = {
            "description": description,
            "features": tfds.features.FeaturesDict(features),
            "metadata": tfds.core.MetadataDict(metadata) if metadata else None,
        }
        self._splits = splits
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        # Not shuffled: the loader does that, and on disk a row's place is its number.
        return tfds.core.DatasetInfo(
            builder=self, disable_shuffling=True, **self._about
        )

    def _split_generators(self, dl_manager):
        del dl_manager
        return {
            split: self._generate_examples(rows) for split, rows in self._splits.items()
        }

    def _generate_examples(self, rows: Callable[[], Iterable[dict[str, Any]]]):
        yield from enumerate(rows())


def prepare(
    name: str, data_dir: str | os.PathLike, *, builder: str | None = None, **arguments
) -> str:
    """Write a data set that needs no files, unless it is there.

    TFDS writes into a folder `incomplete.*` beside the final one and renames it
    as its last act, so a process killed in the middle leaves nothing that looks
    finished.

    Args:
      name: of the data set.
      data_dir: the folder that holds all data sets; made if absent.
      builder: key of `registry.DATA_SETS`; None = the name.
      **arguments: the builder's own, such as `num_identities`.
    Returns: the data set's folder.
    Raises: ValueError: an unknown builder or argument; a data set that is there, but
      from other arguments.
    """
    kind = builder or name
    if kind not in registry.DATA_SETS:
        near = difflib.get_close_matches(kind, registry.DATA_SETS, n=1)
        raise ValueError(
            f"the data set must be one of {sorted(registry.DATA_SETS)}; got "
            f"{kind!r}; " + (f"did you mean {near[0]!r}?" if near else "choose one")
        )
    builder_class = registry.resolve(registry.DATA_SETS[kind])
    known = default_arguments(builder_class)
    if set(arguments) - set(known):
        raise ValueError(
            f"arguments of {kind!r} must be of {list(known)}; got "
            f"{sorted(arguments)}; change them"
        )
    path = os.path.join(data_dir, name, str(builder_class.VERSION))
    if is_finished(path):
        _check_same(path, arguments)
    else:
        write(builder_class, name, data_dir, **arguments)
    return path


def default_arguments(builder_class: type) -> dict[str, Any]:
    """The arguments that a builder has itself, with their defaults."""
    if "__init__" not in vars(builder_class):
        return {}
    parameters = inspect.signature(builder_class.__init__).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def write(
    builder_class: type, name: str, data_dir: str | os.PathLike, **arguments
) -> str:
    """Have a TFDS builder write a data set; it is there whole or not at all.

    Args:
      builder_class: the builder.
      name: of the data set: small letters, digits and _, a letter first.
      data_dir: the folder that holds all data sets.
      **arguments: the builder's own.
    Returns: the data set's folder.
    Raises: ValueError: another form of name; a data set of this name is there.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ValueError(
            "--name: must be small letters, digits and _ with a letter first; got "
            f"{name!r}; choose another"
        )
    if is_bucket(data_dir):
        raise ValueError(
            f"data.dir {os.fspath(data_dir)}: must hold {name} already, as data sets "
            "are written to local folders alone; write it to one and copy that to the "
            "bucket"
        )
    named = type(builder_class.__name__, (builder_class,), {"name": name},
                 skip_registration=True)  # fmt: skip
    builder = named(
        data_dir=os.fspath(data_dir), file_format="array_record", **arguments
    )
    if is_finished(builder.data_dir):
        raise ValueError(
            f"--name: {builder.data_dir} must not exist yet; got a data set; choose "
            "another name or delete the folder"
        )
    tfds.disable_progress_bar()  # it knows no total; the builders have their own
    # Without this TFDS asks a cloud bucket for a prepared copy.
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    try:
        # TFDS wants a download folder and speaks of downloads; there are none.
        with tempfile.TemporaryDirectory() as unused, contextlib.redirect_stdout(None):
            builder.download_and_prepare(download_dir=unused, download_config=config)
    except BaseException:
        with contextlib.suppress(OSError):
            # Only if empty: bad source files leave no trace.
            os.rmdir(os.path.dirname(builder.data_dir))
        raise
    return builder.data_dir


def _check_same(path: str, wanted: dict[str, object]) -> None:
    """Raise ValueError unless a data set was made from the wanted arguments."""
    if not wanted:
        return
    used = tfds.builder_from_directory(path).info.metadata or {}
    used = {key: used.get(key) for key in wanted}
    if used != wanted:
        raise ValueError(
            f"{path} must have been made from {wanted}; it was from {used}; "
            "delete it or choose another data_dir (data.dir of a config)"
        )
