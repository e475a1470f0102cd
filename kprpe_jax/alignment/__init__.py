"""Align faces for recognizers: by keypoints, or by learned warps."""
