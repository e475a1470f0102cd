"""Convert runs of version 1, whose evaluators were flat fields, once and for all.

What the versions are: docs/versions.md.
"""

import json
import os
import pathlib
from collections.abc import Callable
from typing import Any

from kprpe_jax.training.runs import VERSION, renamed_fusion, write_json
from kprpe_jax.training.sole_run import sole_run

Fields = dict[str, Any]
_CADENCE = ("every_steps", "batch_size", "in_training")
_BACKBONES = {"arcface_resnet": "deepface_emd_arcface"}  # old name -> published name


def convert_run(workdir: str | os.PathLike) -> bool:
    """Convert a run's folder to VERSION.

    The old config stays as config.v1.json. config.json changes last, in one move, so
    that an interrupted conversion is repeated by the next one.

    Args:
      workdir: its config.json, metrics and checkpoints' facts are rewritten; arrays
        are not touched.
    Returns: whether there was anything to do.
    Raises: ValueError: no run's folder; a run of a newer version; fields that version 1
      did not have; a training in the folder.
    """
    folder = pathlib.Path(workdir)
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(
            f"{workdir} must be the folder of a run, with its config.json; got another "
            "folder; name what train.py --workdir wrote."
        )
    stored = _read(path)
    version = stored.get("version", 1)
    if version == VERSION:
        return False
    if version != 1:
        raise ValueError(
            f"{workdir} is a run of version {version}; this kprpe_jax converts version "
            f"1 to {VERSION}; use a newer kprpe_jax"
        )
    converted = convert_config(stored)
    with sole_run(folder):
        write_json(folder / "config.v1.json", stored)
        for step in sorted((folder / "checkpoints").glob("[0-9]*")):
            _convert_checkpoint(step)
        _convert_log(folder / "metrics.jsonl")
        write_json(path, {**converted, "version": VERSION})
    return True


def convert_config(config: Fields) -> Fields:
    """The config of version 2 that says what one of version 1 says.

    Args:
      config: as config.json holds it, without a version.
    Raises: ValueError: an unknown task, or a field that version 1 did not have.
    """
    config = json.loads(json.dumps(config))
    task = config.get("task")
    if task not in _EVALUATORS:
        raise ValueError(
            f"convert: config.task must be one of {', '.join(_EVALUATORS)}; got "
            f"{task!r}, which version 1 did not have"
        )
    model = config.get("model", {})
    _rename(model.get("position_options", {}), "gaze_width", "anchor_width")
    _rename(model.get("position_options", {}), "gaze_template", "anchor_template")
    if task in ("classification", "recognition"):
        config.setdefault("backbone", "vit")
    scale = model.pop("input_scale", 1.0) if task != "landmarks" else 1.0
    if scale != 1:
        config["input"] = {"scale": 127.5 / scale}
    if isinstance(config.get("backbone"), dict):
        _convert_backbone(config)
    evals = config["evals"]
    flat = {name: evals.pop(name) for name in list(evals) if name not in _CADENCE}
    evals |= _EVALUATORS[task](flat, config)
    if flat:
        raise ValueError(
            f"convert: config.evals.{min(flat)} is no field of version 1; remove it "
            "from config.json, or restore the file"
        )
    evals["in_training"] = [_name(name) for name in evals["in_training"]]
    best = config["checkpoint"]
    best["best_metric"] = _metric(best["best_metric"])
    return config


def _convert_backbone(config: Fields) -> None:
    """The section `backbone` of set fusion and pair matching."""
    section = config.pop("backbone")
    kind = section.pop("kind")
    config["backbone"] = _BACKBONES.get(kind, kind)
    config["backbone_weights"] = section.pop("weights")
    config["train_backbone"] = section.pop("trained")
    if "taps" in section:
        config["backbone_style_maps"] = section.pop("taps")
    if section:
        raise ValueError(
            f"convert: config.backbone.{min(section)} is no field of version 1; remove "
            "it from config.json, or restore the file"
        )
    if config["data"].get("input") == "patches":  # features have no other split
        config["data"]["train_split"] = "clean"


def _faces(flat: Fields, config: Fields) -> Fields:
    """Entries of face_recognition."""
    del config
    mirror = {"mirror": flat.pop("mirror", "sum")}
    held_out = {name: flat.pop(name) for name in ("split", "identities")}
    pairs, pairs_of = flat.pop("pairs"), flat.pop("pairs_of", "")
    severities, alphas = flat.pop("severities", ()), flat.pop("alphas", ())
    entries: Fields = {}
    if pairs_of or pairs:
        rows = {"dataset": pairs_of} if pairs_of else {**held_out, "pairs": pairs}
        fields = {"type": "verification", **rows, **mirror}
        noise = {**fields, "alphas": alphas}
        entries["aligned"] = fields
        for severity in severities:
            entries[f"misaligned_{severity:g}"] = {**fields, "severity": severity}
        entries["swapped"] = {**fields, "severity": 1.0, "keypoints": "swapped"}
        if alphas:
            entries["aligned_noise"] = noise
            entries["noise"] = {**noise, "severity": 1.0}
    for name in flat.pop("pair_sets", ()):
        entries[name] = {"type": "official_pairs", "dataset": name, **mirror}
    for kind in flat.pop("altered", ()):
        queries = {"type": "identification", "queries": kind}
        entries[f"identify_{kind}"] = {**queries, **held_out}
    unaligned, shares = flat.pop("unaligned", ""), flat.pop("alignment_shares", ())
    if unaligned:
        photos = {"type": "partly_aligned", "dataset": unaligned, "shares": shares}
        entries["partly_aligned"] = {**photos, **held_out, "pairs": pairs, **mirror}
    options = {"align": flat.pop("align", False), **mirror}
    fusion = {"fusion": renamed_fusion(flat.pop("pooling", "norm"))}
    for protocol in flat.pop("protocols", ()):
        kind, _, names = protocol.partition(":")
        names = names.split(",")
        sets = {
            "ijb": {"dataset": names[0], **fusion},
            "tinyface": {"dataset": names[0]},
            "video": {"probes": names[0], "galleries": names[1:], **fusion},
            "megaface": {"probes": names[0], "distractors": names[-1]},
        }
        entries["_".join([kind, *names])] = {"type": kind, **sets[kind], **options}
    return _named(entries)


def _digits(flat: Fields, config: Fields) -> Fields:
    """Entries of classification and of recognition on digits."""
    upright = {"type": "accuracy", "repeats": flat.pop("repeats", 1)}
    affine = {**upright, "severity": 1.0}
    entries = {
        "clean": upright,
        "affine": affine,
        "affine_box": {**affine, "keypoints": "box"},
        "affine_swapped": {**affine, "keypoints": "swapped"},
    }
    severities, alphas = flat.pop("severities", ()), flat.pop("alphas", ())
    if severities:
        entries["sweep"] = {**upright, "severities": severities}
    if alphas:
        entries["noise"] = {**affine, "alphas": alphas}
    if file := config["data"].pop("affnist_file", ""):
        entries["affnist"] = {"type": "affnist", "file": file}
    return entries


def _gait(flat: Fields, config: Fields) -> Fields:
    del config
    names = ("split", "lengths", "metric")
    fields = {"type": "gait_search", **{n: flat.pop(n) for n in names}}
    entries = {"aligned": fields, "swapped": {**fields, "swapped": True}}
    for name, field, values in (
        ("misaligned", "severity", flat.pop("severities", ())),
        ("noise", "alpha", flat.pop("alphas", ())),
        ("missing", "missing", flat.pop("missing", ())),
    ):
        entries |= {f"{name}_{x:g}": {**fields, field: x} for x in values}
    return _named(entries)


def _landmarks(flat: Fields, config: Fields) -> Fields:
    del config
    names = ("split", "min_score", "failure")
    fields = {"type": "landmark_errors", **{n: flat.pop(n) for n in names}}
    return {name: {**fields, "predictor": name} for name in ("mixer", "nms")}


def _aligned(flat: Fields, config: Fields) -> Fields:
    """Entries of joint_alignment."""
    del config
    names = ("split", "identities", "pairs")
    fields = {"type": "aligned_recognition", **{n: flat.pop(n) for n in names}}
    entries = {"aligned": fields}
    for severity in flat.pop("severities", ()):
        entries[f"misaligned_{severity:g}"] = {**fields, "severity": severity}
    return _named(entries)


def _probes(flat: Fields, config: Fields) -> Fields:
    """Entries of set_fusion."""
    del config
    names = ("features", "split", "identities", "copies", "sizes", "repeats")
    names += ("batch_images", "entropy_sets")
    fields = {name: flat.pop(name) for name in names}
    return {"probes": {"type": "growing_probes", **fields}}


def _pairs(flat: Fields, config: Fields) -> Fields:
    """Entries of pair_matching."""
    split = flat.pop("split")
    fields = {
        "dataset": flat.pop("name"),
        "split": "clean" if config["data"]["input"] == "patches" else split,
        "identities": flat.pop("identities"),
        "count": flat.pop("pairs"),
    }
    return {"pairs": {"type": "matched_pairs", **fields}}


_EVALUATORS: dict[str, Callable[[Fields, Fields], Fields]] = {  # task -> entries
    "classification": _digits,
    "recognition": _digits,
    "face_recognition": _faces,
    "set_fusion": _probes,
    "joint_alignment": _aligned,
    "landmarks": _landmarks,
    "gait": _gait,
    "pair_matching": _pairs,
}


def _convert_checkpoint(folder: pathlib.Path) -> None:
    """Convert what a checkpoint says of the config and the metrics."""
    path = folder / "meta" / "metadata"
    meta = _read(path)
    if meta.get("version", 1) == 1:
        meta["config"] = convert_config(meta["config"])
        meta["results"] = _metrics(meta.get("results", {}))
        write_json(path, {**meta, "version": VERSION})
    metrics = folder / "metrics" / "metrics"
    if metrics.is_file():
        write_json(metrics, _metrics(_read(metrics)))


def _convert_log(path: pathlib.Path) -> None:
    """Rename the evaluators in a run's log."""
    if path.is_file():
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        partial = path.with_suffix(".partial")
        partial.write_text("".join(json.dumps(_metrics(row)) + "\n" for row in rows))
        partial.replace(path)


def _metrics(results: Fields) -> Fields:
    return {_metric(name): value for name, value in results.items()}


def _metric(name: str) -> str:
    """EVALUATOR/METRIC of version 2; other names as they are."""
    evaluator, slash, metric = name.partition("/")
    return _name(evaluator) + slash + metric if slash else name


def _named(entries: Fields) -> Fields:
    return {_name(name): fields for name, fields in entries.items()}


def _name(evaluator: str) -> str:
    """Names of fields have no dots: misaligned_0.5 is misaligned_0_5."""
    return evaluator.replace(".", "_")


def _rename(section: Fields, old: str, new: str) -> None:
    if old in section:
        section[new] = section.pop(old)


def _read(path: pathlib.Path) -> Fields:
    try:
        return dict(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError) as error:
        raise ValueError(f"convert: {path} is damaged: {error}") from None
