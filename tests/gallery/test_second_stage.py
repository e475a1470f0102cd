"""Ranking again by a two-image network, through the commands."""

import json
from functools import partial

import jax
import numpy as np
import pytest

from kprpe_jax.configs import pair_matching
from kprpe_jax.data.features import write_features
from kprpe_jax.gallery import enroll, explain, identify, second_stage
from kprpe_jax.gallery.encoder import mobilefacenet_encoder
from kprpe_jax.gallery.gallery import Gallery
from kprpe_jax.gallery.pair_run import PairRun, read_pair_run
from kprpe_jax.gallery.photos import aligned_photos, embed_faces, read_photo
from kprpe_jax.matching.explanations import cross_correlation, pair_tokens
from kprpe_jax.matching.two_image import score_pairs
from kprpe_jax.tasks.pair_matching import make_model
from kprpe_jax.training import loop
from tests.gallery.test_commands import (  # noqa: F401
    call,
    enrolled,
    fails,
    folder,
    network,
    photo,
    tiny_encoder,
)
from tests.gallery.test_explain import page_of
from tests.gallery.test_explain_in_browser import write_people
from tests.gallery.test_networks import WEIGHTS, needs_data
from tests.quick import quick_jit


def tiny_config(kind="h2l", **changes):
    """A network for the patches of `tiny_encoder`: 2 of 6."""
    config = pair_matching.get_config(kind)
    small = dict(num_heads=1, head_dim=4, mlp_dim=8, width=6, num_patches=2)
    config.model.update(small | dict(output_dim=5))
    config.update_from_flattened_dict(changes)
    return config


def pair_run(kind):
    """Random weights."""
    config = tiny_config(kind)
    model = make_model(config.model)
    sides = (np.zeros((1, 2, 6), np.float32),) * (1 if kind == "h1" else 2)
    shapes = jax.eval_shape(model.init, jax.random.key(0), *sides)
    rng = np.random.default_rng(0)
    draw = lambda shape: rng.normal(size=shape.shape).astype(np.float32)  # noqa: E731
    return PairRun(config, model, jax.tree.map(draw, dict(shapes)))


@pytest.fixture
def trained(monkeypatch):
    """Folder of a run -> what is read from it."""
    runs = {}
    monkeypatch.setattr(
        second_stage, "read_pair_run", lambda workdir, checkpoint: runs[workdir]
    )
    return runs


def patches_of(path):
    """A photo's patches in the gallery's precision."""
    embed = embed_faces(tiny_encoder("w"))
    prepare = aligned_photos(tiny_encoder("w"))
    return embed([prepare(path.read_bytes())]).patches


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["h2l", "h1", "h2"])
def test_the_second_stage_is_the_network(folder, trained, kind):  # noqa: F811
    trained["run"] = run = pair_run(kind)
    enrolled(folder, "--patches=float32")
    query = folder / "x.png"
    query.write_bytes(photo(1, 7))
    output, page = folder / "answers.json", folder / "why.html"
    options = f"--photos={query}", "--pair_workdir=run", "--alpha=0.4"
    call(identify.main, folder, *options, f"--output={output}")
    answers = json.loads(output.read_text())[0]["answers"]
    assert len(answers) == 6
    own = patches_of(query)
    score = quick_jit(partial(score_pairs, run.model, run.variables))
    tokens_of = quick_jit(partial(pair_tokens, run.model, run.variables))
    for answer in answers:
        other = patches_of(folder / "photos" / answer["photo"])
        want = float(score(own, other)[0])
        assert answer["patches"] == pytest.approx(want, abs=1e-4)
        mixed = 0.4 * answer["patches"] + 0.6 * answer["cosine"]
        assert answer["score"] == pytest.approx(mixed, abs=1e-6)
    assert [a["score"] for a in answers] == sorted(
        (a["score"] for a in answers), reverse=True
    )

    call(explain.main, folder, *options, f"--page={page}", "--ranks=2")
    (asked,) = page_of(page)
    for shown, answer in zip(asked["candidates"], answers[:2], strict=True):
        assert shown["photo"] == answer["photo"]
        assert dict(shown["scores"])["patches"] == answer["patches"]
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


def test_runs_that_do_not_fit(folder, trained, capsys):  # noqa: F811
    enrolled(folder)
    query = f"--photos={folder / 'photos' / 'ann' / '0.png'}"
    trained |= {
        name: PairRun(tiny_config(**changes), None, {})
        for name, changes in {
            "wide": {"model.width": 8},
            "many": {"model.num_patches": 3},
            "windows": {"model.window_size": 8},
            "cnn": {"train_backbone": True},
        }.items()
    }
    cases = {
        "wide": "in wide reads 2 patches of 8; got a gallery of tiny with 2 of 6",
        "many": "in many reads 3 patches of 6; got a gallery of tiny with 2 of 6",
        "windows": "must read the patches of the gallery's network; got one that makes",
        "cnn": "must read the patches of the gallery's network; got one that makes",
    }
    for main in (identify.main, explain.main):
        more = [f"--page={folder / 'p.html'}"] if main is explain.main else []
        for workdir, message in cases.items():
            asked = query, f"--pair_workdir={workdir}", *more
            assert message in fails(capsys, call, main, folder, *asked)
        both = query, "--pair_workdir=run", "--weighting=apc", *more
        assert "give one of them" in fails(capsys, call, main, folder, *both)
    assert not (folder / "p.html").exists()
    (folder / "people.gallery").unlink()
    enrolled(folder, "--patches=none")
    asked = query, "--pair_workdir=wide"
    assert "a gallery that keeps none; enroll with --patches" in fails(
        capsys, call, identify.main, folder, *asked
    )


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (None, "must be the folder of a run, with its config.json"),
        ("{", "must be the folder of a run, with its config.json"),
        ("[1]", "must be the folder of a run, with its config.json"),
        (
            '{"task": "face_recognition"}',
            "pair_matching; got one of 'face_recognition'",
        ),
    ],
)
def test_folders_that_hold_no_such_run(tmp_path, text, match):
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=match):
        read_pair_run(tmp_path)


@pytest.mark.slow
@needs_data
def test_a_run_on_patches_ranks_a_gallery(tmp_path, capsys, monkeypatch):
    """Patches, training, enrollment and both commands, with real weights."""
    monkeypatch.setattr(
        "kprpe_jax.gallery.command.mobilefacenet_encoder", mobilefacenet_encoder
    )
    write_people(tmp_path)
    encoder = mobilefacenet_encoder(WEIGHTS)
    prepare, embed = aligned_photos(encoder), embed_faces(encoder)
    photos = sorted((tmp_path / "people").glob("*/*.png"))
    faces = embed([prepare(read_photo(str(path))) for path in photos])
    rows = [
        dict(
            patches=patch.astype(np.float16),
            embedding=embedding,
            label=at // 2,
            photo=at,
        )
        for at, (patch, embedding) in enumerate(
            zip(faces.patches, faces.embeddings, strict=True)
        )
    ]
    write_features(
        {"clean": iter(rows)},
        name="p",
        data_dir=tmp_path,
        shapes={"patches": (42, 512), "embedding": (128,)},
        origin={},
    )
    config = pair_matching.get_config()
    config.update_from_flattened_dict(
        {
            "steps": 2,
            "optimizer.warmup": 1.0,
            "data.dir": str(tmp_path),
            "data.name": "p",
            "data.train_identities": (),
            "data.num_classes": 8,
            "data.batch_size": 8,
            "model.mlp_dim": 16,
            "model.output_dim": 16,
            "evals.in_training": (),
            "evals.pairs.identities": (),
            "evals.pairs.count": 10,
            "checkpoint.every_steps": 2,
        }  # fmt: skip
    )
    run = tmp_path / "run"
    loop.train(config.lock(), run)

    options = [f"--gallery={tmp_path / 'people.gallery'}", f"--weights={WEIGHTS}"]
    enroll.main([*options, f"--photos={tmp_path / 'people'}"])
    options += [
        f"--photos={next((tmp_path / 'queries').iterdir())}",
        f"--pair_workdir={run}",
    ]
    page, output = tmp_path / "why.html", tmp_path / "answers.json"
    identify.main([*options, f"--output={output}", "--k=7"])
    explain.main(
        [*options, f"--page={page}", f"--gallery_photos={tmp_path / 'people'}"]
    )
    assert "1 photos explained" in capsys.readouterr().out
    with Gallery(tmp_path / "people.gallery") as gallery:
        contents = gallery.read()
        stage = second_stage.network_stage(run, gallery.model)
        (result,) = json.loads(output.read_text())
        query = embed([prepare(read_photo(result["query"]))])
        names = [answer["photo"] for answer in result["answers"]]
        rows = np.array([[contents.photos.index(name) for name in names]])
        want = stage.compare(query, contents.faces, rows)[0]
    got = [answer["patches"] for answer in result["answers"]]
    np.testing.assert_allclose(got, want, atol=1e-5)
    assert np.ptp(got) > 1e-4
    for query in page_of(page):
        assert query["grid"] == [7, 6]
        for candidate in query["candidates"]:
            assert len(candidate["queryWeights"]) == len(candidate["weights"]) == 42
            assert candidate["image"].startswith("data:image/jpeg")
