"""Files of data sets and photos of people, as other tests make them."""

from tests.data.conftest import idx_dir
from tests.gallery.tiny import folder, networks

__all__ = ["folder", "idx_dir", "networks"]
