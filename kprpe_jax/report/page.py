"""One-file HTML pages for data from strangers.

Nothing is loaded from anywhere. The data reach the page as JSON, its script shows them
as text, and the page's policy lets no other script run.
"""

import base64
import hashlib
import html
import io
import json
import os
import pathlib
from importlib import resources
from typing import Any

import numpy as np
from PIL import Image


def write_page(path: str | os.PathLike, name: str, title: str, data: Any) -> None:
    """Write a page made of static/NAME.js and static/NAME.css.

    Args:
      path: of the HTML file.
      name: of the script and style.
      title: of the page.
      data: what JSON can hold; the script finds it in the element `data`.
    """
    text = json.dumps(data, separators=(",", ":"))
    text = text.replace("<", "\\u003c")  # "</script>" in a name would end the data
    folder = resources.files("kprpe_jax.report") / "static"
    script, style = (
        (folder / f"{name}.{kind}").read_text("utf-8") for kind in ("js", "css")
    )
    policy = (
        "default-src 'none'; img-src data:; "
        f"script-src 'sha256-{_digest(script)}'; style-src 'sha256-{_digest(style)}'"
    )
    pathlib.Path(path).write_text(
        "<!DOCTYPE html>\n"
        '<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title>"
        f"<style>{style}</style></head>\n"
        f"<body><h1>{html.escape(title)}</h1><main></main>"
        f'<script type="application/json" id="data">{text}</script>\n'
        f"<script>{script}</script></body></html>\n",
        encoding="utf-8",
    )


def data_uri(image: np.ndarray, where: str) -> str:
    """An image as text for a page.

    Args:
      image: uint8 [H, W, 3].
      where: for the error.
    Raises: ValueError: not such an image.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
        raise ValueError(
            f"{where}: images must be uint8 [H, W, 3]; got {image.dtype} "
            f"{image.shape}; convert them."
        )
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=90)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
