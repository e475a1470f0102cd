"""The compiled renderer, shared by all tests: compiling it takes most of the time."""

import jax
import numpy as np
import pytest

from kprpe_jax.data.synthetic import faces
from kprpe_jax.data.synthetic.nuisance import Severity

B = 16  # every call renders as many, so that there is one program


@pytest.fixture(scope="session")
def render():
    """Render 16 faces with some nuisances; `change` sets fields of the shots."""
    shots = jax.jit(faces.sample_shots, static_argnames="layout")
    program = jax.jit(faces.render, static_argnames="size")

    def run(identity, index, severity=None, *, layout="aligned", seed=0, **change):
        identity, index = (
            np.broadcast_to(np.asarray(n, np.int32), B) for n in (identity, index)
        )
        form = [np.float32(0)] * len(Severity._fields) if severity is None else severity
        shot = shots(seed, identity, index, severity=Severity(*form), layout=layout)
        change = {k: np.broadcast_to(np.float32(v), B) for k, v in change.items()}
        return jax.device_get(program(seed, identity, shot._replace(**change)))

    return run


@pytest.fixture(scope="session")
def ordinary():
    """Every nuisance at its ordinary strength."""
    return [np.float32(1)] * len(Severity._fields)
