"""Images to landmarks, and faces to where a recognizer expects them."""
