"""Photo to detections: RetinaFace and the differentiable aligner."""
