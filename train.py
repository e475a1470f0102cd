"""Train: python train.py --config configs/digits.py --workdir runs/digits.

Fields of the config are overridden by --config.section.field=value. Several processes
find each other by themselves under SLURM and on TPU slices, else by --coordinator,
--num_processes and --process_id.
"""

from absl import app

from kprpe_jax.training import loop
from kprpe_jax.training.command import (
    command,
    parse_flags,
    read_config,
    read_workdir,
)
from kprpe_jax.training.finite import NonFiniteError


def _train(overrides: list[str]) -> None:
    workdir = read_workdir()
    loop.train(read_config(overrides), workdir)


main = command(_train, failures=(NonFiniteError,))

if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
