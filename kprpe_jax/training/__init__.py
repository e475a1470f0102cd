"""Mesh and shardings, optimizer, state, step, loop, checkpoints."""
