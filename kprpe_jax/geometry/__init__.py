"""Coordinates only: affine maps, thin-plate splines, fits, bilinear sampling."""
