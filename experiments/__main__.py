"""Run `python -m experiments NAME [options]`."""

from experiments.command import main

main()
