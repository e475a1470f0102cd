"""Which published network a file of weights looks like, by a few names and shapes."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from kprpe_jax.weights.signature_table import SIGNATURES
from kprpe_jax.weights.state_dict import part_prefixes

_ENTRIES = 8  # of a signature
_LEAST = 0.5  # share of a signature that a file must hold to look like its network


def looks_like(arrays: Mapping[str, Any]) -> list[str]:
    """Published networks whose names and shapes a file has.

    Args:
      arrays: anything with a shape, by PyTorch name, with a prefix or not.
    Returns: keys of `registry.NETWORKS`; several where their files have the same names;
      none where no network is near.
    """
    found: list[tuple[float, int, str]] = []
    for prefix in ("", *part_prefixes(arrays)):
        own = {
            k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)
        }
        own = {k: v for k, v in own.items() if not k.endswith("num_batches_tracked")}
        entries = {_entry(name, x.shape) for name, x in own.items()}
        for name, (count, signature) in SIGNATURES.items():
            wanted = signature.split()
            share = sum(x in entries for x in wanted) / len(wanted)
            # A small network's names may all be in a larger one.
            found.append((share, -abs(count - len(own)), name))
    best = max(found)[:2]
    if best[0] < _LEAST:
        return []
    return sorted({name for *rank, name in found if tuple(rank) == best})


def make_signatures(
    layouts: Mapping[str, Mapping[str, Iterable[int]]],
) -> dict[str, tuple[int, str]]:
    """The table of `signature_table`.

    Args:
      layouts: of each network, the shapes of its file by PyTorch name.
    Returns: how many arrays each has, and those entries that the fewest others have.
    """
    entries = {
        name: sorted(_entry(k, shape) for k, shape in layout.items())
        for name, layout in layouts.items()
    }
    shared = Counter(x for found in entries.values() for x in found)
    return {
        name: (len(own), " ".join(sorted(own, key=lambda x: (shared[x], x))[:_ENTRIES]))
        for name, own in entries.items()
    }


def _entry(name: str, shape: Iterable[int]) -> str:
    text = f"{name} {[int(x) for x in shape]}"
    return hashlib.sha256(text.encode()).hexdigest()[:6]
