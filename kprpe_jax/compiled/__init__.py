"""Programs compiled for devices that need not be there, and what they would do."""
