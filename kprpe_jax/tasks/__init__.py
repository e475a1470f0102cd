"""What is trained: each task is an `init`, a `loss` and its evaluators for the one loop."""
