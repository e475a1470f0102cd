"""Run `kprpe-jax train` on the toy task, as a process of its own."""

import functools
import os
import sys

from kprpe_jax.commands.main import main
from kprpe_jax.training import loop
from tests.training import toy

if __name__ == "__main__":
    bad_row = int(os.environ.get("TOY_BAD_ROW", "-1"))
    loop.train = functools.partial(loop.train, task=toy.make_task(bad_row=bad_row))
    main(["train", *sys.argv[1:]])
