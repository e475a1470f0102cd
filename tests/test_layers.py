"""The package's order: which folder may import which, read from the sources."""

import ast
import collections
import pathlib

import pytest

PACKAGE = pathlib.Path(__file__).parents[1] / "kprpe_jax"
LAYERS = (  # a folder imports from its own line and from those above
    "core published_networks model_cards packed_networks registry",
    "geometry position layers",
    "backbones alignment detection fusion matching",
    "losses augmentation",
    "data weights evaluation",
    "tasks",
    "training",
    "compiled",
    "report",
    "recognizers",
    "gallery",
    "commands",
)
RANKS = {name: rank for rank, line in enumerate(LAYERS) for name in line.split()}
FREE = ("__init__", "__main__", "configs")  # the front doors, and no part of the order
MOST_LINES = 450
FILES = sorted(PACKAGE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text("utf-8")) for path in FILES}


def _part(path: pathlib.Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def _imported(tree: ast.AST) -> set[str]:
    """Parts of the package that a file imports from, inside functions, too."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    parts = [name.split(".") for name in names]
    return {part[1] for part in parts if part[0] == "kprpe_jax" and len(part) > 1}


def test_layers_point_one_way():
    wrong, unknown = [], set()
    for path, tree in TREES.items():
        if (part := _part(path)) in FREE:
            continue
        imported = _imported(tree) - {"configs", "__version__"}
        unknown |= ({part} | imported) - set(RANKS)
        wrong += [
            f"{path.relative_to(PACKAGE)} imports {other}"
            for other in imported & set(RANKS)
            if part in RANKS and RANKS[other] > RANKS[part]
        ]
    assert not wrong
    assert not unknown, "no layer is known of these"


@pytest.mark.parametrize("part", [part for part in RANKS if part != "registry"])
def test_every_layer_is_there(part):
    assert (PACKAGE / part).is_dir() or (PACKAGE / f"{part}.py").is_file()


def test_no_class_name_stands_twice():
    found = collections.defaultdict(list)
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                found[node.name].append(str(path.relative_to(PACKAGE)))
    assert not {name: files for name, files in found.items() if len(files) > 1}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_are_short_and_have_no_command_line(path):
    text = path.read_text("utf-8")
    assert len(text.splitlines()) <= MOST_LINES
    assert 'if __name__ == "__main__"' not in text


def test_three_commands_have_a_main():
    root = PACKAGE.parent
    folders = ("kprpe_jax", "configs", "benchmarks", "experiments", "tests")
    found = {
        str(path.parent.relative_to(root))
        for folder in folders
        for path in (root / folder).rglob("__main__.py")
    }
    assert found == {"kprpe_jax", "benchmarks", "experiments"}
