"""Files of data sets, as the tests of kprpe_jax.data make them."""

from tests.data.conftest import idx_dir

__all__ = ["idx_dir"]
