"""Run train.py on the toy task, as a process of its own."""

import functools
import os

from absl import app

import train
from kprpe_jax.training import loop
from tests.training import toy

if __name__ == "__main__":
    bad_row = int(os.environ.get("TOY_BAD_ROW", "-1"))
    loop.train = functools.partial(loop.train, task=toy.make_task(bad_row=bad_row))
    app.run(train.main, flags_parser=train.parse_flags)
