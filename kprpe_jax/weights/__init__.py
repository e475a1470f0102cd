"""Published weights in and out: state dicts, and a rules file per network."""
