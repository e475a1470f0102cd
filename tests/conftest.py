"""Eight simulated CPU devices for every test; set before JAX starts."""

import os

os.environ["JAX_PLATFORMS"] = os.environ.get("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)

import numpy as np
import pytest
from absl import flags

flags.FLAGS.mark_as_parsed()  # Grain reads absl flags


@pytest.fixture
def rng() -> np.random.Generator:
    """Seeded NumPy generator, the same for every test."""
    return np.random.default_rng(0)
