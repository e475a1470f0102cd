"""Parameters of tests over all published networks: one of each kind every day."""

from collections.abc import Iterable

import pytest

from kprpe_jax.registry import NETWORKS


def first_of_kind(names: Iterable[str]) -> list:
    """Names as parameters; slow are those that differ from an earlier one in little.

    Of the same class, size and position encoding are the same layers: only files,
    contracts or numbers of classes differ.
    """
    seen, params = set(), []
    for name in names:
        found = NETWORKS[name]
        kind = found.build, found.presets, found.fields.get("position"), found.size
        params.append(pytest.param(name, marks=[pytest.mark.slow] * (kind in seen)))
        seen.add(kind)
    return params
