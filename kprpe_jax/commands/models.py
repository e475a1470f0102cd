"""List the published networks, or show the card of one.

    kprpe-jax models
    kprpe-jax models vit_kprpe_base_multihead

A published network and its file make a SPEC: NAME:FILE. The card says of which paper
the network is, where its files are published and under which names, on what they were
trained, their terms, the input contract, and which accuracy was published and which our
evaluators reached; what is not known is "unknown".
"""

import argparse
import sys

from kprpe_jax.model_cards import UNKNOWN, card
from kprpe_jax.packed_networks import PACKED, packed_file
from kprpe_jax.published_networks import FUSIONS_OF
from kprpe_jax.registry import NETWORKS, network


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="show this one")


def run(options: argparse.Namespace) -> None:
    """Run the models command."""
    if options.name:
        packed = options.name in PACKED
        rows = _packed_rows(options.name) if packed else _card_rows(options.name)
        width = max(map(len, rows))
        for name, value in rows.items():
            sys.stdout.write(f"{name:<{width}}  {value}\n")
        return
    width = max(map(len, NETWORKS))
    for name, found in NETWORKS.items():
        spec = found.input_spec
        sys.stdout.write(
            f"{name:<{width}}  {found.kind:<10}  {found.size:<19}  "
            f"{found.parameters:7.2f} M  {spec.describe() if spec else '-'}; "
            f"{found.license}; {found.source}\n"
        )
    for name in PACKED:
        sys.stdout.write(f"{name:<{width}}  recognizer  in the package\n")


def _packed_rows(name: str) -> dict[str, str]:
    """The rows of the card of a network that comes with the package."""
    import jax

    from kprpe_jax.weights.recognizer_file import read_recognizer

    recognizer, known = read_recognizer(packed_file(name)), PACKED[name]
    size = sum(leaf.size for leaf in jax.tree.leaves(recognizer.variables))
    return {
        "name": name,
        "kind": "recognizer",
        "parameters": f"{size / 1e6:.2f} M",
        "paper": known.paper,
        "files": known.files,
        "training data": known.training_data,
        "license": recognizer.license,
        "input": recognizer.input_spec.describe(),
        "embedding": f"{recognizer.module.output_dim} numbers",
        "measured here": known.measured,
    }


def _card_rows(name: str) -> dict[str, str]:
    """The rows of a network's card."""
    found, known = network(name), card(name)
    spec = found.input_spec
    rows = {
        "name": name,
        "kind": found.kind,
        "size": found.size,
        "parameters": f"{found.parameters:.2f} M",
        "paper": known.paper,
        "files": known.files,
        "published at": found.source,
        "SHA-256": ", ".join(f"{k} {v}" for k, v in known.sha256.items()) or UNKNOWN,
        "training data": known.training_data,
        "license": found.license,
        "input": spec.describe() if spec else "-",
    }
    if found.kind == "recognizer":
        rows["embedding"] = f"{found.make().output_dim} numbers"
    if name in FUSIONS_OF:
        rows["fusion"] = f"the same file is --fusion {name}: {FUSIONS_OF[name]}"
    rows["published accuracy"] = known.published
    rows["measured here"] = known.measured
    return rows
