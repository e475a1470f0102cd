"""Coordinates only: affine maps, bilinear sampling, keypoint transforms."""
