"""Which options take a path in a bucket, and what is said of the others."""

import re
from collections.abc import Iterable, Sequence

from kprpe_jax.core.paths import check_bucket, in_bucket

# A network by its SPEC, whatever the command.
SPECS = (
    "--model",
    "--detector",
    "--fusion",
    "--matcher",
    "--config.model.weights",
    "--config.backbone_weights",
)
MOUNT = "mount the bucket (gcsfuse, mount-s3) and give the mounted path"
DATA = ("--config.data.dir", "--data-dir")  # where they are taken, gs:// alone
WHY = {  # why not
    "--config.data.dir": "ArrayRecord reads data sets from local folders and gs://",
    "--data-dir": "data sets are written to local folders alone",
    "--gallery": "a gallery is an SQLite file, which needs a file system's locks",
    "--photos": "photos are read from a file system",
    "--config": "a config is Python code, which is run from a local file alone",
}
_ADDRESS = re.compile(r"[\"']?(\w+:)?(gs|s3|az|hf|hdfs|https?|file)://")


def check_buckets(
    arguments: Sequence[str], overrides: Sequence[str], taken: Iterable[str] = ()
) -> list[str]:
    """Find the buckets of a command line, and ask each whether it answers.

    Args:
      arguments: of the command.
      overrides: of its config, as "field=value".
      taken: options, besides SPECS, that take buckets in this command.
    Returns: the paths in buckets, in order.
    Raises: ValueError: an option that takes none, another kind of address, or a bucket
      that does not answer, or not to this user.
    """
    taken, found = {*SPECS, *taken}, {}
    option = "path"
    for argument in (*arguments, *(f"--config.{text}" for text in overrides)):
        value = argument
        if argument.startswith("--"):
            option, _, value = argument.partition("=")
        if not _ADDRESS.match(value):
            continue
        path = in_bucket(value)
        known = option in taken and not (option in DATA and path.startswith("s3:"))
        if not path or not known:
            reason = WHY.get(option, "this is read and written locally alone")
            if not in_bucket(value.strip("\"'")):
                reason = "of addresses gs:// and s3:// are known"
            raise ValueError(f"{option} {value}: {reason}; {MOUNT}")
        found.setdefault(path, option)
    asked = set()
    for path, option in found.items():
        root = "/".join(path.split("/")[:3])
        if root not in asked:
            check_bucket(path, option)
        asked.add(root)
    return list(found)
