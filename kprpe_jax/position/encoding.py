"""Position encodings as bias tables: RPE, contextual iRPE, and KP-RPE in its forms.

A `PositionBias` owns the tables of all layers and hands each attention layer its own.
Tables start at zero, so training starts from the plain transformer; those of KP-RPE can
have an anchored initialization instead (`anchored_init`).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array
from jax.nn.initializers import Initializer
from jax.sharding import NamedSharding, PartitionSpec

from kprpe_jax import registry
from kprpe_jax.core.checks import check_option
from kprpe_jax.core.constraints import constrain, copy_per_share
from kprpe_jax.position.anchored_init import anchored_tables
from kprpe_jax.position.buckets import compute_buckets, patch_centers
from kprpe_jax.position.keypoint_bias import (
    direct_table,
    grid_table,
    keypoint_table,
    relative_keypoints,
)
from kprpe_jax.position.lookup import BucketSet, lookup, lookup_rows, num_buckets

# Forms of f(P), and those of them that can have an anchored initialization.
KEYPOINT_FORMS = (
    "kprpe_absolute",
    "kprpe_relative",
    "kprpe_multihead",
    "kprpe_scalar",
)
ANCHORED_FORMS = ("kprpe_relative", "kprpe_multihead")
NO_BIAS = ("none", "absolute", "absolute_drawn")
POSITIONS = (*NO_BIAS, *registry.POSITIONS)


@struct.dataclass
class BiasTables:
    """Tables that attention layers read; None where the encoding has no such part.

    Leading axis L in a `PositionBias` result, absent inside one layer. G groups share
    the batch in order, B / G images each: of 1, all images share a table, of B none do.
    H' is the number of heads, or 1 where they share; last axis = bucket unless said
    otherwise.

    Attributes:
      shared: float32 [L, G, H', num_buckets], read at d(i, j).
      rows: float32 [L, G, H', N, num_buckets], read at i, d(i, j).
      context_q, context_k: float32 [L, H', head_dim, num_buckets], multiplied with
        keys and queries before the read (Eq. 4, R^Q and R^K).
      context_v: float32 [L, H', num_buckets, head_dim], R^V of Eq. 4.
    """

    shared: Array | None = None
    rows: Array | None = None
    context_q: Array | None = None
    context_k: Array | None = None
    context_v: Array | None = None

    def layer(self, index: int) -> "BiasTables":
        """Tables of one layer; layers beyond the last share table 0."""
        return jax.tree.map(lambda t: t[min(index, t.shape[0] - 1)], self)

    def stacked(self, num_layers: int) -> "BiasTables":
        """The same tables with a leading axis of `num_layers`, for `nn.scan`."""
        return jax.tree.map(
            lambda t: jnp.broadcast_to(t, (num_layers, *t.shape[1:])), self
        )


class Encoding(NamedTuple):
    """A position encoding of `PositionBias`; see `registry.POSITIONS`.

    Attributes:
      tables: (module, keypoints, sharding) -> BiasTables of all layers. Declares its
        parameters by `module.param` and reads the fields of the module, a
        `PositionBias`; the other arguments are those of its `__call__`.
      reads_keypoints: whether keypoints are needed.
      stands_alone: whether `position_bias` is all of it; else tables are multiplied
        with queries, keys or values.
    """

    tables: Callable[..., BiasTables]
    reads_keypoints: bool = False
    stands_alone: bool = True


def find_encoding(position: str) -> Encoding | None:
    """The encoding of a value of `position`; None = it is no bias."""
    path = registry.POSITIONS.get(position)
    return None if path is None else registry.resolve(path)


def position_bias(
    tables: BiasTables, buckets: BucketSet, num_images: int | None = None
) -> Array | float:
    """B_ij of one layer (Eq. 7 and 11), without the contextual parts.

    Args:
      tables: of one layer.
      buckets: of the token grid; static under `jax.jit`
        (`static_argnames="buckets"`), or taken from outside the compiled function.
      num_images: B, where tables may be of groups of several images.
    Returns: float32 [1 or B, H', N, N], or 0.0 where the encoding has no bias.
    """
    bias = 0.0
    if tables.shared is not None:
        bias += of_images(lookup(tables.shared, buckets), num_images)
    if tables.rows is not None:
        bias += of_images(lookup_rows(tables.rows, buckets), num_images)
    return bias


# Options of `PositionBias` to follow the paper's equations to the letter.
PAPER = dict(scale_bias=True)


def of_images(table: Array, num_images: int | None) -> Array:
    """What groups have [G, ...], for each image [B, ...]; of one group it stays so.

    Args:
      table: [G, ...].
      num_images: B, a multiple of G; None = G.
    """
    groups = table.shape[0]
    if groups == 1 or num_images is None:
        return table
    return jnp.repeat(table, num_images // groups, axis=0)


class PositionBias(nn.Module):
    """The tables of an encoding for all layers.

    Source: KP-RPE, Sec. 3.1 (RPE, iRPE) and 3.2 (f(P) in three forms, per layer or
    shared over depth). The bias c of f(P) is the official code's; the paper has none.

    Attributes:
      position: of `registry.POSITIONS`: `rpe`, `irpe`, `kprpe_absolute` (f(P) read at
        d(i, j)), `kprpe_relative` (query relative to keypoints, heads share),
        `kprpe_multihead` (each head its own), `kprpe_scalar` (what the released code
        computes for "absolute": one number per image, which softmax removes).
      num_layers, num_heads, head_dim: of the transformer.
      grid: (rows, columns) of tokens.
      num_keypoints: K; ignored by `rpe` and `irpe`.
      method, ratio: of `compute_buckets`.
      per_layer: own tables for each layer, else one for all.
      per_head: own tables for each head in `rpe` and `irpe`, else one for all.
      context: for `irpe`, which of q, k, v have tables; the paper's default is k, the
        released configuration qkv.
      factorized: KP-RPE as A - g, else with a table per image and query.
      hidden_dim: > 0 puts a ReLU, layer norm and linear layer of that width into f(P)
        (the released `_v2` forms); not linear, so never factorized.
      stop_keypoint_gradient: no gradient to the keypoints, as in the official code.
      scale_bias: Eq. 5 divides the bias, too, by sqrt(head_dim); the official code
        adds it undivided, which is the default, as for official weights. PAPER is the
        paper's form: parameters need their own value, the shapes do not tell.
      anchor_width: > 0 starts every head at its own keypoint-anchored location
        (`anchored_init`): width of the Gaussian in fractions of the image; 0 = zero
        initialization, as published.
        ANCHORED_FORMS read it, where buckets tell directions apart and `hidden_dim` is
        0; the other forms cannot express it and ignore it.
      anchor_template: (x, y) of the keypoints in an upright image, in fractions of it;
        the first num_keypoints are read, three or more.
    """

    position: str
    num_layers: int
    num_heads: int
    head_dim: int
    grid: tuple[int, int]
    num_keypoints: int = 5
    method: str = "product"
    ratio: float = 1.9
    per_layer: bool = True
    per_head: bool = True
    context: str = "k"
    factorized: bool = True
    hidden_dim: int = 0
    stop_keypoint_gradient: bool = False
    scale_bias: bool = False
    anchor_width: float = 0.0
    anchor_template: Sequence[Sequence[float]] = ()

    @property
    def buckets(self) -> BucketSet:
        """Bucket ids of the token grid."""
        return compute_buckets(tuple(self.grid), self.method, self.ratio)

    @property
    def table_shape(self) -> tuple[int, int, int]:
        """(layers, heads, buckets) of tables; 1 where layers or heads share."""
        layers = self.num_layers if self.per_layer else 1
        heads = self.num_heads if self.per_head else 1
        return layers, heads, num_buckets(self.buckets)

    @property
    def scale(self) -> float:
        """Factor of the tables (`scale_bias`)."""
        return self.head_dim**-0.5 if self.scale_bias else 1.0

    @nn.compact
    def __call__(
        self, keypoints: Array | None = None, sharding: NamedSharding | None = None
    ) -> BiasTables:
        """Tables for a batch.

        Args:
          keypoints: float32 [B, num_keypoints, 2]; only KP-RPE reads them.
          sharding: of the batch axis over devices. Tables lie where the images do that
            read them, else those of split parameters would be gathered for all images.
            What all images share has a copy for each device, else gradients [H, N, N]
            would be summed over devices rather than those of the parameters.
        Returns: `BiasTables` whose leading axis is num_layers or 1.
        Raises: ValueError: unknown position or context; keypoints of another number; an
          anchored initialization that the encoding cannot express.
        """
        self._check(keypoints)
        tables = find_encoding(self.position).tables(self, keypoints, sharding)
        if sharding is None:
            return tables
        spec = PartitionSpec(None, *sharding.spec[:1])
        by_image = NamedSharding(sharding.mesh, spec)
        biases = dict(shared=tables.shared, rows=tables.rows)
        return tables.replace(
            **{k: x if x is None else constrain(x, by_image) for k, x in biases.items()}
        )

    def _check(self, keypoints: Array | None) -> None:
        check_option("PositionBias", "position", self.position, registry.POSITIONS)
        letters = set(self.context)
        if not letters or not letters <= set("qkv") or len(letters) < len(self.context):
            raise ValueError(
                "PositionBias: context must be one or more of the letters q, k and v; "
                f"got {self.context!r}; the paper's is 'k'."
            )
        if not find_encoding(self.position).reads_keypoints:
            return
        got = None if keypoints is None else keypoints.shape
        if got is None or len(got) != 3 or got[1:] != (self.num_keypoints, 2):
            raise ValueError(
                f"PositionBias: position {self.position!r} needs keypoints "
                f"[B, {self.num_keypoints}, 2]; got {got}; set num_keypoints."
            )


def _rpe_tables(
    module: PositionBias, keypoints: Array | None, sharding: NamedSharding | None
) -> BiasTables:
    """A number for each bucket (Eq. 3)."""
    del keypoints
    table = module.param("table", nn.initializers.zeros, module.table_shape)
    return BiasTables(shared=copy_per_share(module.scale * table, sharding, axis=1))


def _irpe_tables(
    module: PositionBias, keypoints: Array | None, sharding: NamedSharding | None
) -> BiasTables:
    """Vectors for each bucket, multiplied with q, k or v (Eq. 4)."""
    del keypoints, sharding
    layers, heads, size = module.table_shape

    def table(name: str, *shape: int) -> Array | None:
        if name not in module.context:
            return None
        zeros = nn.initializers.zeros
        return module.param(f"table_{name}", zeros, (layers, heads, *shape))

    return BiasTables(
        context_q=table("q", module.head_dim, size),
        context_k=table("k", module.head_dim, size),
        context_v=table("v", size, module.head_dim),
    )


def _keypoint_tables(
    module: PositionBias, keypoints: Array | None, sharding: NamedSharding | None
) -> BiasTables:
    """f(P), the tables that follow the keypoints (Eq. 8-11)."""
    if module.stop_keypoint_gradient:
        keypoints = jax.lax.stop_gradient(keypoints)
    centers = patch_centers(module.grid)
    layers, _, size = module.table_shape
    heads = module.num_heads if module.position == "kprpe_multihead" else 1
    scale = module.scale
    if module.hidden_dim:
        return _nonlinear_tables(module, keypoints, centers, (layers, heads, size))

    shape = (2 * module.num_keypoints, layers, heads, size)
    kernel_init, bias_init = _starts(module, layers, heads, centers)
    kernel = scale * module.param("kernel", kernel_init, shape)
    bias = scale * module.param("bias", bias_init, shape[1:])
    if module.position in ("kprpe_absolute", "kprpe_scalar"):
        table = keypoint_table(kernel, keypoints) + bias[:, None]
        if module.position == "kprpe_scalar":
            here = int(module.buckets[0].ids[0, 0])  # the bucket of distance zero
            table = jnp.broadcast_to(table[..., here : here + 1], table.shape)
        return BiasTables(shared=table)
    if not module.factorized:
        return BiasTables(rows=direct_table(kernel, bias, keypoints, centers))
    return BiasTables(
        rows=grid_table(
            copy_per_share(kernel, sharding, axis=2),
            copy_per_share(bias, sharding, axis=1),
            centers,
        ),
        shared=-keypoint_table(kernel, keypoints),
    )


def _nonlinear_tables(
    module: PositionBias,
    keypoints: Array,
    centers: np.ndarray,
    shape: tuple[int, int, int],
) -> BiasTables:
    """f(P) with a hidden layer: the released `_v2` forms."""
    if module.anchor_width:
        raise ValueError(
            "PositionBias: with a hidden layer f(P) is not linear, so it has no "
            f"anchored initialization; got hidden_dim {module.hidden_dim} and "
            f"anchor_width {module.anchor_width}; set one of them to 0."
        )
    of_places = nn.Dense(  # as exact as the linear forms
        module.hidden_dim, precision=jax.lax.Precision.HIGHEST, name="hidden"
    )
    hidden = nn.relu(of_places(relative_keypoints(keypoints, centers)))
    hidden = nn.LayerNorm(epsilon=1e-5, name="norm")(hidden)
    out = nn.DenseGeneral(shape, kernel_init=nn.initializers.zeros, name="out")
    return BiasTables(rows=module.scale * out(hidden).transpose(2, 0, 3, 1, 4))


def _starts(
    module: PositionBias, layers: int, heads: int, centers: np.ndarray
) -> tuple[Initializer, Initializer]:
    """Initializers of W and c."""
    if not module.anchor_width or module.position not in ANCHORED_FORMS:
        return nn.initializers.zeros, nn.initializers.zeros
    template = module.anchor_template[: module.num_keypoints]
    if len(template) < module.num_keypoints:
        raise ValueError(
            "PositionBias: anchor_template must have num_keypoints = "
            f"{module.num_keypoints} points; got {len(template)}; add to it, or set "
            "anchor_width to 0."
        )
    kernel, bias = anchored_tables(
        template, (layers, heads), module.buckets, centers, module.anchor_width
    )
    return (
        lambda _, shape: jnp.asarray(kernel / module.scale).reshape(shape),
        lambda _, shape: jnp.asarray(bias / module.scale).reshape(shape),
    )


RPE = Encoding(_rpe_tables)
IRPE = Encoding(_irpe_tables, stands_alone=False)
KPRPE = Encoding(_keypoint_tables, reads_keypoints=True)
