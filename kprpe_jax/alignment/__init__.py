"""Images to landmarks, and faces to where a recogniser expects them."""
