"""Protocols from files on disk to their numbers, against NumPy on the same images."""

import io

import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from kprpe_jax.core.features import Features
from kprpe_jax.data.importers.dataset import write_dataset
from kprpe_jax.data.importers.ijb import open_ijb
from kprpe_jax.data.importers.image_folder import open_image_folder
from kprpe_jax.data.importers.tinyface import open_tinyface
from kprpe_jax.data.importers.video_templates import open_video_templates
from kprpe_jax.evaluation.evaluators import build_evaluators
from kprpe_jax.evaluation.evaluators.template_features import TemplateOptions
from kprpe_jax.fusion.cluster_aggregate import ImageSets
from kprpe_jax.fusion.files import save_model
from kprpe_jax.fusion.weighted import WeightedFusion
from kprpe_jax.geometry.template import face_template
from kprpe_jax.weights.fusions import MEANS
from tests.evaluation.functions import face_data, function_recognizer
from tests.fusion.tiny import draw_variables, fuser, tiny_model
from tests.tasks.tiny import one_device

SIZE, PEOPLE, CELL = 16, 6, 4


def features(image):
    """Mean colors of 4 x 4 cells of an image in [-1, 1], and of its mirror image."""
    x = image.reshape(SIZE // CELL, CELL, SIZE // CELL, CELL, 3).mean((1, 3))
    return (x + x[:, ::-1]).ravel()


def embed(variables, images, keypoints):
    cells = images.reshape(-1, SIZE // CELL, CELL, SIZE // CELL, CELL, 3).mean((2, 4))
    return cells.reshape(len(images), -1)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


class Pictures:
    """Images of people, alike in their colors; remembers the features of each."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.patterns = self.rng.uniform(60, 190, (PEOPLE, 4, 4, 3))
        self.of = {}

    def write(self, path, person, noise=45.0):
        pattern = self.rng.uniform(60, 190, (4, 4, 3)) if person is None else (
            self.patterns[person]
        )  # fmt: skip
        pixels = pattern + self.rng.normal(0, noise, (4, 4, 3))
        pixels = (
            np.clip(pixels, 0, 255).astype(np.uint8).repeat(CELL, 0).repeat(CELL, 1)
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        path.write_bytes(buffer.getvalue())
        self.of[path] = features(pixels / 127.5 - 1)
        return self.of[path]


def run(folder, kind, network=embed, **fields):
    """Evaluate by an entry of `config.evals`."""
    evaluators = build_evaluators(
        ConfigDict({"x": {"type": kind, **fields}}),
        "faces",
        face_data(folder, size=(SIZE, SIZE), needs_keypoints=False),
    )
    recognizer = function_recognizer(network, (SIZE, SIZE))
    return evaluators["x"](recognizer, one_device())


SCORES = (0.9, 0.3, 1.0, 0.6)  # of the detector


def import_ijb(folder, images):
    """12 templates of 6 people, two each, of 3 images in 2 media; one more unused."""
    meta = folder / "raw" / "meta"
    meta.mkdir(parents=True)
    rows, points, x = [], [], {}
    template_points = face_template((SIZE, SIZE))
    for number in range(39):
        template = 100 + number // 3
        person = (number // 3) % PEOPLE
        name = f"{number}.png"
        x[number] = images.write(folder / "raw" / "loose_crop" / name, person)
        rows.append(f"{name} {template} {min(number % 3, 1)}")
        moved = template_points + (number % 5) * 0.4
        values = [*moved.ravel(), SCORES[number % len(SCORES)]]
        points.append(f"{name} " + " ".join(f"{v:.4f}" for v in values))
    lists = {
        "face_tid_mid.txt": rows,
        "name_5pts_score.txt": points,
        "template_pair_label.txt": [
            f"{100 + a} {100 + b} {int(a % PEOPLE == b % PEOPLE)}"
            for a in range(12) for b in range(a + 1, 12)
        ],
        "1N_gallery_G1.csv": [f"{100 + p},{p}" for p in (0, 1, 2)],
        "1N_gallery_G2.csv": [f"{100 + p},{p}" for p in (3, 4, 5)],
        "1N_probe_mixed.csv": [f"{106 + p},{p}" for p in range(6)],
    }  # fmt: skip
    for name, lines in lists.items():
        (meta / f"ijbx_{name}").write_text("\n".join(lines) + "\n")
    write_dataset(
        open_ijb(folder / "raw"), name="ijbx", data_dir=folder / "data", origin={}
    )
    return x


FUSIONS = [pytest.param(x, marks=[pytest.mark.slow] * ("inlier" in x)) for x in MEANS]


@pytest.mark.parametrize("fusion", FUSIONS)
def test_ijb_by_its_own_lists(tmp_path, fusion):
    x = import_ijb(tmp_path, Pictures(0))
    results = run(tmp_path / "data", "ijb", dataset="ijbx", fusion=fusion)
    pooled = []
    for t in range(12):
        weighted = []
        for number in (3 * t, 3 * t + 1, 3 * t + 2):
            value = x[number] if fusion.startswith("norm") else unit(x[number])
            score = SCORES[number % len(SCORES)]
            if fusion == "landmark_score":  # Eq. 17; pixels centered at i + 0.5
                away = np.sqrt(10) * ((number % 5) * 0.4 + 0.5) / SIZE
                value = value * max((1 - away / 0.2) * score, 1e-6)
            elif fusion not in ("norm", "average"):
                value = value * score
            weighted.append(value)
        pooled.append(unit(weighted[0] + (weighted[1] + weighted[2]) / 2))
    pooled = np.array(pooled)
    scores = pooled @ pooled.T
    a, b = np.triu_indices(12, 1)
    same = a % PEOPLE == b % PEOPLE
    impostors = np.sort(scores[a, b][~same])[::-1]
    threshold = impostors[int(0.1 * len(impostors))]
    want = (scores[a, b][same] > threshold).mean()
    assert results["tar_at_far_1e-1"] == pytest.approx(want)
    assert set(results) == {
        "tar_at_far_1e-1", "mixed_rank_1", "mixed_rank_5", "mixed_rank_10",
        "mixed_tpir_at_fpir_1e-2", "mixed_tpir_at_fpir_1e-1", "templates",
    }  # fmt: skip  # 60 impostor pairs resolve no smaller rate than 1e-1
    rank, tpir = [], []
    for gallery in ((0, 1, 2), (3, 4, 5)):
        s = scores[6:][:, list(gallery)]
        rank.append(np.mean([gallery[s[p].argmax()] == p for p in gallery]))
        highest = max(s[p].max() for p in range(6) if p not in gallery)
        tpir.append(np.mean([s[p, gallery.index(p)] > highest for p in gallery]))
    assert results["mixed_rank_1"] == pytest.approx(np.mean(rank))
    assert results["mixed_rank_5"] == 1  # of three
    assert results["mixed_tpir_at_fpir_1e-1"] == pytest.approx(np.mean(tpir))
    assert results["templates"] == 12  # what no list names is not embedded


def test_tinyface(tmp_path):
    images = Pictures(1)
    raw, x = tmp_path / "raw", {"probe": [], "match": [], "distractor": []}
    for person in range(PEOPLE):
        for part, folder in (("probe", "Probe"), ("match", "Gallery_Match")):
            path = raw / folder / f"{person}_{part}.png"
            x[part].append(images.write(path, person, noise=70))
    for number in range(10):
        path = raw / "Gallery_Distractor" / f"{number}.png"
        x["distractor"].append(images.write(path, None))
    write_dataset(
        open_tinyface(raw), name="tiny", data_dir=tmp_path / "data", origin={}
    )
    results = run(tmp_path / "data", "tinyface", dataset="tiny")
    gallery = unit(np.array(x["match"] + x["distractor"]))
    order = np.argsort(-(unit(np.array(x["probe"])) @ gallery.T), 1)
    place = [list(order[p]).index(p) for p in range(PEOPLE)]
    for k in (1, 5, 20):
        assert results[f"rank_{k}"] == pytest.approx(np.mean(np.array(place) < k))
    assert (results["probes"], results["gallery"]) == (PEOPLE, PEOPLE + 10)
    assert 0 < results["rank_1"] < 1


def test_videos_searched_among_stills_and_megaface(tmp_path):
    """IJB-S: people are known by name across imports; the gallery lacks one of them."""
    images = Pictures(2)
    raw, lines, x = tmp_path / "raw", ["template,subject,media,frames"], []
    for person in range(PEOPLE):
        frames = [
            images.write(raw / f"v{person}" / f"{n}.png", person, noise=70)
            for n in range(2)
        ]
        x.append(frames[0] + frames[1])
        lines.append(f"{50 - person},{person},v{person},0-1")
    (raw / "templates.csv").write_text("\n".join(lines) + "\n")
    data = tmp_path / "data"
    write_dataset(
        open_video_templates(raw / "templates.csv"),
        name="probes", data_dir=data, origin={},
    )  # fmt: skip
    stills = {}
    for person in (5, 3, 1, 0, 2):
        stills[person] = images.write(
            tmp_path / "stills" / str(person) / "a.png", person
        )
    write_dataset(
        open_image_folder(tmp_path / "stills"), name="stills", data_dir=data, origin={}
    )
    results = run(data, "video", probes="probes", galleries=("stills",))
    people = sorted(stills)
    scores = unit(np.array(x)) @ unit(np.array([stills[p] for p in people])).T
    hits = [people[scores[p].argmax()] == p for p in people]
    assert results["rank_1"] == pytest.approx(np.mean(hits))
    accepted = [scores[p, people.index(p)] > scores[4].max() for p in people]
    assert results["tpir_at_fpir_1e-2"] == pytest.approx(np.mean(accepted))
    assert results["templates"] == PEOPLE

    frames = [
        images.of[raw / f"v{p}" / f"{n}.png"] for p in range(PEOPLE) for n in (0, 1)
    ]
    for person in range(PEOPLE):
        for n in range(2):
            path = tmp_path / "pairs" / str(person) / f"{n}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes((raw / f"v{person}" / f"{n}.png").read_bytes())
    write_dataset(
        open_image_folder(tmp_path / "pairs"), name="people", data_dir=data, origin={}
    )
    results = run(data, "megaface", probes="people", distractors="stills")
    frames, still = unit(np.array(frames)), unit(np.array(list(stills.values())))
    highest = (frames @ still.T).max(1)
    hits = [frames[i] @ frames[i ^ 1] > highest[i] for i in range(2 * PEOPLE)]
    assert results == {"rank_1": pytest.approx(np.mean(hits)), "distractors": 5}
    assert 0 < np.mean(hits) < 1


class Learned:
    """A CAFace model of the network `embed`, in a file, and what it makes of sets."""

    def __init__(self, folder):
        self.path = str(folder / "caface.safetensors")
        model = tiny_model(embed_dim=3 * (SIZE // CELL) ** 2)
        features = Features(np.zeros((1, 1, model.embed_dim), np.float32))
        sets = ImageSets(features, np.ones((1, 1), bool))
        variables = draw_variables(model, np.random.default_rng(8), sets)
        save_model(self.path, model, variables, backbone="")
        self._fuse = fuser(model, variables)

    def unit(self, images):
        """Unit embedding [D] of features of images [N, D], fused at once."""
        sets = Features(np.float32(images)[None]), np.ones((1, len(images)), bool)
        return unit(np.asarray(self._fuse(ImageSets(*sets)).embeddings[0]))


@pytest.mark.slow
def test_learned_fusion_of_ijb_is_fusing_by_hand(tmp_path):
    x, learned = import_ijb(tmp_path, Pictures(0)), Learned(tmp_path)
    options = dict(dataset="ijbx", fusion=learned.path)
    results = run(tmp_path / "data", "ijb", **options)
    fused = [learned.unit([x[3 * t], x[3 * t + 1], x[3 * t + 2]]) for t in range(12)]
    scores = np.array(fused) @ np.array(fused).T
    a, b = np.triu_indices(12, 1)
    same = a % PEOPLE == b % PEOPLE
    impostors = np.sort(scores[a, b][~same])[::-1]
    want = (scores[a, b][same] > impostors[int(0.1 * len(impostors))]).mean()
    assert results["tar_at_far_1e-1"] == pytest.approx(want)
    rank = [
        np.mean([people[scores[6 + p, people].argmax()] == p for p in people])
        for people in ([0, 1, 2], [3, 4, 5])
    ]
    assert results["mixed_rank_1"] == pytest.approx(np.mean(rank))
    # The templates themselves, not the metrics alone.
    options = TemplateOptions(
        face_data(tmp_path / "data", size=(SIZE, SIZE), needs_keypoints=False),
        False, "sum", learned.path,
    )  # fmt: skip
    recognizer = function_recognizer(embed, (SIZE, SIZE))
    found = options.make_fuse()(recognizer, one_device(), options.open("ijbx"))
    np.testing.assert_allclose(found.unit_embeddings, fused, atol=1e-4)


def test_learned_fusion_of_videos_is_fusing_by_hand(tmp_path):
    """IJB-S: videos of 2 and of 4 frames are searched among others."""
    images, learned = Pictures(5), Learned(tmp_path)
    fused = {}
    for name in ("probes", "booked"):
        raw, lines = tmp_path / name, ["template,subject,media,frames"]
        fused[name] = []
        for person in range(PEOPLE):
            frames = [
                images.write(raw / f"v{person}" / f"{n}.png", person, noise=90)
                for n in range((2, 4)[person % 2])
            ]
            fused[name].append(learned.unit(frames))
            lines.append(f"{person},{person},v{person},0-{(1, 3)[person % 2]}")
        (raw / "templates.csv").write_text("\n".join(lines) + "\n")
        write_dataset(
            open_video_templates(raw / "templates.csv"),
            name=name, data_dir=tmp_path / "data", origin={},
        )  # fmt: skip
    options = dict(probes="probes", galleries=("booked",), fusion=learned.path)
    results = run(tmp_path / "data", "video", **options)
    scores = np.array(fused["probes"]) @ np.array(fused["booked"]).T
    want = np.mean(scores.argmax(1) == np.arange(PEOPLE))
    assert results["rank_1"] == pytest.approx(want)
    assert 0 < want < 1
    assert results["templates"] == PEOPLE


def test_faults_are_one_sentence(tmp_path):
    import_ijb(tmp_path, Pictures(3))
    data = tmp_path / "data"
    wide = str(tmp_path / "wide.safetensors")
    save_model(wide, WeightedFusion(9), {}, backbone="")
    for kind, fields, match in (
        ("ijbc", {}, "evals.x.type: there is no type 'ijbc'; the nearest is ijb"),
        ("ijb", dict(datasets="a"), "no such field; the nearest is dataset"),
        ("ijb", {}, "config.evals.x.dataset is missing; ijb needs it"),
        ("ijb", dict(dataset=3), "config.evals.x.dataset must be of type str; got 3"),
        ("video", dict(probes="probes"), "galleries must name .*; got none"),
        ("video", dict(probes="a", galleries=("a",)), "must be named and differ"),
        ("megaface", dict(probes="a", distractors="a"), "differ.*; got a, a"),
        ("tinyface", dict(dataset="ijbx"), "probes and matches; got 0 and 0 images"),
        ("ijb", dict(dataset="other"), "other"),
        (
            "ijb",
            dict(dataset="ijbx", fusion="mean"),
            "evals.x: --fusion mean: must be av",
        ),
        ("ijb", dict(dataset="ijbx", fusion=wide), "of 9 channels; function gives 48"),
        ("ijb", dict(dataset="ijbx", mirror="twice"), "mirror must be .* 'twice'"),
    ):
        with pytest.raises(ValueError, match=match):
            run(data, kind, **fields)

    # An image that could not be read was left out, and with it a whole template.
    for number in (3, 4, 5):
        (tmp_path / "raw" / "loose_crop" / f"{number}.png").unlink()
    write_dataset(
        open_ijb(tmp_path / "raw"),
        name="gaps",
        data_dir=data,
        origin={},
        on_error="skip",
    )
    with pytest.raises(ValueError, match=r"got 1 of 12 without one, such as \[101\]"):
        run(data, "ijb", dataset="gaps")
    # Lists of a set that is no IJB.
    write_dataset(
        open_image_folder(_folder(tmp_path)), name="stills", data_dir=data, origin={}
    )
    with pytest.raises(ValueError, match="stills must hold lists of templates"):
        run(data, "ijb", dataset="stills")


def test_a_video_template_without_a_readable_frame_is_not_forgotten(tmp_path):
    images, lines = Pictures(6), ["template,subject,media,frames"]
    for person in range(3):
        if person:  # nothing is left of the first one's video
            images.write(tmp_path / f"v{person}" / "0.png", person)
        lines.append(f"{50 + person},{person},v{person},0")
    (tmp_path / "templates.csv").write_text("\n".join(lines) + "\n")
    source, data = open_video_templates(tmp_path / "templates.csv"), tmp_path / "data"
    write_dataset(source, name="probes", data_dir=data, origin={}, on_error="skip")
    with pytest.raises(ValueError, match=r"got 1 of 3 without one, such as \[50\]"):
        run(data, "video", probes="probes", galleries=("stills",))


@pytest.mark.parametrize(
    ("broken", "match"),
    [
        ("Gallery_Match/1_m.png", "got 0 of 3 without their image and 1 without a"),
        ("Probe/1_p.png", "got 1 of 3 without their image and 0 without a match"),
    ],
)
def test_a_probe_of_tinyface_that_cannot_be_searched(tmp_path, broken, match):
    raw, data = tmp_path / "raw", tmp_path / "data"
    for person in range(3):
        for name in ("Probe/{}_p", "Gallery_Match/{}_m", "Gallery_Distractor/{}"):
            Pictures(7).write(raw / f"{name.format(person)}.png", person)
    (raw / broken).write_bytes(b"no image")
    write_dataset(
        open_tinyface(raw), name="tiny", data_dir=data, origin={}, on_error="skip"
    )
    with pytest.raises(ValueError, match=match):
        run(data, "tinyface", dataset="tiny")


def _folder(tmp_path):
    Pictures(4).write(tmp_path / "stills" / "a" / "a.png", 0)
    return tmp_path / "stills"


def test_an_embedding_that_is_not_finite_is_no_number(tmp_path):
    import_ijb(tmp_path, Pictures(5))

    def broken(variables, images, keypoints):
        x = embed(variables, images, keypoints)
        return jnp.where(jnp.arange(len(x))[:, None] == 3, jnp.nan, x)

    with pytest.raises(ValueError, match="NaN or infinity, the first is row 3"):
        run(tmp_path / "data", "ijb", broken, dataset="ijbx")
