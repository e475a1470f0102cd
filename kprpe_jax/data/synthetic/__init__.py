"""Drawn faces: an embedded data set that needs no download."""
