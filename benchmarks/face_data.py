"""Face data on one core: rendered, imported, and read by the loader.

    taskset -c 0 python -m benchmarks face_data [--images 10000] [--seconds 60]

Faces are rendered, packed as JPEG into a tar archive, imported, and read in random
order by `loader.train_batches`: first with the shards dropped from the page cache, from
the iterator's start on, then until the time is over, with the memory of the process.
Besides images/s as a clock sees them stand those per second of processor time: other
processes on the machine change the former only. Appends a line to benchmarks/results/.
"""

import argparse
import io
import os
import pathlib
import resource
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

from PIL import Image

from benchmarks import harness
from kprpe_jax.data.faces import FaceRows, open_faces
from kprpe_jax.data.importers.dataset import write_dataset
from kprpe_jax.data.importers.tar_images import open_tar_images
from kprpe_jax.data.loader import train_batches
from kprpe_jax.data.order import shuffled
from kprpe_jax.data.synthetic.source import FaceSource

_PER_PERSON = 20
_RENDERED_AT_ONCE = 256
_MIB = 1 << 20


def timed(run: Callable[[], int]) -> dict[str, float]:
    """Images/s of a call that returns how many it processed."""
    wall, processor = time.perf_counter(), time.process_time()
    count = run()
    processor, wall = time.process_time() - processor, time.perf_counter() - wall
    return {
        "images": count,
        "images_per_s": count / wall,
        "images_per_processor_s": count / processor,
    }


def render(count: int, path: pathlib.Path) -> dict[str, float]:
    """Render faces and time it; pack them as JPEG into a tar, outside of the clock."""
    source = FaceSource(
        num_identities=-(-count // _PER_PERSON), images_per_identity=_PER_PERSON
    )
    source[0]  # compiles
    rows: list[dict[str, Any]] = []

    def run() -> int:
        for start in range(0, count, _RENDERED_AT_ONCE):
            numbers = range(start, min(start + _RENDERED_AT_ONCE, count))
            rows.extend(source.__getitems__(numbers))
        return count

    result = timed(run)
    with tarfile.open(path, "w") as archive:
        for row in rows:
            jpeg = io.BytesIO()
            Image.fromarray(row["image"]).save(jpeg, "JPEG", quality=95)
            member = tarfile.TarInfo(f"{row['label']:05d}/{row['id']:07d}.jpg")
            member.size = jpeg.tell()
            jpeg.seek(0)
            archive.addfile(member, jpeg)
    return result


def import_tar(path: pathlib.Path, data_dir: pathlib.Path) -> dict[str, float]:
    """Import the archive and time it."""
    return timed(
        lambda: write_dataset(
            open_tar_images(path), name="faces", data_dir=data_dir, origin={}
        )["rows"]
    )


def load(
    data_dir: pathlib.Path, *, seconds: float, batch_size: int, threads: int
) -> dict[str, Any]:
    """Read and decode batches, cold and warm."""
    for shard in (data_dir / "faces").rglob("*array_record*"):
        with open(shard, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    source = open_faces(data_dir, "faces", "train", image_size=(112, 112))
    batches: list[Iterator] = []

    def first() -> int:
        order = shuffled(len(source), seed=0)
        batches.append(
            train_batches(source, order, batch_size=batch_size, num_threads=threads)
        )
        for _ in range(len(source) // batch_size):
            next(batches[0])
        return len(source) // batch_size * batch_size

    cold = timed(first)
    memory = [_memory()]
    end = time.perf_counter() + seconds
    warm = timed(lambda: _read_until(end, batches[0], source, batch_size, memory))
    return {
        "cold_first_epoch": cold,
        "warm": warm,
        "memory_mib": memory,
        "seconds": seconds,
    }


def _read_until(
    end: float,
    batches: Iterator,
    source: FaceRows,
    batch_size: int,
    memory: list[float],
) -> int:
    """Read epochs until the time is over, and note the memory after each."""
    count = 0
    while time.perf_counter() < end:
        for _ in range(max(1, len(source) // batch_size)):
            next(batches)
            count += batch_size
        memory.append(_memory())
    return count


def _memory() -> float:
    """Resident memory of this process now, MiB."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return round(pages * resource.getpagesize() / _MIB, 1)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--images", type=int, default=10000, help="images of the data set"
    )
    parser.add_argument(
        "--seconds", type=int, default=60, help="how long the warm loader runs"
    )
    parser.add_argument("--batch-size", type=int, default=128, help="images of a batch")
    parser.add_argument(
        "--threads", type=int, default=2, help="reading threads of the loader"
    )


def run(options: argparse.Namespace) -> None:
    """Run, print and record."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder)
        results: dict[str, Any] = {
            "rendered": render(options.images, path / "faces.tar")
        }
        results["imported"] = import_tar(path / "faces.tar", path / "data")
        results["loaded"] = load(
            path / "data",
            seconds=options.seconds,
            batch_size=options.batch_size,
            threads=options.threads,
        )
    settings = {
        "images": options.images,
        "batch_size": options.batch_size,
        "threads": options.threads,
        "usable_cores": len(os.sched_getaffinity(0)),
        "load_average": os.getloadavg()[0],
    }
    harness.record("face_data", settings, results)
    loaded = results["loaded"]
    for name, result in (
        ("rendered", results["rendered"]),
        ("imported", results["imported"]),
        ("loader, cold", loaded["cold_first_epoch"]),
        ("loader, warm", loaded["warm"]),
    ):
        sys.stdout.write(
            f"{name:13} {result['images_per_s']:8.0f} images/s, "
            f"{result['images_per_processor_s']:8.0f} per processor second\n"
        )
    memory = loaded["memory_mib"]
    sys.stdout.write(
        f"memory over {loaded['seconds']} s: {memory[0]:.0f} MiB at first, "
        f"{max(memory):.0f} at most, {memory[-1]:.0f} at the end\n"
    )
