"""Official PyTorch weights in."""
