"""Train: python train.py --config configs/digits.py --workdir runs/digits.

The same as `kprpe-jax train`; `python train.py --help` tells the options.
"""

import sys

from kprpe_jax.commands.main import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
