"""Augmentation on the device, with keypoints that follow the picture."""
