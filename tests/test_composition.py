"""Every network through every use, from the command line's function down.

A small sibling of each kind of network, made by its registry entry with random weights,
is written as a file and named by --model. The table is docs/composition.md: with
KPRPE_WRITE_PAGES=1 the last test writes it.
"""

import functools
import io
import json
import os
import pathlib
import tempfile
from contextlib import redirect_stderr, redirect_stdout

import numpy as np
import pytest
from PIL import Image

from kprpe_jax.commands.main import main
from kprpe_jax.geometry.template import face_template
from kprpe_jax.weights.recognizer_file import save_recognizer
from tests.siblings import SIBLINGS, aligned_sibling, sibling

pytestmark = pytest.mark.slow

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "composition.md"
PEOPLE, PHOTOS = 4, 3
ALIGNED = "joint alignment (tps) of vit_kprpe_base_multihead"
GAIT = "swingait2d_B1442_C2_gait3d"
NETWORKS = (*SIBLINGS, ALIGNED, GAIT)
NO_FACES = "a gait network reads sequences of silhouettes, not photos of faces"
# (network, use) -> why it is refused; {network: reason} refuses all uses.
REFUSED = {GAIT: NO_FACES}


def recognizer_of(network):
    """The small sibling."""
    return aligned_sibling() if network == ALIGNED else sibling(network)


@functools.cache
def model(network) -> str:
    """SPEC of the small sibling, a file."""
    path = _folder() / f"{network.split()[0]}{'_aligned' * (network == ALIGNED)}"
    path = path.with_suffix(".safetensors")
    save_recognizer(path, recognizer_of(network))
    return str(path)


@functools.cache
def _folder() -> pathlib.Path:
    holder = tempfile.TemporaryDirectory(prefix="kprpe_jax_composition_")
    _HOLDERS.append(holder)
    return pathlib.Path(holder.name)


_HOLDERS = []


def run(*arguments) -> str:
    """Run a verb; its output, or an AssertionError with what it said."""
    out, err = io.StringIO(), io.StringIO()
    status = 0
    with redirect_stdout(out), redirect_stderr(err):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as stop:
            status = stop.code or 0
    if status:
        raise Refused(status, err.getvalue())
    return out.getvalue()


class Refused(AssertionError):
    """A verb ended with an exit status other than 0."""

    def __init__(self, status, message):
        super().__init__(f"exit status {status}: {message}")
        self.status, self.message = status, message


@functools.cache
def photos(size) -> pathlib.Path:
    """PEOPLE folders of PHOTOS aligned faces: noise around a pattern each."""
    folder = _folder() / f"photos_{size}"
    rng = np.random.default_rng(0)
    for person in range(PEOPLE):
        cells = -(-size // 16)
        pattern = rng.uniform(0, 255, (cells, cells, 3))
        pattern = pattern.repeat(16, 0).repeat(16, 1)[:size, :size]
        for number in range(PHOTOS):
            pixels = pattern + rng.normal(0, 30, pattern.shape)
            path = folder / f"person{person}" / f"person{person}_{number + 1:04d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=95)
    return folder


@functools.cache
def data(size) -> pathlib.Path:
    """The photos as data sets: `people`, with pairs, and `templates`, IJB's form."""
    folder, source = _folder() / f"data_{size}", photos(size)
    points = " ".join(map(str, face_template((size, size)).ravel()))
    names = sorted(str(p.relative_to(source)) for p in source.rglob("*.jpg"))
    table = _folder() / f"points_{size}.csv"
    table.write_text("".join(f"{n},{points.replace(' ', ',')}\n" for n in names))
    pairs = _folder() / f"pairs_{size}.txt"
    lines = [f"2\t{PEOPLE // 2}"]
    for fold in range(2):
        people = [f"person{p}" for p in range(fold * 2, fold * 2 + 2)]
        lines += [f"{p}\t1\t2" for p in people]
        lines += [f"{people[i]}\t1\t{people[1 - i]}\t3" for i in range(2)]
    pairs.write_text("\n".join(lines) + "\n")
    raw = _folder() / f"ijb_{size}"
    (raw / "meta").mkdir(parents=True)
    (raw / "loose_crop").mkdir()
    media, scores = [], []
    for row, name in enumerate(names):
        flat = name.replace("/", "_")
        (raw / "loose_crop" / flat).write_bytes((source / name).read_bytes())
        person = row // PHOTOS
        template = 100 + (person if row % PHOTOS else PEOPLE + person)
        media.append(f"{flat} {template} {row % PHOTOS}")
        scores.append(f"{flat} {points} 0.9")
    ids = range(2 * PEOPLE)
    text = {
        "face_tid_mid.txt": media,
        "name_5pts_score.txt": scores,
        "template_pair_label.txt": [
            f"{100 + a} {100 + b} {int(a % PEOPLE == b % PEOPLE)}"
            for a in ids for b in ids if a < b
        ],
    }  # fmt: skip
    for name, rows in text.items():
        (raw / "meta" / f"ijbx_{name}").write_text("\n".join(rows) + "\n")
    named = ("--data-dir", folder)
    run("import", "ijb", "--source", raw, "--name", "templates", *named)
    run(
        "import", "folder", "--source", source, "--name", "people", *named,
        "--landmarks", table, "--landmark-units", "pixel", "--pairs", pairs,
    )  # fmt: skip
    return folder


def side(network) -> int:
    """Side of the stored faces that a network reads or takes the middle of."""
    return max(recognizer_of(network).image_size)


def evaluate(network, kind, dataset):
    size = side(network)
    config = _folder() / f"evaluate_{size}_{kind}.py"
    config.write_text(
        "from kprpe_jax.configs import lfw\n\n\n"
        "def get_config():\n"
        "    config = lfw.get_config()\n"
        f"    config.data.dir = {str(data(size))!r}\n"
        f"    config.data.image_shape = ({size}, {size}, 3)\n"
        "    for name, entry in list(config.evals.items()):\n"
        "        if hasattr(entry, 'type'):\n"
        "            del config.evals[name]\n"
        "    config.evals.batch_size = 8\n"
        "    config.evals.in_training = ()\n"
        f"    config.evals.it = dict(type={kind!r}, dataset={dataset!r})\n"
        "    return config\n"
    )
    output = _folder() / "eval.json"
    run("eval", "--model", model(network), "--config", config, "--output", output)
    return json.loads(output.read_text())


def evaluate_pairs(network):
    results = evaluate(network, "official_pairs", "people")
    assert 0 <= results["it/accuracy"] <= 1


def evaluate_templates(network):
    results = evaluate(network, "ijb", "templates")
    assert results["it/templates"] == 2 * PEOPLE


def embed(network):
    output = _folder() / "faces.npz"
    output.unlink(missing_ok=True)
    given = ("--photos", photos(side(network)), "--style", "--patches")
    out = run("embed", "--model", model(network), *given, "--output", output)
    assert f"{PEOPLE * PHOTOS} faces embedded" in out
    with np.load(output, allow_pickle=False) as file:
        assert all(np.isfinite(file[n]).all() for n in ("embeddings", "style"))
        rows, columns = recognizer_of(network).grid
        assert file["patches"].shape[:2] == (PEOPLE * PHOTOS, rows * columns)


def fuse(network):
    output = _folder() / f"fused_{len(list(_folder().glob('fused_*')))}"
    given = ("--photos", photos(side(network)), "--fusion", "average")
    out = run("fuse", "--model", model(network), *given, "--output", output)
    assert f"{PEOPLE} people fused" in out
    assert len(list(output.glob("*.npz"))) == PEOPLE


@functools.cache
def gallery(network) -> pathlib.Path:
    path = _folder() / f"{network.split()[0]}_{network == ALIGNED}.gallery"
    given = ("--gallery", path, "--photos", photos(side(network)))
    out = run("enroll", "--model", model(network), *given)
    assert f"{PEOPLE * PHOTOS} added" in out
    return path


def enroll(network):
    listed = run("gallery", "list", "--gallery", gallery(network))
    assert len([line for line in listed.splitlines() if "person" in line]) >= PEOPLE


def identify(network, *options):
    output = _folder() / "answers.json"
    given = ("--gallery", gallery(network), "--photos", photos(side(network)))
    run("identify", "--model", model(network), *given, "--output", output, *options)
    answers = json.loads(output.read_text())
    assert len(answers) == PEOPLE * PHOTOS
    for answer in answers:  # the photo itself is enrolled; random networks have ties
        scores = {row["person"]: row["score"] for row in answer["ranking"]}
        best = answer["ranking"][0]["score"]
        assert scores[answer["photo"].split("/")[0]] > best - 1e-3
        assert set(scores) == {f"person{p}" for p in range(PEOPLE)}


def two_stage_match(network):
    identify(network, "--candidates", PEOPLE)


def explain(network):
    page = _folder() / "why.html"
    photo = photos(side(network)) / "person1" / "person1_0001.jpg"
    given = ("--gallery", gallery(network), "--photos", photo, "--page", page)
    run("explain", "--model", model(network), *given)
    assert "person1" in page.read_text("utf-8")


def export(network):
    output = _folder() / "exported.safetensors"
    run("export", "--model", model(network), "--output", output)
    from kprpe_jax.recognizers import load_recognizer

    fingerprint = load_recognizer(str(output)).fingerprint
    assert fingerprint == recognizer_of(network).fingerprint


USES = {
    "evaluate pairs": evaluate_pairs,
    "evaluate a template protocol": evaluate_templates,
    "embed": embed,
    "fuse": fuse,
    "enroll": enroll,
    "identify": identify,
    "explain": explain,
    "two-stage match": two_stage_match,
    "export": export,
}


def reason(network, use) -> str:
    """Why a cell is refused; "" = it is not."""
    return REFUSED.get((network, use)) or REFUSED.get(network, "")


@pytest.mark.parametrize("network", NETWORKS)
def test_every_use(network):
    wanted = [use for use in USES if not reason(network, use)]
    done = []
    for use in wanted:
        USES[use](network)  # asserts what it wrote
        done.append(use)
    assert done == wanted


def test_gait_is_refused_in_one_sentence():
    for verb in ("embed", "export"):
        given = ("--photos", photos(112)) if verb == "embed" else ()
        output = _folder() / ("no.npz" if verb == "embed" else "no.safetensors")
        with pytest.raises(Refused, match="is a gait network") as refused:
            run(verb, "--model", f"{GAIT}:x.pt", *given, "--output", output)
        assert refused.value.status == 2
        assert refused.value.message.count("\n") == 1
        assert not output.exists()


def table() -> str:
    """The page: which network does what, with the reason where it is refused."""
    lines = [
        "# Which network does what",
        "",
        "Every recognizer goes through every use, from the command line down: a small",
        "sibling of each kind of network, made by its registry entry with random",
        "weights. Full-size networks are tested by shape. The test prints this page:",
        "`KPRPE_WRITE_PAGES=1 python -m pytest -m slow tests/test_composition.py`.",
        "",
    ]
    uses = list(USES)
    for part in (uses[:5], uses[5:]):
        lines.append("| network | " + " | ".join(part) + " |")
        lines.append("|---" * (len(part) + 1) + "|")
        for network in NETWORKS:
            cells = ["no" if reason(network, use) else "yes" for use in part]
            lines.append(f"| `{network}` | " + " | ".join(cells) + " |")
        lines.append("")
    lines.append("Refused, each by one sentence:")
    lines.append("")
    for key, why in REFUSED.items():
        who = f"`{key}`" if isinstance(key, str) else f"`{key[0]}`, {key[1]}"
        lines.append(f"- {who}: {why}.")
    return "\n".join(lines) + "\n"


def test_the_page_is_this_table_and_few_cells_are_refused():
    if os.environ.get("KPRPE_WRITE_PAGES"):
        PAGE.write_text(table(), "utf-8")
    assert PAGE.read_text("utf-8") == table()
    cells = [(n, u) for n in NETWORKS for u in USES]
    refused = [cell for cell in cells if reason(*cell)]
    assert len(refused) <= len(cells) / 10
