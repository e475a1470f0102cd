"""How attention kernels reach tokens in memory, and the bias of a row of queries.

Token (y, x) of the R x C grid is padded to place y P + x. Query (y, x) and key (m, n)
have the bias T[(y, x), r(y, m), n]: T is read by column outside already
(`fused_attention`), now by row r. In the table of a row's queries, [P, D] with
D = (r, n), that is column c = r(y, m) P + n.

`ByIndex` is for Triton, which loads and stores every number where it lies: tokens as
the projection wrote them, the bias out of the tables; its gradient is summed by
comparing rows. Mosaic moves whole blocks (`ByBlock`): tokens are padded outside, and
the bias is a product with the 0/1 matrix E[k, j] = [k = c_j], made on chip, whose
transpose sums the gradient. Neither depends on the order in which anything runs.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl

TableRow = tuple[Any, ...]  # a reference, and where in it the table [P, D] lies


class ByIndex(NamedTuple):
    """Tokens lie as [B, N, *, H, d].

    Attributes:
      grid: (R, C) tokens.
      pitch: P, queries in a row of the padded grid, and keys.
      keys: M, keys in all, a multiple of P.
      depth: D, columns of a table, a multiple of P.
    """

    grid: tuple[int, int]
    pitch: int
    keys: int
    depth: int
    part_axis = 2  # of q, k and v

    @property
    def span(self) -> int:
        """Columns of the table that an array of `collect` has."""
        return self.pitch

    def block(self, tokens: Array, images: int) -> pl.BlockSpec:
        """One head of so many images, by the program's (head, number of the block)."""
        part = tokens.shape[2:-2]
        return pl.BlockSpec(
            (images, tokens.shape[1], *part, None, tokens.shape[-1]),
            lambda h, c, *_: (c, 0, *(0 for _ in part), h, 0),
        )

    def queries(self, tokens: Any, b: Array, y: Array, *part: int) -> Array:
        """Of row y, [P, d], zero where the grid is padded."""
        return self._load(tokens, b, self._row(y), part)

    def all_keys(self, tokens: Any, b: Array, *part: int) -> Array:
        """[M, d], zero where the grid is padded."""
        return self._load(tokens, b, self._all(), part)

    def put_queries(
        self, tokens: Any, values: Array, b: Array, y: Array, *part: int
    ) -> None:
        """Store [P, d] but for padding."""
        self._store(tokens, values, b, self._row(y), part)

    def put_keys(self, tokens: Any, values: Array, b: Array, *part: int) -> None:
        """Store [M, d] but for padding."""
        self._store(tokens, values, b, self._all(), part)

    def prepare(self, columns: Array) -> Array:
        """Of c, int32 [1, M], what `read` and `collect` are given."""
        return columns

    def read(self, columns: Array, *tables: TableRow) -> Array:
        """Sum of tables at c_j, [P, M]."""
        x = jax.lax.broadcasted_iota(jnp.int32, (self.pitch, 1), 0)
        return sum(table[*place, x, columns] for table, *place in tables)

    def collect(self, columns: Array, x: Array) -> list[Array]:
        """The transpose: x [P, M] summed by column, D / `span` arrays [P, `span`]."""
        x = x.reshape(self.pitch, -1, self.pitch)
        rows = columns.reshape(1, -1, self.pitch) // self.pitch
        return [
            jnp.where(rows == row, x, 0.0).sum(1)
            for row in range(self.depth // self.pitch)
        ]

    def _row(self, y: Array) -> tuple[Array, Array]:
        x = jax.lax.broadcasted_iota(jnp.int32, (self.pitch, 1), 0)
        return y * self.grid[1] + x, x < self.grid[1]

    def _all(self) -> tuple[Array, Array]:
        place = jax.lax.broadcasted_iota(jnp.int32, (self.keys, 1), 0)
        m, n = place // self.pitch, place % self.pitch
        return m * self.grid[1] + n, (m < self.grid[0]) & (n < self.grid[1])

    def _load(self, tokens: Any, b: Array, where: tuple, part: tuple) -> Array:
        at, inside = self._at(tokens, b, where, part)
        from jax.experimental.pallas import triton as pltriton  # for GPUs alone

        return pltriton.load(at, mask=inside, other=0.0)

    def _store(
        self, tokens: Any, values: Array, b: Array, where: tuple, part: tuple
    ) -> None:
        at, inside = self._at(tokens, b, where, part)
        from jax.experimental.pallas import triton as pltriton

        pltriton.store(at, values.astype(tokens.dtype), mask=inside)

    def _at(
        self, tokens: Any, b: Array, where: tuple, part: tuple
    ) -> tuple[Any, Array]:
        places, inside = where
        width = tokens.shape[-1]
        channels = jax.lax.broadcasted_iota(jnp.int32, (1, width), 1)
        inside = jnp.broadcast_to(inside, (len(places), width))
        return tokens.at[b, places, *part, channels], inside


class ByBlock(NamedTuple):
    """Tokens lie as [B, *, H, M, d], padded.

    Attributes:
      pitch: P, queries in a row of the padded grid, and keys.
      depth: D, columns of a table.
      pieces: of eight bits, that a table is cut into, as E is bfloat16; three hold
        float32, two more than bfloat16 logits do.
    """

    pitch: int
    depth: int
    pieces: int
    part_axis = 1  # of q, k and v

    @property
    def span(self) -> int:
        """Columns of the table that an array of `collect` has: all."""
        return self.depth

    def block(self, tokens: Array, images: int) -> pl.BlockSpec:
        """One head of so many images, by the program's (head, number of the block)."""
        part = tokens.shape[1:-3]
        return pl.BlockSpec(
            (images, *part, None, *tokens.shape[-2:]),
            lambda h, c, *_: (c, *(0 for _ in part), h, 0, 0),
        )

    def queries(self, tokens: Any, b: Array, y: Array, *part: int) -> Array:
        """Of row y, [P, d]."""
        return tokens[b, *part, self._row(y)]

    def all_keys(self, tokens: Any, b: Array, *part: int) -> Array:
        """[M, d]."""
        return tokens[b, *part]

    def put_queries(
        self, tokens: Any, values: Array, b: Array, y: Array, *part: int
    ) -> None:
        """Store [P, d]."""
        tokens[b, *part, self._row(y)] = values.astype(tokens.dtype)

    def put_keys(self, tokens: Any, values: Array, b: Array, *part: int) -> None:
        """Store [M, d]."""
        tokens[b, *part] = values.astype(tokens.dtype)

    def prepare(self, columns: Array) -> Array:
        """E [D, M] from c, int32 [1, M]."""
        shape = (self.depth, columns.shape[1])
        numbers = jax.lax.broadcasted_iota(jnp.int32, shape, 0)
        return jnp.where(numbers == columns, 1.0, 0.0).astype(jnp.bfloat16)

    def read(self, expand: Array, *tables: TableRow) -> Array:
        """Sum of tables at c_j, [P, M]."""
        return self._dot(sum(table[*place] for table, *place in tables), expand, axis=0)

    def collect(self, expand: Array, x: Array) -> list[Array]:
        """The transpose: x [P, M] summed by column, as one array [P, D]."""
        return [self._dot(x, expand, axis=1)]

    def _row(self, y: Array) -> Any:
        return pl.ds(pl.multiple_of(y * self.pitch, self.pitch), self.pitch)

    def _dot(self, x: Array, expand: Array, axis: int) -> Array:
        total = 0.0
        for _ in range(self.pieces):
            # Cut off, not rounded by a type: compilers may leave such a round trip out.
            bits = jax.lax.bitcast_convert_type(x, jnp.int32) & -65536
            piece = jax.lax.bitcast_convert_type(bits, jnp.float32)
            total += jax.lax.dot_general(
                piece.astype(jnp.bfloat16),
                expand,
                (((1,), (axis,)), ((), ())),
                precision=jax.lax.Precision.DEFAULT,
                preferred_element_type=jnp.float32,
            )
            x -= piece
        return total
