"""Write data sets to disk: those that need no files, and any TFDS builder's."""

import contextlib
import difflib
import inspect
import os
import re
import tempfile
from typing import Any

import tensorflow_datasets as tfds

from kprpe_jax import registry
from kprpe_jax.data.store import is_finished


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
            f"prepare: the data set must be one of {sorted(registry.DATA_SETS)}; got "
            f"{kind!r}; " + (f"did you mean {near[0]!r}?" if near else "choose one")
        )
    builder_class = registry.resolve(registry.DATA_SETS[kind])
    known = default_arguments(builder_class)
    if set(arguments) - set(known):
        raise ValueError(
            f"prepare: arguments of {kind!r} must be of {list(known)}; got "
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
            f"prepare: {path} must have been made from {wanted}; it was from {used}; "
            "delete it or choose another data_dir (data.dir of a config)"
        )
