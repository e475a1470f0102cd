"""Bucket servers on loopback, and the variables by which they are found."""

import atexit
import contextlib
import functools
import os
import subprocess
import sys
import time
import urllib.request

import pytest

from tests.ports import free_address

BUCKET = "faces"


@contextlib.contextmanager
def use(scheme):
    """Use the server of this process's tests, whose address libraries remember."""
    with environ(_shared(scheme)):
        yield f"{scheme}://{BUCKET}"


@functools.cache
def _shared(scheme):
    served = serve(scheme)
    _, values = served.__enter__()
    atexit.register(served.__exit__, None, None, None)
    return values


@contextlib.contextmanager
def serve(scheme):
    """Start a server of s3:// or gs:// with the bucket `faces`; give it, its variables.

    Skips where its package is not installed.
    """
    pytest.importorskip({"s3": "s3fs", "gs": "gcsfs"}[scheme])
    pytest.importorskip({"s3": "moto", "gs": "gcp_storage_emulator"}[scheme])
    address = free_address()
    host, port = address.split(":")
    command = {
        "s3": ["-m", "moto.server", "-H", host, "-p", port],
        "gs": ["-m", "tests.gs_server", host, port, BUCKET],
    }[scheme]
    server = subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait(f"http://{address}/", server)
        if scheme == "s3":
            make = urllib.request.Request(f"http://{address}/{BUCKET}", method="PUT")
            urllib.request.urlopen(make).close()
        yield server, variables(scheme, f"http://{address}")
    finally:
        server.kill()
        server.wait()


def variables(scheme, endpoint):
    """What tells all libraries where a store is, and who asks."""
    if scheme == "gs":
        names = (
            "STORAGE_EMULATOR_HOST",
            "TENSORSTORE_GCS_HTTP_URL",  # these two follow it where they are not set
            "CLOUD_STORAGE_EMULATOR_ENDPOINT",
        )
        return dict.fromkeys(names, endpoint)
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "tester",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@contextlib.contextmanager
def environ(values):
    """Set variables of the environment for a while."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _wait(url, server):
    for _ in range(300):
        assert server.poll() is None
        try:
            urllib.request.urlopen(url, timeout=1).close()
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError(f"no answer from {url}")
