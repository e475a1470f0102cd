"""Any number of images of one person become one embedding."""
