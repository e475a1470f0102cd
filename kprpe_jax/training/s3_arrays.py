"""Orbax on s3:// paths: it writes arrays to gs:// alone, TensorStore to both.

Orbax 0.12 asks three functions where TensorStore finds a folder. For s3:// they take it
for a relative local path. They are replaced for those paths, and left as they are for
all others.
"""

import functools
import os
from typing import Any

from orbax.checkpoint._src.path import gcs_utils
from orbax.checkpoint._src.serialization import tensorstore_utils

_S3 = "s3://"
# Of requests that fail for the time being; TensorStore's own 32 take a quarter of an
# hour, in which a run that cannot save looks like one that does.
_RETRIES = {"max_retries": 6, "initial_delay": "1s", "max_delay": "32s"}


@functools.cache
def teach_orbax() -> None:
    """Have Orbax read and write arrays in buckets; once in a process."""
    normalize = tensorstore_utils._normalize_path
    in_bucket = tensorstore_utils._use_gcs_driver
    of_gcs = gcs_utils.get_kvstore_for_gcs

    def normalize_path(path: str) -> str:
        if path.startswith(_S3):
            return _S3 + os.path.normpath(path.removeprefix(_S3))
        return normalize(path)

    def use_bucket_driver(directory: str) -> bool:
        return directory.startswith(_S3) or in_bucket(directory)

    def bucket_spec(path: str) -> dict[str, Any]:
        if path.startswith(_S3):
            return s3_spec(path)
        return {**of_gcs(path), "gcs_request_retries": _RETRIES}

    tensorstore_utils._normalize_path = normalize_path
    tensorstore_utils._use_gcs_driver = use_bucket_driver
    gcs_utils.get_kvstore_for_gcs = bucket_spec


def s3_spec(path: str) -> dict[str, Any]:
    """TensorStore's specification of a key prefix, s3://bucket/...

    Endpoint and region come from the variables that Amazon's own tools read, the
    credentials, too, which TensorStore finds by itself.
    """
    bucket, _, key = path.removeprefix(_S3).partition("/")
    spec = {"driver": "s3", "bucket": bucket, "path": key}
    region = _first("AWS_REGION", "AWS_DEFAULT_REGION")
    if endpoint := _first("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        spec["endpoint"] = endpoint
        region = region or "us-east-1"  # another store's region means nothing
    if region:
        spec["aws_region"] = region
    if _first("AWS_ACCESS_KEY_ID"):  # else a search, which complains of each place
        spec["aws_credentials"] = {"type": "environment"}
    return {**spec, "s3_request_retries": _RETRIES}


def _first(*names: str) -> str:
    return next((os.environ[name] for name in names if os.environ.get(name)), "")
