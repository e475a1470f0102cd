"""LFW's 6,000 pairs with published weights, from the archive to the accuracy.

    python -m experiments lfw --archive ARCHIVE --pairs PAIRS --weights WEIGHTS

ARCHIVE holds aligned 112 x 112 photos as Name/Name_0001.jpg, PAIRS is the official
pairs.txt, WEIGHTS are those of MobileFaceNet (`interop.mobilefacenet`). The archive is
imported first, once.
"""

import dataclasses
import os
import pathlib
import sys
import time

import jax
import numpy as np
from absl import app, flags
from jax.sharding import Mesh

from kprpe_jax.core.mesh import make_mesh, replicated
from kprpe_jax.data.importers.dataset import write_dataset
from kprpe_jax.data.importers.pair_list import read_lfw_pairs, tables
from kprpe_jax.data.importers.record import file_state
from kprpe_jax.data.importers.tar_images import open_tar_images
from kprpe_jax.data.pair_sets import PairSet, open_pair_set
from kprpe_jax.evaluation.embedding import embed_rows, with_mirror
from kprpe_jax.evaluation.pair_verification import PairResult, summary, verify_pairs
from kprpe_jax.report.roc import plot_roc
from kprpe_jax.training.command import command, parse_flags
from kprpe_jax.weights.mobilefacenet import import_weights, published_mobilefacenet

_ARCHIVE = flags.DEFINE_string("archive", None, "Tar archive of aligned photos.")
_PAIRS = flags.DEFINE_string("pairs", None, "The official pairs.txt.")
_WEIGHTS = flags.DEFINE_string("weights", None, "Published MobileFaceNet weights.")
_DATA_DIR = flags.DEFINE_string("data_dir", "data", "Folder of all data sets.")
_OUTPUT = flags.DEFINE_string("output", "reports/lfw", "Folder of the report.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "Photos at once.", 1)

_SIZE = (112, 112)
_MESH = {"data": -1, "fsdp": 1, "class": 1}
_COLUMNS = slice(8, 104)  # the published network reads 112 x 96


def import_lfw(archive: str, pairs: str, data_dir: str) -> None:
    """Import archive and pairs as the data set `lfw_pairs`, unless it is there.

    Raises: ValueError: as `read_lfw_pairs`, `open_tar_images` and `write_dataset`.
    """
    pair_tables = tables(read_lfw_pairs(pairs))
    write_dataset(
        dataclasses.replace(open_tar_images(archive), tables=pair_tables),
        name="lfw_pairs",
        data_dir=data_dir,
        origin={
            "kind": "tar",
            "source": os.path.abspath(archive),
            "pairs_state": file_state(pairs),
        },
    )


def run_study(
    pairs: PairSet, weights: str, *, batch_size: int, mesh: Mesh
) -> tuple[dict[str, PairResult], float]:
    """Embed all photos and verify all pairs.

    Args:
      pairs: of 112 x 112 photos.
      weights: file of published MobileFaceNet weights.
      batch_size: photos at once.
      mesh: the devices.
    Returns: by what was done with the mirror image, the result; photos a second, each
      with its mirror image, from the file to the embedding, compilation left out.
    """
    model = published_mobilefacenet()
    variables = jax.device_put(import_weights(model, weights), replicated(mesh))

    def embed(variables, _, images, keypoints):
        del keypoints
        return model.apply(variables, images[:, :, _COLUMNS])

    both = with_mirror(embed, "concatenate")

    @jax.jit
    def embed_images(variables, images, keypoints):
        return both(variables, None, images.astype(np.float32) / 127.5 - 1, keypoints)

    def embed_batch(batch, _):
        return embed_images(variables, batch["image"], batch["keypoints"])

    options = dict(batch_size=batch_size, mesh=mesh)
    embed_rows(embed_batch, pairs.faces.select(np.arange(1)), **options)  # compiles
    start = time.perf_counter()
    embeddings = embed_rows(embed_batch, pairs.faces, **options)
    speed = len(embeddings) / (time.perf_counter() - start)
    plain, mirrored = np.split(embeddings, 2, axis=1)
    forms = {"concatenate": embeddings, "sum": plain + mirrored, "none": plain}
    results = {
        name: verify_pairs(
            form[pairs.first], form[pairs.second], pairs.same, num_folds=pairs.num_folds
        )
        for name, form in forms.items()
    }
    return results, speed


def write_report(
    results: dict[str, PairResult], speed: float, output: pathlib.Path
) -> str:
    """Write report.md and roc.png; returns the table for the terminal."""
    output.mkdir(parents=True, exist_ok=True)
    plot_roc(
        {f"mirror: {name}": r.roc for name, r in results.items()}, output / "roc.png"
    )
    rows = {name: summary(result) for name, result in results.items()}
    names = list(rows)
    lines = ["| | " + " | ".join(f"mirror: {n}" for n in names) + " |"]
    lines.append("|---" * (len(names) + 1) + "|")
    for metric in rows[names[0]]:
        cells = " | ".join(f"{rows[name][metric]:.4f}" for name in names)
        lines.append(f"| {metric} | {cells} |")
    table = "\n".join(lines) + "\n"
    speed_line = f"{speed:.0f} photos a second, each with its mirror image.\n"
    text = f"# Labeled Faces in the Wild\n\n{table}\n{speed_line}\n![ROC](roc.png)\n"
    (output / "report.md").write_text(text)
    return f"{table}{speed_line}report: {output / 'report.md'}\n"


def _study(overrides: list[str]) -> None:
    if overrides or None in (_ARCHIVE.value, _PAIRS.value, _WEIGHTS.value):
        raise ValueError("lfw: give --archive, --pairs and --weights, and no config")
    import_lfw(_ARCHIVE.value, _PAIRS.value, _DATA_DIR.value)
    pairs = open_pair_set(_DATA_DIR.value, "lfw_pairs", image_size=_SIZE)
    results, speed = run_study(
        pairs, _WEIGHTS.value, batch_size=_BATCH_SIZE.value, mesh=make_mesh(_MESH)
    )
    sys.stdout.write(write_report(results, speed, pathlib.Path(_OUTPUT.value)))


main = command(_study)


def start() -> None:
    """Run from the command line."""
    app.run(main, flags_parser=parse_flags)
