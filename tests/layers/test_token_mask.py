import jax
import numpy as np
import pytest

from kprpe_jax.layers.token_mask import random_token_mask


@pytest.mark.parametrize(("tokens", "ratio", "visible"), [(64, 0.1, 57), (6, 0.99, 1)])
def test_random_token_mask_counts(tokens, ratio, visible):
    mask = np.asarray(random_token_mask(jax.random.key(0), 500, tokens, ratio))
    np.testing.assert_array_equal(mask.sum(1), visible)
    # Every place is hidden equally often: visible / tokens, six deviations.
    share = visible / tokens
    deviation = np.sqrt(share * (1 - share) / 500)
    assert np.abs(mask.mean(0) - share).max() < 6 * deviation
    other = np.asarray(random_token_mask(jax.random.key(1), 500, tokens, ratio))
    assert (mask != other).any()
