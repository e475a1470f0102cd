"""People by their photos: a gallery on disk, enrollment, identification."""
