"""Synthetic faces and walkers: data sets of people that do not exist."""
