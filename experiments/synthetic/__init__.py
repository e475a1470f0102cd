"""Experiments of synthetic."""
