"""Searching galleries, comparing faces patch by patch, ranking in two stages."""
