"""Run `python -m kprpe_jax VERB`."""

from kprpe_jax.commands.main import main

main()
