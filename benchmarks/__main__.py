"""Run `python -m benchmarks NAME [options]`."""

from benchmarks.command import main

main()
