"""The names that `import kprpe_jax` offers, and that it imports nothing heavy."""

import subprocess
import sys

import pytest

import kprpe_jax


@pytest.mark.parametrize("name", kprpe_jax.__all__)
def test_every_name_resolves(name):
    assert getattr(kprpe_jax, name) is not None
    assert name in dir(kprpe_jax)


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="has no attribute 'Vit'"):
        kprpe_jax.Vit  # noqa: B018


def test_importing_the_package_imports_nothing_heavy():
    heavy = ["jax", "numpy", "flax", "tensorflow_datasets"]
    code = f"import sys, kprpe_jax; print(set({heavy}) & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"
