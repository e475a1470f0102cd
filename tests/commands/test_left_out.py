"""Every command's last line adds up: all that was given was used or is listed."""

import collections
import csv
import os
import re
import tarfile

import numpy as np
import pytest
from PIL import Image

from kprpe_jax.commands.main import main
from tests.commands.run_verb import on_gallery
from tests.data.importers.sources import face
from tests.detection.stand_in import bright_photo, stand_in
from tests.gallery.tiny import PEOPLE, photo

LINE = re.compile(r"(\d+) given: (.*?)(\d+) left out(?: \((.*?)\))?(?:; |$)")
# Of the folder `given`, which holds 3 people with 2 photos each: kind -> files.
BAD = {
    "unreadable": {"ann/empty.jpg", "bob/text.png", "bob/cut.jpg", "gone.png", "x.gif"},
    "no usable face": {"cleo/wide.png"},
    "no photo": {"ann/notes.txt", "loop", "pipe.jpg"},
    "empty folder": {"dora"},
}
KINDS = {kind: len(files) for kind, files in BAD.items()}


@pytest.fixture
def given(networks, folder):
    """Good photos among files of every bad kind."""
    photos = folder / "photos"
    (photos / "ann" / "empty.jpg").write_bytes(b"")
    (photos / "bob" / "text.png").write_text("no photo")
    (photos / "bob" / "cut.jpg").write_bytes(face(1)[:-60])
    (photos / "x.gif").write_bytes(b"GIF89a and no more")
    (photos / "cleo" / "._0.png").write_bytes(b"of a Mac")
    (photos / ".DS_Store").write_bytes(b"of a Mac")
    Image.new("RGB", (40, 30)).save(photos / "cleo" / "wide.png")
    (photos / "ann" / "notes.txt").write_text("no photo")
    (photos / "dora").mkdir()
    os.symlink(folder / "nowhere.png", photos / "gone.png")
    os.symlink(photos, photos / "loop")
    os.mkfifo(photos / "pipe.jpg")
    return folder


def account(capsys, file=None):
    """Used, left out by kind, and names: of the last line and the list, which agree."""
    out, err = capsys.readouterr()
    given, made, total, why = LINE.search(out.splitlines()[-1]).groups()
    used = {what: int(n) for n, what in re.findall(r"(\d+) ([a-z ]+), ", made)}
    kinds = re.findall(r"(\S.*?) (\d+)(?:, |$)", why or "")
    kinds = {kind: int(number) for kind, number in kinds}
    if file is None:
        names = [line.split(": ")[1] for line in err.splitlines()
                 if line.startswith("left out: ")]  # fmt: skip
        assert ("left out: listed on stderr" in out) == bool(names)
    else:
        assert (f"left out: listed in {file}" in out) == bool(kinds)
        with open(file, newline="") as stream:
            header, *rows = csv.reader(stream)
        assert header == ["name", "kind", "reason"]
        assert collections.Counter(row[1] for row in rows) == kinds
        assert all(row[2] for row in rows)
        names = [row[0] for row in rows]
    assert sum(kinds.values()) == int(total) == len(names)
    assert int(given) == sum(used.values()) + int(total)
    return used, kinds, names


EVERY = sorted(name for names in BAD.values() for name in names)


def test_embed(given, capsys):
    output = given / "faces.npz"
    main(["embed", "--model=w", f"--photos={given / 'photos'}", f"--output={output}",
          "--on-error=skip"])  # fmt: skip
    used, kinds, names = account(capsys, given / "faces.npz.left_out.csv")
    assert (used, kinds, sorted(names)) == ({"used": 6}, KINDS, EVERY)


@pytest.mark.slow
def test_align(given, capsys, monkeypatch, rng):
    monkeypatch.setattr(
        "kprpe_jax.recognizers.load_detector", lambda spec, **options: stand_in()
    )
    for name in PEOPLE:
        for number in range(2):
            file = given / "photos" / name / f"{number}.png"
            Image.fromarray(bright_photo(rng, 60, 50)).save(file)
    output = given / "out"
    main(["align", "--detector=any", f"--photos={given / 'photos'}", "--size=32x32",
          f"--output={output}", "--faces=all"])  # fmt: skip
    used, kinds, names = account(capsys, output / "left_out.csv")
    assert (used, kinds, sorted(names)) == ({"used": 6}, KINDS, EVERY)


def test_fuse(given, capsys):
    output = given / "out"
    main(["fuse", "--model=w", f"--photos={given / 'photos'}", f"--output={output}",
          "--fusion=average", "--on-error=skip"])  # fmt: skip
    used, kinds, names = account(capsys, output / "left_out.csv")
    loose = {"nobody's": 2, "unreadable": KINDS["unreadable"] - 2}
    assert (used, kinds, sorted(names)) == ({"used": 6}, {**KINDS, **loose}, EVERY)


@pytest.mark.slow
@pytest.mark.parametrize("fusion", [(), ("--fusion=average",)])
def test_a_gallery(given, fusion, capsys):
    """enroll twice, identify by photo and folder, explain, replace."""
    photos = f"--photos={given / 'photos'}"
    run = on_gallery("enroll", given, photos, "--on-error=skip", *fusion)
    what = "used" if fusion else "added"
    for number in range(2):
        main(run)
        used, kinds, names = account(capsys)
        if number and fusion:  # an entry of the same files, bad ones among them
            assert used == {"used": 0, "enrolled before": 10}
            assert kinds == {"unreadable": 2, "no photo": 3, "empty folder": 1}
            continue
        new = {what: 6 * (not number), "enrolled before": 6 * number}
        assert (used, kinds, sorted(names)) == (new, KINDS, EVERY)
    output = given / "answers.json"
    for probe in ("photo", "folder"):
        main(on_gallery("identify", given, photos, f"--probe={probe}",
                        f"--output={output}"))  # fmt: skip
        told = account(capsys, given / "answers.json.left_out.csv")
        assert (told[:2], sorted(told[2])) == (({"used": 6}, KINDS), EVERY)
    main(on_gallery("identify", given, photos))
    assert account(capsys)[:2] == ({"used": 6}, KINDS)
    page = given / "why.html"
    main(on_gallery("explain", given, photos, f"--page={page}", "--candidates=0"))
    told = account(capsys, given / "why.html.left_out.csv")
    assert (told[:2], sorted(told[2])) == (({"used": 6}, KINDS), EVERY)
    new = given / "new"
    new.mkdir()
    (new / "0.png").write_bytes(photo(0, 9))
    (new / "empty.jpg").write_bytes(b"")
    (new / "notes.txt").write_text("no photo")
    main(on_gallery("gallery", given, "replace", "ann", "--on-error=skip",
                    f"--photos={new}"))  # fmt: skip
    used, kinds, names = account(capsys)
    assert kinds == {"unreadable": 1, "no photo": 1}
    assert sum(used.values()) == 1
    assert sorted(names) == ["empty.jpg", "notes.txt"]


def test_verify(given, capsys):
    folder, file = given / "photos" / "ann", given / "photos" / "bob" / "0.png"
    main(["verify", "--model=w", str(folder), str(file)])
    used, kinds, names = account(capsys)
    assert (used, kinds) == ({"used": 3}, {"unreadable": 1, "no photo": 1})
    assert sorted(names) == [f"{folder}/empty.jpg", f"{folder}/notes.txt"]


def test_features_are_rows(given, capsys):
    output = given / "faces.npz"
    photos = given / "photos" / "bob"
    main(["embed", "--model=w", f"--photos={photos}", f"--output={output}",
          "--on-error=skip"])  # fmt: skip
    capsys.readouterr()
    run = on_gallery("enroll", given, f"--features={output}", "--patches=none")
    for new in (2, 0):
        main(run)
        used, kinds, _ = account(capsys)
        assert (used, kinds) == ({"added": new, "enrolled before": 2 - new}, {})


def run_import(given, kind, source, *options):
    main(["import", kind, f"--source={source}", "--name=faces",
          f"--data-dir={given / 'data'}", "--on-error=skip", *options])  # fmt: skip
    return given / "data" / "faces" / "1.0.0" / "left_out.csv"


def test_import_of_faces(given, capsys):
    """Entries are the files in people's folders, and people without."""
    file = run_import(given, "folder", given / "photos")
    used, kinds, names = account(capsys, file)
    assert used == {"used": 7}  # wide.png is an image, too
    assert "dora" in names
    assert {"ann/notes.txt", "x.gif", "bob/cut.jpg"} < {*names}
    main(["import", "folder", f"--source={given / 'photos'}", "--name=faces",
          f"--data-dir={given / 'data'}", "--on-error=skip"])  # fmt: skip
    assert account(capsys, file) == (used, kinds, names)  # of a finished import
    main(["embed", "--model=w", "--dataset=faces", "--name=features",
          f"--data-dir={given / 'data'}", "--on-error=skip", "--min-images=2",
          "--max-images=1"])  # fmt: skip
    file = given / "data" / "features" / "2.0.0" / "left_out.csv"
    used, kinds, _ = account(capsys, file)
    assert sum(used.values()) + sum(kinds.values()) == 7
    assert kinds["beyond --max-images"] == used["used"] == 3


def test_import_of_an_archive(given, capsys):
    with tarfile.open(given / "a.tar", "w") as archive:
        for name in ("ann/0.png", "bob/cut.jpg", "cleo/._0.png", "gone.png"):
            archive.add(given / "photos" / name, name)
    used, kinds, names = account(capsys, run_import(given, "tar", given / "a.tar"))
    assert (used, kinds) == ({"used": 1}, {"broken image": 1, "missing image": 1})
    assert names == ["bob/cut.jpg", "gone.png"]


def test_import_of_a_list(given, capsys):
    (given / "photos" / "label.txt").write_text(
        "ann/0.png\t0\nbob/cut.jpg\t1\nann/0.png\t0\n../out.png\t1\nbob/1.png\tx\n"
    )
    used, kinds, _ = account(capsys, run_import(given, "list", given / "photos"))
    assert used == {"used": 1}
    assert kinds == {
        "broken image": 1, "duplicate id": 1, "wrong path": 1, "wrong label": 1,
    }  # fmt: skip


def test_import_of_walkers(given, capsys):
    """Sequences count, of people in no split, too; links to folders are followed."""
    bars = np.zeros((16, 16, 3), np.uint8)
    bars[1:-1, 6:10] = 255
    root = given / "in"
    for key in ("0/bg/090", "0/nm/090", "1/bg/090", "1/nm/090", "2/nm/090", "3/nm/090"):
        (root / key).mkdir(parents=True)
        Image.fromarray(bars).save(root / key / "0.png")
    (root / "0/nm/090/0.png").write_bytes(photo(0, 0)[:40])
    (root / "4").mkdir()
    os.symlink(root / "1" / "nm", root / "3" / "linked")
    os.symlink(root, root / "1" / "loop")
    (root / "readme.txt").write_text("of a person's hand")
    (given / "split.json").write_text(
        '{"TRAIN_SET": ["0", "3", "5"], "TEST_SET": ["1", "3", "4"]}'
    )
    file = run_import(
        given, "gait", root, f"--partition={given / 'split.json'}", "--image-size=16x11"
    )
    used, kinds, names = account(capsys, file)
    assert used == {"used": 3}
    assert sorted(names) == [
        "0/nm/090", "2/nm/090", "3/linked/090", "3/nm/090", "4", "readme.txt",
    ]  # fmt: skip
    assert kinds == {
        "broken sequence": 1, "empty identity": 1, "in both splits": 2,
        "in no split": 1, "no sequence": 1,
    }  # fmt: skip


@pytest.mark.parametrize("verb", ["embed", "fuse", "enroll", "fused", "identify"])
def test_a_folder_is_walked_once(networks, folder, verb, monkeypatch):
    main(on_gallery("enroll", folder, f"--photos={folder / 'queries'}"))
    listed = collections.Counter()
    listdir = os.listdir

    def count(path):
        listed[os.path.relpath(path, folder)] += 1
        return listdir(path)

    monkeypatch.setattr(os, "listdir", count)
    photos = f"--photos={folder / 'photos'}"
    output = f"--output={folder / 'out.npz'}"
    arguments = {
        "embed": ["embed", "--model=w", photos, output],
        "fuse": ["fuse", "--model=w", photos, output, "--fusion=average"],
        "enroll": on_gallery("enroll", folder, photos),
        "fused": ["enroll", f"--gallery={folder / 'new'}", "--model=w", photos,
                  "--fusion=average"],
        "identify": on_gallery("identify", folder, photos, "--probe=folder"),
    }  # fmt: skip
    main(arguments[verb])
    own = {name: n for name, n in listed.items() if name.startswith("photos")}
    assert own == {"photos": 1} | {f"photos/{name}": 1 for name in PEOPLE}
