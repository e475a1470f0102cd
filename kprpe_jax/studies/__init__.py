"""Experiments: several runs of train.py's loop, compared in a table and plots."""
