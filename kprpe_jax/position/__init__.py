"""Position encodings: buckets d(i, j), RPE, iRPE and the keypoint bias f(P)."""
