"""The snippets of the pages on single pieces run as they stand."""

import ast
import pathlib
import re
from functools import partial

import jax
import pytest

from tests.quick import OPTIONS

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def compile_quickly(monkeypatch):
    """Snippets say `jax.jit`; here it is `quick_jit`."""
    monkeypatch.setattr(jax, "jit", partial(jax.jit, compiler_options=OPTIONS))


def snippet(page: str, heading: str) -> str:
    """The first block of Python under a heading."""
    text = (ROOT / "docs" / page).read_text()
    section = text.split(f"# {heading}\n", 1)[1]
    return re.search(r"```python\n(.*?)```", section, re.DOTALL)[1]


@pytest.mark.parametrize(
    ("heading", "shapes"),
    [
        ("The bias of KP-RPE", {"bias": (2, 8, 196, 196)}),
        ("A thin-plate warp", {"warped": (2, 64, 48, 3)}),
        ("Cluster & Aggregate as a stream", {"embeddings": (2, 64)}),
        (
            "Earth mover's distance with gradients",
            {"distances": (4,), "gradient": (4, 20, 2)},
        ),
        ("Margin softmax on a mesh", {"value": ()}),
    ],
)
def test_snippets_run(heading, shapes):
    names = {}
    exec(compile(snippet("pieces.md", heading), heading, "exec"), names)
    assert {name: names[name].shape for name in shapes} == shapes


@pytest.mark.slow
def test_the_stream_of_the_page_on_fusion_runs():
    names = {}
    heading = "Fuse a stream in Python"
    exec(compile(snippet("fusion.md", heading), heading, "exec"), names)
    assert names["embedding"].shape == (1, 512)


def test_what_the_snippet_of_a_run_imports_exists():
    """The rest of it needs a trained run."""
    code = ast.parse(snippet("pieces.md", "The backbone of a trained run"))
    code.body = [x for x in code.body if isinstance(x, ast.Import | ast.ImportFrom)]
    names = {}
    exec(compile(code, "imports", "exec"), names)
    assert {"Recognizer", "load_recognizer"} <= set(names)


def test_every_snippet_is_tested():
    assert (ROOT / "docs" / "pieces.md").read_text().count("```python") == 6
