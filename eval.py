"""Evaluate: python eval.py --model runs/digits.

The same as `kprpe-jax eval`; `python eval.py --help` tells the options.
"""

import sys

from kprpe_jax.commands.main import main

if __name__ == "__main__":
    main(["eval", *sys.argv[1:]])
