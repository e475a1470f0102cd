"""`eval --model NAME:FILE` takes the network from the name, not from the config."""

import dataclasses

import pytest

from kprpe_jax import registry
from kprpe_jax.tasks import gait, pair_matching
from kprpe_jax.training.config import load_config
from kprpe_jax.training.evaluate import with_published

MATCHERS = [n for n, x in registry.NETWORKS.items() if x.kind == "pair matcher"]


@pytest.mark.parametrize("name", MATCHERS)
def test_of_pair_matchers(name):
    config = with_published(load_config("pair_matching_casia"), name)
    published = registry.NETWORKS[name]
    made, wanted = pair_matching.make_model(config.model), published.make()
    assert made == wanted  # patches of pixels were learned on 0..255
    assert config.train_backbone == (wanted.encoder.windows is None)


GAIT = [n for n, x in registry.NETWORKS.items() if x.kind == "gait" and "3d_B" not in n]


@pytest.mark.parametrize("config", ["gait3d", "gait3d:gaitset"])
@pytest.mark.parametrize("name", GAIT)
def test_of_gait(name, config):
    config = with_published(load_config(config), name)
    made, wanted = gait.make_model(config), registry.NETWORKS[name].make()
    assert type(made) is type(wanted)
    for field in dataclasses.fields(wanted):
        if field.name not in ("dtype", "position_options", "parent", "name"):
            assert getattr(made, field.name) == getattr(wanted, field.name), field.name


def test_a_config_of_another_task():
    with pytest.raises(ValueError, match="must be of the task gait, .* got one of pai"):
        with_published(load_config("pair_matching"), "swingait2d_B1442_C2_gait3d")
