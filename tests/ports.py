"""An address on this machine that processes of a test can meet at."""

import socket


def free_address() -> str:
    """Host and port that nobody listens to."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{s.getsockname()[1]}"
