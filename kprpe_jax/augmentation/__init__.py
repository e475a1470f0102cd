"""Augmentation on the device, which moves keypoints with their images."""
