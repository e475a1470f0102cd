"""Set fusion: images of one person to one embedding."""
