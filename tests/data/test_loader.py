"""Order, sharing between processes, resuming, and exact counts of the loader."""

import itertools
import shutil

import numpy as np
import pytest

from kprpe_jax.data import loader, order, store
from kprpe_jax.data.rows import read_all


class Rows:
    """Rows that hold just their number."""

    def __init__(self, count: int):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        return {"image": np.full((2, 2, 1), i, np.uint8), "id": np.int32(i)}

    def __getitems__(self, rows):
        return [self[i] for i in rows]


def train_batches(source, *, seed, **options):
    rows = order.shuffled(len(source), seed=seed)
    return loader.train_batches(source, rows, **options)


def ids(iterator, steps):
    return [batch["id"].tolist() for batch in itertools.islice(iterator, steps)]


def assert_same(got, want):
    assert sorted(got) == sorted(want)
    for key in want:
        np.testing.assert_array_equal(got[key], want[key])
        assert got[key].dtype == want[key].dtype


def test_each_epoch_has_every_row_once_in_a_new_order():
    flat = sum(ids(train_batches(Rows(10), batch_size=4, seed=0), 5), [])
    assert sorted(flat[:10]) == sorted(flat[10:]) == list(range(10))
    assert flat[:10] != flat[10:]
    assert flat[:10] != list(range(10))


def test_order_follows_from_the_seed_alone():
    first, again, other = (
        ids(train_batches(Rows(50), batch_size=8, seed=seed), 9) for seed in (3, 3, 4)
    )
    assert first == again
    assert first != other


@pytest.mark.parametrize("process_count", [2, 4])
def test_processes_share_the_same_global_batches(process_count):
    whole = ids(train_batches(Rows(50), batch_size=8, seed=1), 14)
    parts = [
        ids(
            train_batches(
                Rows(50),
                batch_size=8,
                seed=1,
                process_index=i,
                process_count=process_count,
            ),
            14,
        )
        for i in range(process_count)
    ]
    for k, batch in enumerate(whole):
        assert sum((part[k] for part in parts), []) == batch


@pytest.mark.parametrize("step", [0, 1, 5, 100])
def test_resuming_at_a_step_gives_that_batch_for_any_process_count(step):
    whole = ids(train_batches(Rows(50), batch_size=8, seed=1), step + 2)[step:]
    for count in (1, 2):
        parts = [
            ids(
                train_batches(
                    Rows(50),
                    batch_size=8,
                    seed=1,
                    process_index=i,
                    process_count=count,
                    start_step=step,
                    num_threads=i + 1,
                ),
                2,
            )
            for i in range(count)
        ]
        assert [sum(rows, []) for rows in zip(*parts, strict=True)] == whole


def test_prepared_digits_come_in_the_promised_form(digits_dir):
    source = store.open_split(digits_dir, "digits", "train")
    batch = next(train_batches(source, batch_size=16, seed=0))
    forms = {key: (value.shape, value.dtype) for key, value in batch.items()}
    assert forms == {
        "image": ((16, 28, 28, 1), np.uint8),
        "label": ((16,), np.int32),
        "keypoints": ((16, 5, 2), np.float32),
        "id": ((16,), np.int32),
    }
    for i, row in enumerate(batch["id"]):
        assert_same({key: value[i] for key, value in batch.items()}, source[row])


@pytest.mark.slow
def test_worker_processes_change_neither_order_nor_resuming(digits_dir):
    source = store.open_split(digits_dir, "digits", "train")
    plain = list(itertools.islice(train_batches(source, batch_size=128, seed=2), 16))
    for workers in (1, 2):
        for start in (0, 13):
            iterator = train_batches(
                source, batch_size=128, seed=2, start_step=start, num_workers=workers
            )
            for want in plain[start : start + 3]:
                assert_same(next(iterator), want)
            del iterator


@pytest.mark.slow
def test_worker_process_names_the_damaged_shard(digits_dir, tmp_path):
    copy = shutil.copytree(digits_dir, tmp_path / "copy")
    shard = copy / "digits/1.0.0/digits-test.array_record-00000-of-00001"
    content = bytearray(shard.read_bytes())
    content[10_000] ^= 0xFF
    shard.write_bytes(content)
    source = store.open_split(copy, "digits", "test")
    for workers in (0, 1):
        iterator = train_batches(source, batch_size=360, seed=0, num_workers=workers)
        with pytest.raises(ValueError, match=f"{shard.name} is corrupt at row"):
            next(iterator)


@pytest.mark.parametrize("rows", [1, 8, 13, 16, 17])
@pytest.mark.parametrize("process_count", [1, 2])
def test_evaluation_counts_each_row_once_in_order(rows, process_count):
    parts = [
        list(
            loader.eval_batches(
                Rows(rows), batch_size=8, process_index=i, process_count=process_count
            )
        )
        for i in range(process_count)
    ]
    assert {len(part) for part in parts} == {-(-rows // 8)}
    seen = []
    for together in zip(*parts, strict=True):
        for batch in together:
            assert batch["id"].shape == batch["mask"].shape == (8 // process_count,)
            assert batch["mask"].dtype == bool
            assert (batch["id"][~batch["mask"]] == -1).all()
            assert (batch["image"][~batch["mask"]] == 0).all()  # copies of row 0
            seen += batch["id"][batch["mask"]].tolist()
    assert seen == list(range(rows))


@pytest.mark.parametrize("function", [train_batches, loader.eval_batches])
@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"batch_size": 0}, "positive multiple of the process count 1; got 0"),
        ({"batch_size": 9, "process_count": 2}, "process count 2; got 9"),
        ({"batch_size": 8, "process_index": 1}, r"process_index must be in 0\.\.0"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_at_once(function, kwargs, match):
    kwargs = dict(kwargs)
    source = Rows(5)
    if function is train_batches:
        kwargs["seed"] = 0
    with pytest.raises(ValueError, match=f"{function.__name__}: .*{match}"):
        function(source, **kwargs)


def test_an_empty_source_is_refused_at_once():
    for function in (
        lambda: loader.eval_batches(Rows(0), batch_size=8),
        lambda: order.shuffled(0, seed=0),
    ):
        with pytest.raises(ValueError, match="the source must have rows; got none"):
            function()


def test_negative_start_is_refused():
    with pytest.raises(ValueError, match="start_step must be >= 0; got -1"):
        train_batches(Rows(5), batch_size=1, seed=0, start_step=-1)


def test_in_memory_source_gives_the_same_batches(digits_dir):
    source = store.open_split(digits_dir, "digits", "test")
    for s in (5, 6):
        a, b = (
            next(train_batches(x, batch_size=32, seed=s))
            for x in (source, read_all(source))
        )
        assert_same(a, b)
