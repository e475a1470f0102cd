"""Run benchmarks: python -m benchmarks.run [--presets tiny,small --batch_size 8].

Prints ratios within this run and appends a line to benchmarks/results/.
"""

import sys

from absl import app, flags

from benchmarks import vit_position

_PRESETS = flags.DEFINE_list("presets", ["tiny", "small"], "Sizes of the ViT.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "Images a call.")
_DTYPE = flags.DEFINE_string("dtype", "float32", "Compute type.")
_ROUNDS = flags.DEFINE_integer("rounds", 7, "Timed calls of each variant.")


def main(_: list[str]) -> None:
    """Run and print."""
    for preset in _PRESETS.value:
        results = vit_position.run(
            preset, _BATCH_SIZE.value, dtype=_DTYPE.value, rounds=_ROUNDS.value
        )
        sys.stdout.write(f"\nvit_position, {preset}, batch {_BATCH_SIZE.value}\n")
        for mode, variants in results.items():
            for name, r in variants.items():
                sys.stdout.write(
                    f"  {mode:5} {name:17} {r['items_per_s']:9.2f} images/s  "
                    f"time x {r['time_ratio']:.3f}  {r['gflop']:9.2f} GFLOP  "
                    f"{r['temporary_mib']:8.1f} MiB temporary\n"
                )


if __name__ == "__main__":
    app.run(main)
