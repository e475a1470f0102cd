"""Run `kprpe-jax train` on the toy task, as a process of its own."""

import functools
import os
import sys

from kprpe_jax.commands.main import main
from kprpe_jax.training import loop
from tests.training import toy

ROWS = ("bad_row", "hang_row")

if __name__ == "__main__":
    rows = {x: int(os.environ.get(f"TOY_{x.upper()}", "-1")) for x in ROWS}
    loop.train = functools.partial(loop.train, task=toy.make_task(**rows))
    main(["train", *sys.argv[1:]])
