"""Comparing faces patch by patch."""
