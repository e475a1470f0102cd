import re

import numpy as np
import pytest

from kprpe_jax.position.buckets import compute_buckets
from tests.golden.golden import case_params, load_case

pytestmark = pytest.mark.golden

# Official name -> our method and which of its tables.
METHODS = {
    "product": ("product", 0),
    "euc": ("euclidean", 0),
    "quant": ("quantized", 0),
    "rows": ("cross", 0),
    "cols": ("cross", 1),
}


@pytest.mark.parametrize("case", case_params("rpe_buckets"))
def test_tables_are_equal(case):
    outputs = load_case(case).arrays["out"]
    pattern = re.compile(r"(nbuckets__)?(\w+?)__(\d+)x(\d+)__r([\d.]+)__skip(\d+)")
    assert outputs
    for key, want in outputs.items():
        counts, name, rows, columns, ratio, skip = pattern.fullmatch(key).groups()
        method, part = METHODS[name]
        grid, border = (int(rows), int(columns)), int(skip)
        buckets = compute_buckets(grid, method, float(ratio))[part]
        if counts:  # one more for class tokens, which our networks do not have
            assert buckets.num_buckets + bool(border) == want.item(), key
        else:
            np.testing.assert_array_equal(
                buckets.ids, want[border:, border:], err_msg=key
            )
