"""Losses: margin softmax and class centres sharded over the mesh."""
