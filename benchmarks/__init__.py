"""Speed and size, as ratios between variants of one run."""
