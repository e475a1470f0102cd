"""Published weights in and out: state dicts, and a file of rules per network."""

from kprpe_jax.weights.load import check_weights, export_weights, import_weights

__all__ = ["check_weights", "export_weights", "import_weights"]
