import numpy as np
import pytest

from kprpe_jax.weights.vit import check_weights
from tests.golden.golden import layout_params, load_layout

pytestmark = pytest.mark.golden


@pytest.mark.parametrize("layout", layout_params("vit_"))
def test_official_names_and_shapes_fit(layout):
    zero = np.zeros((), np.float32)  # broadcast: full size without the memory
    weights = {k: np.broadcast_to(zero, s) for k, s in load_layout(layout).items()}
    check_weights(layout, weights)
