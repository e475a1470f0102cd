"""Deterministic batches for any number of processes, workers and restarts.

Batch k of a training run is a function of the stream of rows and of k alone: each
process reads its slice of the same global batch, whatever the number of processes, and
a run continues at step k by asking for `start_step=k`. Nothing else is to be saved.
"""

from collections.abc import Iterator, Sequence

import grain
import numpy as np

Batch = dict[str, np.ndarray]


class _ReadRows:
    """Read rows of a source by number and stack them (picklable for workers)."""

    def __init__(self, source: Sequence):
        self._source = source

    def __call__(self, rows: np.ndarray) -> Batch:
        wanted = [int(row) for row in rows]
        if hasattr(self._source, "__getitems__"):
            examples = self._source.__getitems__(wanted)
        else:  # a list
            examples = [self._source[row] for row in wanted]
        return {key: np.stack([e[key] for e in examples]) for key in examples[0]}


def train_batches(
    source: Sequence,
    rows: grain.MapDataset,
    *,
    batch_size: int,
    process_index: int = 0,
    process_count: int = 1,
    start_step: int = 0,
    num_threads: int = 2,
    num_workers: int = 0,
) -> Iterator[Batch]:
    """Yield this process's rows of an endless stream of global batches.

    A batch may reach over the end of an epoch, so that each row is seen equally often.

    Args:
      source: random-access rows with `len` and `__getitems__` (`open_split`).
      rows: endless stream of row numbers of the source (`data.order`).
      batch_size: rows of the global batch, divisible by process_count.
      process_index: 0 <= process_index < process_count.
      process_count: processes that share each global batch.
      start_step: number of the first batch yielded; a resumed run passes the steps
        that it has done.
      num_threads: reading threads in this process.
      num_workers: reading processes (spawned; 0 = read in this one). They change
        the speed, never the order.
    Returns: iterator of dicts of arrays with leading size
      batch_size / process_count; the processes' rows, concatenated in order of
      process_index, are the global batch.
    Raises: ValueError: sizes that do not fit.
    """
    local = _local_size("train_batches", batch_size, process_index, process_count)
    if start_step < 0:
        raise ValueError(
            f"train_batches: start_step must be >= 0; got {start_step}; pass the "
            "number of steps done"
        )
    # Batching comes before the slice over processes: global batch k is local
    # batches k * process_count .. (k + 1) * process_count - 1 for any count.
    local_batches = rows.batch(local, drop_remainder=True)
    mine = local_batches[start_step * process_count + process_index :: process_count]
    dataset = mine.map(_ReadRows(source)).to_iter_dataset(
        grain.ReadOptions(
            num_threads=num_threads, prefetch_buffer_size=4 * max(1, num_threads)
        )
    )
    if num_workers:
        dataset = dataset.mp_prefetch(
            grain.MultiprocessingOptions(num_workers=num_workers)
        )
    return iter(dataset)


def eval_batches(
    source: Sequence,
    *,
    batch_size: int,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Batch]:
    """Yield this process's rows of all rows once, in order, the last ones padded.

    Every process yields the same number of batches, and the masks of all
    processes sum to exactly `len(source)`. Padding repeats row 0, with id -1.

    Args:
      source: as in `train_batches`.
      batch_size: rows of the global batch, divisible by process_count.
      process_index: 0 <= process_index < process_count.
      process_count: processes that share each global batch.
    Returns: iterator of dicts as in `train_batches`, with mask bool [b] in
      addition, False on padding.
    Raises: ValueError: sizes that do not fit, an empty source.
    """
    local = _local_size("eval_batches", batch_size, process_index, process_count)
    if not len(source):
        raise ValueError("eval_batches: the source must have rows; got none; check it")
    return _eval_batches(source, batch_size, process_index * local, local)


def _eval_batches(
    source: Sequence, batch_size: int, offset: int, local: int
) -> Iterator[Batch]:
    read = _ReadRows(source)
    for start in range(0, len(source), batch_size):
        rows = np.arange(start + offset, start + offset + local)
        mask = rows < len(source)
        batch = read(np.where(mask, rows, 0))
        if "id" in batch:
            batch["id"] = np.where(mask, batch["id"], -1).astype(batch["id"].dtype)
        yield {**batch, "mask": mask}


def _local_size(
    function: str, batch_size: int, process_index: int, process_count: int
) -> int:
    """Rows of the global batch that belong to one process, after checks."""
    if not 0 <= process_index < process_count:
        raise ValueError(
            f"{function}: process_index must be in 0..{process_count - 1}; got "
            f"{process_index}; pass jax.process_index() and jax.process_count()"
        )
    if batch_size < 1 or batch_size % process_count:
        raise ValueError(
            f"{function}: batch_size must be a positive multiple of the process count "
            f"{process_count}; got {batch_size}; change data.batch_size"
        )
    return batch_size // process_count
