"""How a kernel reads a table by bucket on chip, and sums its gradient by bucket.

Query i = (y, x) and key j = (m, n) of the token grid have the bias T[i, r(y, m), n]: T
is read by column outside already (`fused_attention`), now by row r. In the table
of a row's queries, [P, D] with D = (r, n), that is column c_j = r(y, m) P + n.

`Loads` is for Triton: it loads every number from where it lies, and sums gradients by
comparing rows. Mosaic loads no numbers by index. There the bias is a product with the
0/1 matrix E[k, j] = [k = c_j], made on chip (`Products`), whose transpose sums the
gradient. Neither depends on the order in which anything runs.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

TableRow = tuple[Any, ...]  # a reference, and where in it the table [P, D] lies


class Loads(NamedTuple):
    """Each number loaded alone; sums are of float32.

    Attributes:
      pitch: P, queries in a row of the padded grid, and keys.
      depth: D, columns of a table, a multiple of P.
    """

    pitch: int
    depth: int

    @property
    def span(self) -> int:
        """Columns of the table that an array of `collect` has."""
        return self.pitch

    def prepare(self, columns: Array) -> Array:
        """Of c, int32 [1, M], what the others are given."""
        return columns

    def read(self, columns: Array, *tables: TableRow) -> Array:
        """Sum of tables at c_j, [P, M]."""
        queries = jax.lax.broadcasted_iota(jnp.int32, (self.pitch, 1), 0)
        return sum(table[*place, queries, columns] for table, *place in tables)

    def collect(self, columns: Array, x: Array) -> list[Array]:
        """The transpose: x [P, M] summed by column, D / `span` arrays [P, `span`]."""
        x = x.reshape(self.pitch, -1, self.pitch)
        rows = columns.reshape(1, -1, self.pitch) // self.pitch
        return [
            jnp.where(rows == row, x, 0.0).sum(1)
            for row in range(self.depth // self.pitch)
        ]


class Products(NamedTuple):
    """Products with a 0/1 matrix, exact for the bfloat16 pieces a table is cut into.

    Attributes:
      depth: D, columns of a table.
      pieces: of eight bits; three hold float32, two more than bfloat16 logits do.
    """

    depth: int
    pieces: int

    @property
    def span(self) -> int:
        """Columns of the table that an array of `collect` has: all."""
        return self.depth

    def prepare(self, columns: Array) -> Array:
        """E [D, M] from c, int32 [1, M]."""
        numbers = jax.lax.broadcasted_iota(jnp.int32, (self.depth, columns.shape[1]), 0)
        return jnp.where(numbers == columns, 1.0, 0.0).astype(jnp.bfloat16)

    def read(self, expand: Array, *tables: TableRow) -> Array:
        """Sum of tables at c_j, [P, M]."""
        table = sum(table[*place] if place else table[...] for table, *place in tables)
        return self._dot(table, expand, axis=0)

    def collect(self, expand: Array, x: Array) -> list[Array]:
        """The transpose: x [P, M] summed by column, as one array [P, D]."""
        return [self._dot(x, expand, axis=1)]

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
