"""The explain command, with a network of two layers and two-image networks."""

import json
import re
import sqlite3
from functools import partial

import jax
import numpy as np
import pytest

from kprpe_jax.commands.main import main
from kprpe_jax.configs import pair_matching
from kprpe_jax.gallery.gallery import Gallery
from kprpe_jax.gallery.identify import identify
from kprpe_jax.gallery.photos import embed_photos, list_photos
from kprpe_jax.matching.explanations import cross_correlation, pair_tokens
from kprpe_jax.matching.matchers import PairMatcher
from kprpe_jax.matching.two_image import score_pairs
from kprpe_jax.recognizers import load_matcher
from kprpe_jax.tasks.pair_matching import make_model
from kprpe_jax.training.runs import save_config
from tests.commands.run_verb import enroll, fails, on_gallery
from tests.gallery.tiny import tiny_recognizer
from tests.quick import quick_jit

pytestmark = pytest.mark.usefixtures("networks")


def page_of(path):
    (data,) = re.findall(r'id="data">(.*)</script>', path.read_text())
    return json.loads(data)


def explain(folder, *arguments):
    page = folder / "why.html"
    main(on_gallery("explain", folder, f"--page={page}", *arguments))
    return page_of(page)


def answers_of(folder, **options):
    with Gallery(folder / "people.gallery") as gallery:
        recognizer, queries = tiny_recognizer(), folder / "queries"
        options = dict(candidates=6) | options
        return identify(gallery, queries, recognizer, **options).answers


def test_the_page_says_what_identify_says(folder, capsys):
    enroll(folder)
    (folder / "queries" / "y.png").write_bytes(b"no photo")
    *answers, _ = answers_of(folder)
    queries = explain(
        folder,
        f"--photos={folder / 'queries'}",
        f"--gallery-photos={folder / 'photos'}",
        "--ranks=3",
    )
    out, err = capsys.readouterr()
    assert (
        "4 given: 3 used, 1 left out (unreadable 1); 3 faces explained; page: " in out
    )
    assert "left out: y.png: the image must be" in err
    for query, answer in zip(queries, answers, strict=True):
        assert query["grid"] == query["candidateGrid"] == [2, 1]
        assert len(query["candidates"]) == 3
        best = query["candidates"][0]
        assert (best["person"], best["photo"]) == answer.ranking[0][:2]
        scores = dict(best["scores"])
        assert scores["score"] == pytest.approx(answer.score, abs=1e-6)
        assert scores["cosine"] == pytest.approx(answer.ranking[0].cosine, abs=1e-6)
        totals = [dict(c["scores"])["score"] for c in query["candidates"]]
        assert totals == sorted(totals, reverse=True)
        assert best["image"].startswith("data:image/jpeg")
        assert {c["firstRank"] for c in query["candidates"]} <= set(range(1, 7))
        # The flow out of a patch is its weight.
        flow = np.reshape(best["flow"], (2, 2)).sum(1)
        weights = np.array(query["weights"])
        np.testing.assert_allclose(flow / flow.max(), weights / 255, atol=0.02)


def test_without_a_second_stage_there_are_scores_alone(folder):
    enroll(folder, "--patches=none")
    (query, *_) = explain(folder, f"--photos={folder / 'queries'}")
    assert query["weights"] is None
    for candidate in query["candidates"]:
        assert candidate["flow"] is candidate["image"] is candidate["firstRank"] is None
        assert set(dict(candidate["scores"])) == {"score", "cosine"}


def test_a_name_leads_out_of_no_folder(folder):
    """A photo of the gallery whose name climbs up is shown without its picture."""
    enroll(folder)
    database = sqlite3.connect(folder / "people.gallery")
    database.execute("UPDATE photos SET name = '../photos/' || name")
    database.commit()
    database.close()
    photos = f"--photos={folder / 'queries'}"
    inside = f"--gallery-photos={folder / 'queries'}"
    (query, *_) = explain(folder, photos, inside)
    assert {candidate["image"] for candidate in query["candidates"]} == {None}


def test_bad_input(folder, capsys):
    enroll(folder)
    photos, page = f"--photos={folder / 'queries'}", f"--page={folder / 'p.html'}"
    for message, arguments in {
        "--gallery-photos must be the folder that was enrolled": (
            photos, page, "--gallery-photos=nowhere",
        ),
        "required: --page": (photos,),
        "--ranks: must be at least 1; got 0": (photos, page, "--ranks=0"),
        "give one of them": (photos, page, "--weighting=sc", "--matcher=run"),
    }.items():  # fmt: skip
        error = fails(capsys, *on_gallery("explain", folder, *arguments))
        assert message in error
    bad = folder / "bad.png"
    bad.write_bytes(b"no photo")
    given = on_gallery("explain", folder, f"--photos={bad}", page)
    assert "none of 1 given shows a usable face" in fails(capsys, *given, status=1)
    assert not (folder / "p.html").exists()


def tiny_config(kind="h2l", **changes):
    """A network for the patches of the tiny recognizer: 2 of 6."""
    config = pair_matching.get_config(kind)
    small = dict(num_heads=1, head_dim=4, mlp_dim=8, width=6, num_patches=2)
    config.model.update(small | dict(output_dim=5))
    config.update_from_flattened_dict(changes)
    return config


def pair_matcher(kind="h2l", **changes):
    """Random weights."""
    model = make_model(tiny_config(kind, **changes).model)
    count = model.encoder.num_patches, model.encoder.width
    shape = (1, 16, 16, 3) if model.encoder.windows else (1, *count)
    sides = (np.zeros(shape, np.float32),) * (1 if kind == "h1" else 2)
    shapes = jax.eval_shape(model.init, jax.random.key(0), *sides)
    rng = np.random.default_rng(0)
    draw = lambda leaf: np.float32(rng.normal(size=leaf.shape))  # noqa: E731
    return PairMatcher(model, jax.tree.map(draw, dict(shapes)))


def patches_of(path):
    (photo,) = embed_photos(list_photos(path), tiny_recognizer())
    return photo.features.patches


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["h2l", "h1", "h2"])
def test_the_second_stage_is_the_network(folder, monkeypatch, kind):
    matcher = pair_matcher(kind)
    monkeypatch.setattr("kprpe_jax.recognizers.load_matcher", lambda spec: matcher)
    enroll(folder, "--patches=float32")
    answer = answers_of(folder, alpha=0.4, matcher=matcher)[1]
    query = folder / "queries" / "1.png"
    own = patches_of(query)
    score = quick_jit(partial(score_pairs, matcher.model, matcher.variables))
    tokens_of = quick_jit(partial(pair_tokens, matcher.model, matcher.variables))
    for row in answer.ranking:
        other = patches_of(folder / "photos" / row.photo)
        want = float(score(own, other)[0])
        assert row.patch_similarity == pytest.approx(want, abs=1e-4)
        mixed = 0.4 * row.patch_similarity + 0.6 * row.cosine
        assert row.score == pytest.approx(mixed, abs=1e-6)

    options = "--matcher=run", "--alpha=0.4", "--ranks=2"
    (asked,) = explain(folder, f"--photos={query}", *options)
    assert asked["candidates"][0]["photo"] == answer.ranking[0].photo
    for shown in asked["candidates"]:
        assert shown["flow"] is None
        other = patches_of(folder / "photos" / shown["photo"])
        tokens = tokens_of(own, other)
        if kind == "h2":
            row = np.asarray(tokens[0].attention[0]).mean(1)[0, 0] / 2
            heats = row[[1, 2]], row[[4, 5]]  # without [CLS] and [SEP]
        else:
            patches = [part for one in tokens for part in one.patches]
            heats = [heat[0] for heat in cross_correlation(*patches)]
        for name, heat in zip(("queryWeights", "weights"), heats, strict=True):
            want = 255 * np.asarray(heat) / max(np.max(heat), 1e-30)
            np.testing.assert_allclose(shown[name], want, atol=1)
    assert asked["weights"] == asked["candidates"][0]["queryWeights"]


def test_matchers_that_do_not_fit(folder, capsys, monkeypatch):
    enroll(folder)
    matchers = {
        "wide": pair_matcher(**{"model.width": 8}),
        "many": pair_matcher(**{"model.num_patches": 3}),
        "windows": pair_matcher(
            **{"model.window_size": 8, "model.window_stride": 8,
               "model.window_padding": 0, "model.num_patches": 4}
        ),
    }  # fmt: skip
    matchers["fits"] = pair_matcher()
    monkeypatch.setattr("kprpe_jax.recognizers.load_matcher", matchers.get)
    cases = {
        "wide": "--matcher wide: the matcher reads 2 patches of 8 numbers; got a reco",
        "many": "reads 3 patches of 6 numbers; got a recognizer with 2 of 6",
        "windows": "must read the patches of a recognizer; got one that makes its own",
    }
    photos, page = f"--photos={folder / 'queries'}", f"--page={folder / 'p.html'}"
    for verb, more in (("identify", ()), ("explain", (page,))):
        for name, message in cases.items():
            given = on_gallery(verb, folder, photos, f"--matcher={name}", *more)
            assert message in fails(capsys, *given)
    assert not (folder / "p.html").exists()
    (folder / "people.gallery").unlink()
    enroll(folder, "--patches=none")
    given = on_gallery("identify", folder, photos, "--matcher=fits", "--candidates=2")
    assert "keeps none; enroll with --patches" in fails(capsys, *given)


def test_specs_that_are_no_matcher(tmp_path):
    with pytest.raises(ValueError, match="--matcher x: must be NAME:FILE, .* none of"):
        load_matcher("x")
    with pytest.raises(ValueError, match="mobilefacenet is a recognizer network"):
        load_matcher("mobilefacenet:x")
    config = tiny_config()
    save_config(config, tmp_path)
    with pytest.raises(ValueError, match="holds none; train first"):
        load_matcher(str(tmp_path))
    config.train_backbone = True
    save_config(config, tmp_path)
    with pytest.raises(ValueError, match="got a run that trained its own CNN; name"):
        load_matcher(str(tmp_path))
    config.task = "face_recognition"
    save_config(config, tmp_path)
    with pytest.raises(ValueError, match="run of pair_matching; got one of face_recog"):
        load_matcher(str(tmp_path))
