"""Losses: margin softmax and class centers sharded over the mesh."""
