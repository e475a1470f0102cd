"""People by their photos: a gallery on disk, enrolment, identification."""
