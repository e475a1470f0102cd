"""Images (and keypoints) to embeddings and feature maps."""
