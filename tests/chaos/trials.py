"""Kill, fill disks, damage files: everything must come to the same end.

    python -m tests.chaos.trials [training two data disk enrollment] --kills 9 --seed 1

Prints the seed and what happened; writes a line to benchmarks/results/chaos.jsonl.
"""

import argparse
import os
import pathlib
import random
import shutil
import sys
import tempfile
from typing import Any

PARTS = ("training", "two", "data", "disk", "enrollment")


def make_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.trials")
    add = parser.add_argument
    add("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (all)")
    add("--kills", type=int, default=100, help="of trainings and of enrollments (100)")
    add("--photos", type=int, default=1000, help="good ones, and bad ones (1000)")
    add("--trials", type=int, default=10, help="of full disks and damaged files (10)")
    add("--seed", type=int, default=None, help="of all moments (a new one)")
    add("--record", action="store_true", help="add the figures to the results")
    return parser


def main() -> None:
    """Run the parts; exit code 1 where something did not come to the same end."""
    options = make_parser().parse_args()
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        sys.exit(f"error: a part is one of {', '.join(PARTS)}; got {min(unknown)!r}")
    seed = random.randrange(2**31) if options.seed is None else options.seed
    say(f"seed {seed}")
    results: dict[str, Any] = {}
    for part in options.parts or PARTS:
        folder = pathlib.Path(tempfile.mkdtemp(prefix=f"chaos_{part}_"))
        say(f"{part}: in {folder}")
        results[part] = run_part(part, folder, options, seed)
        say(f"{part}: {results[part]}")
        if not results[part].get("differences"):
            shutil.rmtree(folder)
    if options.record:
        from benchmarks import harness

        settings = dict(kills=options.kills, photos=options.photos)
        settings |= dict(trials=options.trials, seed=seed)
        harness.record("chaos", settings, results)
    if any(found.get("differences") for found in results.values()):
        sys.exit("chaos: not everything came to the same end")


def run_part(
    part: str, folder: pathlib.Path, options: argparse.Namespace, seed: int
) -> dict[str, Any]:
    """Run one part; what happened, in numbers and `differences`."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    if part in ("training", "two"):
        from tests.chaos.training import kill_often

        two = part == "two"
        kills = max(options.kills // 4, 1) if two else options.kills
        return kill_often(folder, kills=kills, processes=1 + two, seed=seed, say=say)
    if part == "data":
        from tests.chaos.damaged_data import damage_often

        return damage_often(folder, trials=options.trials, seed=seed, say=say)
    from tests.chaos import small_disk

    if part == "disk":
        return small_disk.in_own_mounts("training", folder, options.trials, seed)
    from tests.chaos.enrollment import enroll_often

    return enroll_often(
        folder,
        photos=options.photos,
        kills=options.kills,
        trials=options.trials,
        seed=seed,
        say=say,
    )


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
