"""Published networks have the names, shapes and sizes of the official files."""

import numpy as np
import pytest

from kprpe_jax.weights import check_weights
from tests.golden.golden import layout_params, load_layout

pytestmark = pytest.mark.golden

NAMES = {  # layout -> published name, where they differ
    "caface_aggregator_g2_conf1_small": "caface_g2_conf1",
    "caface_aggregator_g4_conf512_small": "caface_g4_conf512",
    "retinaface_mnet": "retinaface_mnet025",
    "swingait2d_B1442_C2_gait3d_assembled": "swingait2d_B1442_C2_gait3d",
}


@pytest.mark.parametrize("layout", layout_params(""))
def test_official_names_and_shapes_fit(layout):
    zero = np.zeros((), np.float32)  # broadcast: full size without the memory
    weights = {k: np.broadcast_to(zero, s) for k, s in load_layout(layout).items()}
    check_weights(NAMES.get(layout, layout), weights)
