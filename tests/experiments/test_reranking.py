"""What the study counts, on galleries small enough to count by hand."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from experiments.command import main
from experiments.deepface_emd import reranking_trial
from experiments.deepface_emd.reranking import run_study
from experiments.deepface_emd.reranking_features import PhotoFeatures
from experiments.deepface_emd.reranking_photos import read_dataset
from experiments.deepface_emd.reranking_scores import WEIGHTINGS, pair_scores
from kprpe_jax.core.features import Features
from kprpe_jax.data.importers.dataset import write_dataset
from kprpe_jax.data.importers.image_folder import open_image_folder
from kprpe_jax.data.importers.landmarks import read_landmarks
from kprpe_jax.geometry.template import ARCFACE_112
from kprpe_jax.matching.earth_movers import match_faces
from kprpe_jax.matching.patch_weights import landmark_density
from kprpe_jax.matching.sinkhorn import FAST
from kprpe_jax.matching.two_stage import first_stage
from kprpe_jax.report import reranking as report
from tests.experiments.stand_in import StandIn
from tests.quick import quick_jit

PEOPLE, EACH = 6, 4


@pytest.fixture
def trial(rng):
    """People whose photos are near each other; queries are the photos, changed."""
    labels = np.repeat(np.arange(PEOPLE), EACH)
    centers = rng.normal(size=(PEOPLE, 5))
    gallery = (centers[labels] + 0.5 * rng.normal(size=(24, 5))).astype(np.float32)
    rows = rng.permutation(24)[:10]
    queries = gallery[rows] + 0.5 * rng.normal(size=(10, 5)).astype(np.float32)
    first = first_stage(Features(queries, None), Features(gallery, None), ranks=24)
    scores = rng.normal(size=(10, 9, len(WEIGHTINGS))).astype(np.float32)
    return reranking_trial.Trial(rows, labels[rows], labels, first, scores)


def by_hand(trial, scores, alpha, k, own):
    """P@1, R-precision and MAP@R with the own photo removed or kept, one by one."""
    figures = []
    for q, (rows, cosines) in enumerate(zip(*trial.first[:2], strict=True)):
        pairs = [
            (row, alpha * score + (1 - alpha) * cosine)
            for row, cosine, score in zip(rows, cosines, scores[q], strict=False)
            if own or row != trial.rows[q]
        ][:k]
        ranked = [row for row, _ in sorted(pairs, key=lambda pair: -pair[1])]
        ranked += [r for r in rows if r not in ranked and (own or r != trial.rows[q])]
        hits = trial.gallery_labels[ranked] == trial.labels[q]
        relevant = EACH if own else EACH - 1
        precision = [hits[: i + 1].mean() for i in range(relevant) if hits[i]]
        figures.append((hits[0], hits[:relevant].mean(), np.sum(precision) / relevant))
    return 100 * np.mean(figures, 0)


def test_own_photos_both_ways(trial, monkeypatch):
    monkeypatch.setattr(reranking_trial, "K", 8)
    removed = reranking_trial.count_all(trial, own="removed")
    kept = reranking_trial.count_all(trial, own="kept")
    counted = reranking_trial.count_all(trial, own="counted")
    for i, name in enumerate(WEIGHTINGS):
        for alpha in (0.3, 0.7, 1.0):
            scores = trial.scores[:, :, i]
            got = [[*x[name][f"{alpha:g}"].values()] for x in (removed, kept)]
            want = [by_hand(trial, scores, alpha, 8, own) for own in (False, True)]
            np.testing.assert_allclose(got, want)
        assert removed[name]["0"] == removed["stage1"]
    # The thesis' R is one more than can be found.
    assert counted["stage1"]["p_at_1"] == removed["stage1"]["p_at_1"]
    assert counted["stage1"]["rp"] <= 100 * (EACH - 1) / EACH
    for modes in (removed, kept):
        best = max(modes[name]["1"]["map_at_r"] for name in WEIGHTINGS)
        assert modes["perfect"]["map_at_r"] >= best


@pytest.mark.slow
def test_several_weightings_at_once(rng):
    """As `match_faces` one by one; CC takes the pooled vector for the embedding."""

    def draw(*lead):
        patches = rng.normal(size=(*lead, 6, 8)) + 0.5
        points = rng.random((*lead, 5, 2))
        arrays = rng.normal(size=(*lead, 4)), patches
        arrays = [jnp.asarray(x, jnp.float32) for x in arrays]
        faces = Features(*arrays, keypoints=points)
        pooled = jnp.asarray(rng.normal(size=(*lead, 8)), jnp.float32)
        return PhotoFeatures(faces, pooled, landmark_density(points, (3, 2)))

    query, gallery = draw(2), draw(2, 3)
    got = pair_scores(query, gallery, WEIGHTINGS)
    for i, name in enumerate(WEIGHTINGS):
        sides = []
        for side in (query, gallery):
            faces = side.faces
            sides.append(faces._replace(embeddings=side.pooled))
        one = jax.tree.map(lambda x: x[:, None], sides[0])
        options = dict(weighting=name, solver=FAST, grid=(3, 2))
        match = quick_jit(partial(match_faces, **options))
        want = match(one, sides[1]).score
        np.testing.assert_allclose(got[:, :, i], want, atol=1e-5, err_msg=name)


def test_report(trial, tmp_path, monkeypatch):
    monkeypatch.setattr(reranking_trial, "K", 8)
    modes = {
        own: reranking_trial.count_all(trial, own=own) for own in ("removed", "kept")
    }
    results = {
        "photos": 24,
        "people": PEOPLE,
        "queries": {"crop": {"count": 10, **modes}},
        "depth": {"crop": {"8": modes["removed"]["stage1"]}},
        "packing": {},
        "alone": {},
    }
    text = report.write(results, tmp_path)
    figure = modes["removed"]["apc"]["0.7"]["p_at_1"]
    assert f"| APC, α = 0.7 | {figure:.2f} |" in text
    assert "10 queries, crop; own photo in the gallery" in text
    assert (tmp_path / "tables.md").read_text() == text
    assert (tmp_path / "reranking_alpha.png").stat().st_size > 1000


def mean_colors(images, keypoints):
    """A network of four patches: mean colors of the quarters."""
    maps = images.reshape(len(images), 2, 56, 2, 56, 3).mean((2, 4))
    patches = maps.reshape(len(images), 4, 3)
    embeddings = patches.reshape(len(images), 12)
    return Features(embeddings, patches, keypoints=keypoints)


@pytest.fixture(scope="module")
def people_dir(tmp_path_factory):
    """An import of 27 people of four colors with four photos each; one has one."""
    folder = tmp_path_factory.mktemp("people")
    rng, lines = np.random.default_rng(0), []
    for person in range(28):
        colors = rng.integers(30, 225, (2, 2, 3))
        for index in range(4 if person < 27 else 1):
            noisy = np.clip(colors + rng.integers(-30, 30, (2, 2, 3)), 0, 255)
            # The first photo is larger, its points are where alignment takes them.
            side = 224 if index == 0 else 112
            image = noisy.astype(np.uint8).repeat(side // 2, 0).repeat(side // 2, 1)
            path = folder / "images" / f"{person:02d}" / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
            points = ",".join(map(str, (ARCFACE_112 / 112).ravel()))
            lines.append(f"{person:02d}/{index}.png,{points}")
    table = folder / "points.csv"
    header = "key," + ",".join(f"x{i},y{i}" for i in range(5))
    table.write_text("\n".join([header, *lines]) + "\n")
    write_dataset(
        open_image_folder(folder / "images"),
        name="people",
        data_dir=folder / "data",
        origin={"kind": "folder"},
        landmarks=read_landmarks(table, units="fraction"),
    )
    return folder / "data"


@pytest.mark.slow
def test_study_of_an_import_with_any_network(people_dir, tmp_path):
    photos = read_dataset(people_dir, "people", "train")
    assert len(photos.labels) == 108  # people with one photo are left out
    np.testing.assert_allclose(photos.keypoints[0], ARCFACE_112 / 112, atol=1e-4)
    some = read_dataset(people_dir, "people", "train", identities=(3, 5))
    assert some.encoded == photos.encoded[12:20]
    assert list(some.labels) == [0] * 4 + [1] * 4

    network = StandIn("colors", mean_colors, grid=(2, 2))
    options = dict(kinds={"plain": 0, "sunglasses": 9}, swept=0, alone=0)
    found = run_study(photos, network, tmp_path, **options)
    assert found["queries"]["plain"]["removed"]["stage1"]["p_at_1"] > 90
    assert found["queries"]["sunglasses"]["count"] == 9
    again = run_study(photos, network, tmp_path, **options)
    assert again == found
    other = StandIn("other", mean_colors, grid=(2, 2))
    with pytest.raises(ValueError, match="holds others; choose another --output"):
        run_study(photos, other, tmp_path, **options)
    with pytest.raises(ValueError, match="more than 100 photos; got 8"):
        run_study(some, network, tmp_path, **options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--archive and --points, or --dataset; got neither"),
        (["--dataset=a", "--archive=b", "--points=c"], "or --dataset; got both"),
        (["--dataset=a", "--queries=plain"], "kind:count,kind:count"),
        (["--dataset=a", "--identities=1"], "such as 0:100; got 1"),
    ],
)
def test_bad_options_are_one_sentence(arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["reranking", "--model=m", *arguments])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
