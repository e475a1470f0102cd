"""Enroll good and bad photos under kills: in the end the good ones are there."""

import collections
import csv
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time
from functools import partial
from typing import Any

import jax
import numpy as np

from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.backbones.vit import PRESETS, ViT
from kprpe_jax.core.input_spec import InputSpec
from kprpe_jax.gallery.gallery import Gallery
from kprpe_jax.weights.recognizer_file import save_recognizer
from tests.chaos import small_disk
from tests.chaos.bad_photos import BAD, SIDE, good_photo, write_bad
from tests.chaos.training import cached
from tests.training import processes

_PER_PERSON = 5
_COPIES = 20  # of the bad photos: the same file as a good one
finish = partial(processes.finish, timeout=600)


class Crowd:
    """People with good and bad photos in a folder, and a recognizer for them."""

    def __init__(self, folder: pathlib.Path, photos: int):
        """Write as many good photos as bad ones."""
        self.folder, self.photos = folder, folder / "photos"
        self.model = folder / "tiny.safetensors"
        self.good: dict[str, str] = {}  # photo -> person
        self.bad: dict[str, str] = {}  # photo -> kind
        kinds = list(BAD)
        for number in range(photos):
            person = f"person_{number // _PER_PERSON:04d}"
            (self.photos / person).mkdir(parents=True, exist_ok=True)
            name = f"{person}/{number:04d}_good.png"
            image = good_photo(number // _PER_PERSON, number)
            (self.photos / name).write_bytes(image)
            self.good[name] = person
            kind = "copy" if number % (photos // _COPIES or 1) == 1 else None
            kind = kind or kinds[number % len(kinds)]
            name = f"{person}/{number:04d}_{kind}.jpg"
            if kind == "copy":  # its name comes after that of the good one
                name = f"{person}/{number:04d}_zcopy.png"
                (self.photos / name).write_bytes(image)
            else:
                write_bad(kind, self.photos / name, number)
            self.bad[name] = kind
        save_recognizer(self.model, tiny_recognizer())

    def command(self, verb: str, gallery: pathlib.Path, *arguments: str) -> list[str]:
        """A command on a gallery."""
        command = [sys.executable, "-m", "kprpe_jax", verb, f"--gallery={gallery}"]
        return [*command, f"--model={self.model}", *map(str, arguments)]

    def start(self, gallery: pathlib.Path, table: pathlib.Path) -> subprocess.Popen:
        """Start an enrollment; its output goes to files, which never fill up."""
        arguments = f"--photos={self.photos}", "--on-error=skip", f"--left-out={table}"
        out, err = tempfile.TemporaryFile("w+"), tempfile.TemporaryFile("w+")
        process = subprocess.Popen(
            self.command("enroll", gallery, *arguments),
            env=os.environ | cached(self.folder),
            stdout=out,
            stderr=err,
        )
        process.files = out, err
        return process

    def read(self, gallery: pathlib.Path) -> dict[str, tuple[str, bytes]]:
        """Photo -> person and features of a gallery; {} where there is none."""
        if not gallery.exists() or not gallery.stat().st_size:
            return {}
        with Gallery(gallery) as opened:
            found = opened.read()
            rows = np.arange(len(found.photos))
            patches = found.features.patches[rows]
        embeddings = found.features.embeddings
        whole = [
            a.tobytes() + b.tobytes() for a, b in zip(embeddings, patches, strict=True)
        ]
        people = zip(found.people, whole, strict=True)
        return dict(zip(found.photos, people, strict=True))

    def faults(self, gallery: pathlib.Path, table: pathlib.Path) -> list[str]:
        """What is wrong with a gallery, and with the table of what was left out."""
        found = {name: person for name, (person, _) in self.read(gallery).items()}
        wrong = []
        if found != self.good:
            wrong.append(f"{len(found)} photos, not exactly the good ones")
        with table.open(newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
        names = [name for name, *_ in rows]
        if header != ["name", "kind", "reason"] or sorted(names) != sorted(self.bad):
            missing = sorted(self.bad.keys() - set(names))
            wrong.append(
                f"{len(names)} photos left out, not exactly the bad ones; {missing[:3]}"
            )
        if not all(reason for *_, reason in rows):
            wrong.append("a photo was left out without a reason")
        return wrong


def tiny_recognizer() -> Recognizer:
    """A transformer of one layer with random weights."""
    small = dict(image_size=(SIDE, SIDE), patch_size=16, width=32, depth=1)
    small |= dict(num_heads=2, output_dim=16)
    module = ViT(**PRESETS["tiny"] | small, position="absolute")
    images = np.zeros((1, SIDE, SIDE, 3), np.float32)
    variables = jax.jit(module.init)(jax.random.key(0), images)
    return Recognizer(variables, module, InputSpec((SIDE, SIDE)), "tiny", "for tests")


def enroll_often(
    folder: pathlib.Path, *, photos: int, kills: int, trials: int, seed: int, say: Any
) -> dict[str, Any]:
    """Enroll under kills, by two writers at once, on full and read-only disks."""
    rng, crowd = random.Random(seed), Crowd(folder, photos)
    finish(crowd.start(folder / "warm.gallery", folder / "warm.csv"))
    straight, table = folder / "straight.gallery", folder / "straight.csv"
    began = time.monotonic()
    code, out, err = finish(crowd.start(straight, table))
    seconds = time.monotonic() - began
    say(f"straight: {seconds:.1f} s; {out.strip()}")
    wrong = [f"straight: exit code {code}: {err[-500:]}"] if code else []
    wrong += [f"straight: {x}" for x in crowd.faults(straight, table)]
    want = crowd.read(straight)
    counts: collections.Counter = collections.Counter(photos=len(want))
    for writers in (1, 2):
        part = kills * 2 // 3 if writers == 1 else kills - kills * 2 // 3
        wrong += _kill_writers(
            crowd, writers, part, seconds, want, rng=rng, counts=counts, say=say
        )
    found: dict[str, Any] = dict(counts)
    for part, count in (("enrollment", trials), ("read_only", 1)):
        found[part] = small_disk.in_own_mounts(part, folder, count, seed)
        say(f"{part}: {found[part]}")
        wrong += found[part].pop("differences", [])
    return {**found, "differences": wrong}


def _kill_writers(
    crowd: Crowd,
    writers: int,
    kills: int,
    seconds: float,
    want: dict[str, tuple[str, bytes]],
    *,
    rng: random.Random,
    counts: collections.Counter,
    say: Any,
) -> list[str]:
    """Enroll into new galleries until there were so many kills; what was wrong."""
    wrong, name = [], f"kills of {writers} writer{'s' if writers > 1 else ''}"
    while counts[name] < kills:
        galleries = f"gallery_{writers}_{counts[f'galleries, {name}']}"
        gallery = crowd.folder / galleries
        counts[f"galleries, {name}"] += 1
        budget = min(kills - counts[name], rng.randint(5, 15))
        tables = [crowd.folder / f"{galleries}_{i}.csv" for i in range(writers)]
        while True:
            running = [crowd.start(gallery, table) for table in tables]
            if budget:
                time.sleep(rng.uniform(0.3, 1) * seconds)
                chosen = rng.choice(running)
                if chosen.poll() is None:
                    chosen.kill()
                    counts[name] += 1
                    budget -= 1
            codes = []
            for process in running:
                code, _, err = finish(process)
                codes.append(code)
                if code not in (0, -9):
                    wrong.append(f"{galleries}: exit code {code}: {err.strip()[-500:]}")
            if codes == [0] * writers:
                break
            others = crowd.read(gallery).keys() - crowd.good.keys()
            if others:
                wrong.append(f"{galleries}: {len(others)} photos that are not good")
        for table in tables:
            wrong += [f"{galleries}: {x}" for x in crowd.faults(gallery, table)]
        if crowd.read(gallery) != want:
            counts[f"galleries with other bits, {name}"] += 1
        say(f"{counts[name]} {name}, {len(wrong)} differences")
    return wrong


def enroll_on_small_disk(
    folder: pathlib.Path, trials: int, seed: int
) -> dict[str, Any]:
    """Enroll where the disk fills up; then free space and enroll on."""
    rng, crowd = random.Random(seed), _crowd_of(folder)
    whole = (folder / "straight.gallery").stat().st_size
    found: dict[str, Any] = {"trials": trials, "filled up": 0, "messages": []}
    wrong = []
    for trial in range(trials):
        with small_disk.small_disk(folder) as disk:
            filler = small_disk.fill(disk, int(rng.uniform(0, 1.1) * whole))
            gallery, table = disk / "people.gallery", folder / "small.csv"
            code, _, err = finish(crowd.start(gallery, table))
            if code:
                found["filled up"] += 1
                told = small_disk.not_one_sentence(code, err)
                wrong += [f"trial {trial}: {x}" for x in told]
                message = err.strip().splitlines()[-1][-300:]
                found["messages"].append(message.replace(str(disk), "DISK"))
            crowd.read(gallery)  # whole, whatever it holds
            filler.unlink()
            code, _, err = finish(crowd.start(gallery, table))
            if code:
                wrong.append(f"trial {trial}: then exit code {code}: {err[-500:]}")
            wrong += [f"trial {trial}: {x}" for x in crowd.faults(gallery, table)]
    found["messages"] = sorted(set(found["messages"]))
    return {**found, "differences": wrong}


def enroll_read_only(folder: pathlib.Path, trials: int, seed: int) -> dict[str, Any]:
    """Enroll into a folder that cannot be written, and ask a gallery in it."""
    crowd = _crowd_of(folder)
    place = folder / "read_only"
    place.mkdir()
    shutil.copy(folder / "straight.gallery", place / "there.gallery")
    before = (place / "there.gallery").read_bytes()
    wrong, messages = [], []
    (crowd.photos / "new_0001.png").write_bytes(good_photo(10**6, 0))
    with small_disk.read_only(place), small_disk.read_only(crowd.photos):
        for name in ("there.gallery", "new.gallery"):
            code, _, err = finish(crowd.start(place / name, folder / "ro.csv"))
            wrong += [f"{name}: {x}" for x in small_disk.not_one_sentence(code, err)]
            messages.append(err.strip().splitlines()[-1].replace(str(place), "FOLDER"))
        photo = next(iter(crowd.good))
        command = crowd.command(
            "identify", place / "there.gallery", f"--photos={crowd.photos / photo}"
        )
        done = subprocess.run(
            command, env=os.environ | cached(folder), capture_output=True, text=True
        )
        if done.returncode or crowd.good[photo] not in done.stdout:
            wrong.append(f"identify: {done.stdout} {done.stderr[-500:]}")
        code, _, err = finish(crowd.start(folder / "other.gallery", folder / "ro.csv"))
        if code:
            wrong.append(f"photos of a read-only folder: {err[-500:]}")
    (crowd.photos / "new_0001.png").unlink()
    if (place / "there.gallery").read_bytes() != before:
        wrong.append("the gallery in the read-only folder has changed")
    return {"messages": messages, "differences": wrong}


def _crowd_of(folder: pathlib.Path) -> Crowd:
    """The crowd that another process wrote into a folder."""
    crowd = Crowd.__new__(Crowd)
    crowd.folder, crowd.photos = folder, folder / "photos"
    crowd.model = folder / "tiny.safetensors"
    names = [x.relative_to(crowd.photos).as_posix() for x in crowd.photos.rglob("*.*")]
    good = [name for name in names if name.endswith("_good.png")]
    crowd.good = {name: name.partition("/")[0] for name in good}
    crowd.bad = {name: "" for name in names if name not in crowd.good}
    return crowd
