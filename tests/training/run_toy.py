"""Run `kprpe-jax train`, or `eval`, on the toy task, as a process of its own."""

import os
import sys

from kprpe_jax import tasks
from kprpe_jax.commands.main import main
from tests.training import toy

ROWS = ("bad_row", "hang_row")

if __name__ == "__main__":
    rows = {x: int(os.environ.get(f"TOY_{x.upper()}", "-1")) for x in ROWS}
    batch_norm = os.environ.get("TOY_BATCH_NORM", "true") == "true"
    tasks.build = lambda config, mesh: toy.make_task(batch_norm=batch_norm, **rows)
    main([os.environ.get("TOY_VERB", "train"), *sys.argv[1:]])
