"""List the published networks, or show one whole.

    kprpe-jax models
    kprpe-jax models vit_kprpe_base_multihead

A published network and its file make a SPEC: NAME:FILE.
"""

import argparse
import sys

from kprpe_jax.registry import NETWORKS, network


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="show this one")


def run(options: argparse.Namespace) -> None:
    """Run the models command."""
    if options.name:
        found = network(options.name)
        spec = found.input_spec
        rows = {
            "name": options.name,
            "kind": found.kind,
            "size": found.size,
            "parameters": f"{found.parameters:.2f} M",
            "input": spec.describe() if spec else "-",
            "license": found.license,
            "source": found.source,
        }
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
