"""Run benchmarks: python -m benchmarks run [--presets tiny,small --batch-size 8].

Prints ratios within this run and appends a line to benchmarks/results/.
"""

import argparse
import sys

from benchmarks import vit_position
from kprpe_jax.commands.options import words


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--presets", type=words, default=["tiny", "small"], help="sizes of the ViT"
    )
    parser.add_argument("--batch-size", type=int, default=8, help="images a call")
    parser.add_argument("--dtype", type=str, default="float32", help="compute type")
    parser.add_argument(
        "--rounds", type=int, default=7, help="timed calls of each variant"
    )


def run(options: argparse.Namespace) -> None:
    """Run and print."""
    for preset in options.presets:
        results = vit_position.run(
            preset, options.batch_size, dtype=options.dtype, rounds=options.rounds
        )
        sys.stdout.write(f"\nvit_position, {preset}, batch {options.batch_size}\n")
        for mode, variants in results.items():
            for name, r in variants.items():
                sys.stdout.write(
                    f"  {mode:5} {name:17} {r['items_per_s']:9.2f} images/s  "
                    f"time x {r['time_ratio']:.3f}  {r['gflop']:9.2f} GFLOP  "
                    f"{r['temporary_mib']:8.1f} MiB temporary\n"
                )
