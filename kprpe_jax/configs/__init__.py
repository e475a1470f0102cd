"""The configs by name, `kprpe_jax.configs.digits`.

In a clone they lie in the folder configs beside this package; a wheel has them here.
"""

import pathlib

__path__ = [str(pathlib.Path(__file__).resolve().parents[2] / "configs")]
