"""Raw photos, their alignment, a list of pairs, an accuracy: one unbroken path."""

import json
import tarfile
from pathlib import Path

import pytest

from kprpe_jax.commands.main import main

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
DETECTOR = DATA / "weights" / "retinaface_mnet025.npz"
WEIGHTS = DATA / "weights" / "mobilefacenet.npz"
FRAMES = DATA / "lfw" / "lfw_df_fullframe250_sample.tar"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FRAMES.is_file(), reason=f"no photos: {FRAMES}"),
]


def test_names_of_aligned_faces_fit_the_pairs_of_the_photos(tmp_path, capsys):
    with tarfile.open(FRAMES) as archive:
        members = [member for member in archive if member.isfile()][:16]
        archive.extractall(tmp_path / "photos", members, filter="data")
    people = sorted({Path(member.name).parent.name for member in members})
    assert len(people) == 8
    lines = ["2\t2"]
    for fold in (people[:4], people[4:]):
        lines += [f"{person}\t1\t2" for person in fold[:2]]
        lines += [f"{fold[0]}\t1\t{fold[2]}\t2", f"{fold[1]}\t2\t{fold[3]}\t1"]
    (tmp_path / "pairs.txt").write_text("\n".join(lines) + "\n")
    aligned, data, result = (tmp_path / name for name in ("new", "data", "out.json"))
    main(["align", f"--photos={tmp_path / 'photos'}", f"--output={aligned}",
          f"--detector=retinaface_mnet025:{DETECTOR}"])  # fmt: skip
    main(["import", "folder", f"--source={aligned / 'aligned'}", "--name=raw",
          f"--data-dir={data}", f"--pairs={tmp_path / 'pairs.txt'}",
          f"--landmarks={aligned / 'aligned_landmarks.csv'}"])  # fmt: skip
    main(["eval", f"--model=mobilefacenet:{WEIGHTS}", "--config=lfw_mobilefacenet",
          "--config.evals.lfw.dataset=raw", f"--config.data.dir={data}",
          f"--output={result}"])  # fmt: skip
    assert (
        "16 given: 16 used, 0 left out; raw: 16 images, 8 identities"
        in capsys.readouterr().out
    )
    found = json.loads(result.read_text())
    assert found["lfw/pairs"] == 8
    assert found["lfw/auc"] == 1
