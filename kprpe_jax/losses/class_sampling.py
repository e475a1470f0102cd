"""Which class centers take part in a step (PartialFC), at a cost that no class adds to.

Source: PartialFC (An et al., CVPR 2022), Sec. 3: all classes of the batch, and a
random part of the others. The official code sorts a random number per class. Here the
others are the first of a keyed shuffle, of which any place is computed alone.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh, PartitionSpec

from kprpe_jax.core.mesh import AXES, BATCH_SPEC

SAMPLED = "sampled_classes"  # the collection through which a loss is told of the sample
ROUNDS = 16  # two neighbors stay neighbors with probability 2 ** -ROUNDS
_BY_CLASS = PartitionSpec("class")


class Shuffle(NamedTuple):
    """A permutation of 0 .. count - 1.

    Attributes:
      row_at: int32 places [...] -> rows.
      place_of: its inverse.
    """

    row_at: Callable[[Array], Array]
    place_of: Callable[[Array], Array]


class SampledRows(NamedTuple):
    """A choice of a shard's rows, in slots whose number never changes.

    Attributes:
      rows: int32 [S], distinct.
      kept: bool [S]; the others only fill their slots.
      overflow: int32 scalar, classes of the batch beyond the number to keep; they are
        kept in addition, and no other class is.
    """

    rows: Array
    kept: Array
    overflow: Array


class ClassSample(NamedTuple):
    """`SampledRows` of all shards, S slots each, sharded as P("class").

    Attributes:
      rows: int32 [shards * S], within the shard.
      classes: int32 [shards * S], the class of each; -1 = only fills its slot.
      overflow: int32 scalar, over all shards.
    """

    rows: Array
    classes: Array
    overflow: Array


def num_slots(rows: int, sample_rate: float, batch: int) -> int:
    """Slots that always suffice: for the sample, and for every class of a batch."""
    return max(int(sample_rate * rows), min(batch, rows))


def keyed_shuffle(rng: Array, count: Array | int) -> Shuffle:
    """Build a random permutation that is never written down.

    Source: swap-or-not (Hoang, Morris and Rogaway, CRYPTO 2012): a round pairs x with
      k - x and swaps the pair or not, as a hash of the pair says. Each round is its own
      inverse. Differs: ROUNDS rounds and a mixing function in place of a cipher: every
      row is as likely as every other, and any two come together as often as by chance;
      the key can be guessed.

    Args:
      rng: key.
      count: int32 scalar, at least 1; may be traced.
    """
    pivot_rng, key_rng = jax.random.split(rng)
    pivots = jax.random.randint(pivot_rng, (ROUNDS,), 0, count)
    keys = jax.random.bits(key_rng, (ROUNDS,), jnp.uint32)

    def swap(x: Array, pivot: Array, key: Array) -> Array:
        partner = pivot - x
        partner = jnp.where(partner < 0, partner + count, partner)
        return jnp.where(_coin(jnp.maximum(x, partner), key), partner, x)

    def run(x: Array, round_at: Callable[[Array], Array]) -> Array:
        def body(n: Array, x: Array) -> Array:
            n = round_at(n)
            return swap(x, pivots[n], keys[n])

        # Within shard_map the loop's start must vary over devices as its end does.
        return jax.lax.fori_loop(0, ROUNDS, body, x + 0 * pivots[0])

    def row_at(places: Array) -> Array:
        return run(places, lambda n: n)

    def place_of(rows: Array) -> Array:
        return run(rows, lambda n: ROUNDS - 1 - n)

    return Shuffle(row_at, place_of)


def _coin(numbers: Array, key: Array) -> Array:
    """A bit of each number, by MurmurHash3's finalizer."""
    h = numbers.astype(jnp.uint32) ^ key
    h = (h ^ (h >> 16)) * jnp.uint32(0x85EBCA6B)
    h = (h ^ (h >> 13)) * jnp.uint32(0xC2B2AE35)
    return (h >> 31).astype(bool)


def sample_rows(
    shuffle: Shuffle, labels: Array, *, count: Array, keep: Array, slots: int
) -> SampledRows:
    """Keep the classes of the batch, then the others in the order of the shuffle.

    Args:
      shuffle: of `count` rows.
      labels: int32 [B], rows of this shard; values outside [0, count) are not here.
      count: int32 scalar, rows of this shard that are classes.
      keep: int32 scalar, how many classes to keep, at most `count`.
      slots: at least `keep` and the number of distinct labels here, at most the rows
        of this shard; rows from `count` on fill what the shuffle leaves.
    """
    places = jnp.arange(slots)
    rows = jnp.where(places < count, shuffle.row_at(places), places)
    labels = jnp.sort(jnp.where((labels >= 0) & (labels < count), labels, -1))
    first = (labels >= 0) & (labels != jnp.roll(labels, 1).at[0].set(-1))
    place = jnp.where(first, shuffle.place_of(jnp.maximum(labels, 0)), slots)
    positive = jnp.zeros(slots, bool).at[place].set(True, mode="drop")

    # A class of the batch whose place lies beyond the slots takes the last slot of
    # another class, the next one the last but one.
    outside = first & (place >= slots)
    from_back = jnp.cumsum(~positive[::-1])[::-1] - 1
    last = jnp.zeros(len(labels), jnp.int32)
    last = last.at[jnp.where(positive, len(labels), from_back)].set(places, mode="drop")
    taken = jnp.where(outside, last[jnp.cumsum(outside) - 1], slots)
    rows = rows.at[taken].set(labels, mode="drop")
    positive = positive.at[taken].set(True, mode="drop")

    others = keep - first.sum()
    kept = positive | ((jnp.cumsum(~positive) <= others) & (places < count))
    return SampledRows(rows, kept, jnp.maximum(-others, 0))


def sample_classes(
    rng: Array,
    labels: Array,
    *,
    rows: int,
    num_classes: int,
    sample_rate: float,
    mesh: Mesh,
) -> ClassSample:
    """Choose for the global batch, each shard among its own rows.

    Another class axis cuts the rows into other shards and draws another sample, of the
    same rate: a run that goes on there is another run than one that stayed.

    Args:
      rng: key, fresh at every step; the shards draw differently.
      labels: int32 [B]; those outside [0, num_classes) are ignored.
      rows: of the center matrix; the class axis divides it.
      num_classes: the first of these rows.
      sample_rate: in (0, 1].
      mesh: with axes data, fsdp and class.
    Raises: ValueError: the rate is out of range.
    """
    if not 0 < sample_rate <= 1:
        raise ValueError(
            f"sample_classes: sample_rate must lie in (0, 1]; got {sample_rate}."
        )
    here = rows // mesh.shape["class"]

    def choose(rng: Array, labels: Array) -> ClassSample:
        shard = jax.lax.axis_index("class")
        labels = jax.lax.all_gather(labels, AXES, tiled=True)
        # Equal on all devices already; pmax tells the compiler so.
        labels = jax.lax.pmax(labels, ("data", "fsdp")) - shard * here
        count = jnp.clip(num_classes - shard * here, 0, here)
        # In float32 the product could round up; the shards' counts are known here.
        keeps = [
            int(sample_rate * min(max(num_classes - n * here, 0), here))
            for n in range(mesh.shape["class"])
        ]
        slots = num_slots(here, sample_rate, len(labels))
        shuffle = keyed_shuffle(jax.random.fold_in(rng, shard), jnp.maximum(count, 1))
        chosen = sample_rows(
            shuffle, labels, count=count, keep=jnp.array(keeps)[shard], slots=slots
        )
        classes = jnp.where(chosen.kept, chosen.rows + shard * here, -1)
        return ClassSample(chosen.rows, classes, jax.lax.psum(chosen.overflow, "class"))

    everywhere = PartitionSpec()
    return jax.shard_map(
        choose,
        mesh=mesh,
        in_specs=(everywhere, BATCH_SPEC),
        out_specs=ClassSample(_BY_CLASS, _BY_CLASS, everywhere),
    )(rng, labels)


def take_rows(table: Array, rows: Array, mesh: Mesh) -> Array:
    """Read the sampled rows: [R, ...] and [shards * S] -> [shards * S, ...].

    Args:
      table: sharded as P("class").
      rows: of a `ClassSample`.
      mesh: with the axis class.
    """

    def take(table: Array, rows: Array) -> Array:
        return table.at[rows].get(mode="promise_in_bounds")

    return _each_shard(take, mesh, 2)(table, rows)


def put_rows(table: Array, sample: ClassSample, values: Array, mesh: Mesh) -> Array:
    """Write the rows of sampled classes; in place where the table is donated.

    Rows that only fill a slot are left as they are.

    Args:
      table: [R, ...], sharded as P("class").
      sample: where to.
      values: [shards * S, ...], in the order of the sample.
      mesh: with the axis class.
    """

    def put(table: Array, rows: Array, classes: Array, values: Array) -> Array:
        nowhere = len(table) + jnp.arange(len(rows))
        rows = jnp.where(classes >= 0, rows, nowhere)
        return table.at[rows].set(values, unique_indices=True, mode="drop")

    return _each_shard(put, mesh, 4)(table, sample.rows, sample.classes, values)


def _each_shard(body: Callable[..., Array], mesh: Mesh, count: int) -> Callable:
    specs = (_BY_CLASS,) * count
    return jax.shard_map(body, mesh=mesh, in_specs=specs, out_specs=_BY_CLASS)
