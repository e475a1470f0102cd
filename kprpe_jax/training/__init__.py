"""Mesh and shardings, optimiser, state, step, loop, checkpoints."""
