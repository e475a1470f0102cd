"""Read a config file, override its fields, and keep it beside the run.

A config is a plain ml_collections file with `get_config(arg=None)`. `train.py` and
`eval.py` read the command line through `split_overrides` rather than through
`ml_collections.config_flags`, whose errors reach the user as tracebacks.
"""

import ast
import difflib
import importlib.metadata
import importlib.util
import inspect
import json
import os
import pathlib
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

import kprpe_jax

# Between two starts of one run these may change: they say where and how fast the run
# goes, not what it computes. (But for PartialFC, loss.sample_rate below 1: another size
# of mesh.class draws other class centers.)
MAY_CHANGE = (
    "checkpoint",
    "data.dir",
    "data.num_threads",
    "data.num_workers",
    "log",
    "mesh",
)

# What a run's network computes, beyond the shapes of its arrays: an evaluation must say
# the same. (Class centers are padded: their shape does not tell how many there are.)
NETWORK = (
    "task",
    "backbone",
    "backbone_weights",
    "backbone_style_maps",
    "train_backbone",
    "model",
    "fusion",
    "alignment",
    "canvas",
    "data.num_classes",
)
# Values of these that compute the same, but for rounding; None: any, as the checkpoint
# holds the weights, wherever they came from or began.
SAME_NETWORK = {
    "model.attention": ("xla", "pallas"),
    "model.dtype": ("float32", "bfloat16"),
    "model.remat": (False, True),
    "model.position_options.factorized": (False, True),
    "model.position_options.anchor_width": None,
    "model.position_options.anchor_template": None,
    "backbone_weights": None,
}

# What the training loop reads, whatever the task; a task checks its own sections.
FIELDS = {
    "task": str,
    "seed": int,
    "steps": int,
    "data.batch_size": int,
    "data.num_threads": int,
    "data.num_workers": int,
    "optimizer.name": str,
    "optimizer.learning_rate": float,
    "optimizer.end_learning_rate": float,
    "optimizer.schedule": str,
    "optimizer.schedule_unit": str,
    "optimizer.warmup": float,
    "optimizer.power": float,
    "optimizer.boundaries": tuple,
    "optimizer.step_factor": float,
    "optimizer.weight_decay": float,
    "optimizer.b1": float,
    "optimizer.b2": float,
    "optimizer.momentum": float,
    "optimizer.clip_norm": float,
    "optimizer.position_factor": float,
    "optimizer.accumulate_steps": int,
    "mesh.data": int,
    "mesh.fsdp": int,
    "mesh.class": int,
    "checkpoint.every_steps": int,
    "checkpoint.keep_last": int,
    "checkpoint.best_metric": str,
    "checkpoint.best_mode": str,
    "log.every_steps": int,
    "evals.every_steps": int,
    "evals.batch_size": int,
    "evals.in_training": tuple,
}
POSITIVE = (
    "steps",
    "data.batch_size",
    "optimizer.accumulate_steps",
    "checkpoint.every_steps",
    "checkpoint.keep_last",
    "log.every_steps",
    "evals.every_steps",
    "evals.batch_size",
)
_ABSENT = "absent"


def split_overrides(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Take the `--config.field=value` arguments out of a command line.

    Returns: the other arguments, in order; the overrides as "field=value".
    """
    others, overrides = [], []
    for argument in argv:
        name = argument.lstrip("-")
        if argument.startswith("-") and name.startswith("config."):
            overrides.append(name.removeprefix("config."))
        else:
            others.append(argument)
    return others, overrides


def load_config(spec: str, overrides: Sequence[str] = ()) -> ConfigDict:
    """Read a config file, override fields, lock it and check the training's fields.

    Args:
      spec: "path.py" or "path.py:arg"; `arg` is handed to `get_config`.
      overrides: "section.field=value", read as the field's own type; the later wins.
    Returns: the locked config.
    Raises: ValueError: no such file, no `get_config`, an unknown field (the nearest
      known one is named), a value of another type, or a field out of its range.
    """
    path, _, arg = spec.partition(":")
    config = _run_config_file(path, arg)
    for override in overrides:
        field, equals, text = override.partition("=")
        if not equals:
            raise ValueError(f"config: {field} has no value; write --config.{field}=")
        _override(config, field, text)
    config.lock()
    check_config(config)
    return config


def check_config(config: ConfigDict) -> None:
    """Check that every field the training reads is there, with its type and range.

    Raises: ValueError: the first field that is missing, or wrong.
    """
    flat = flatten(config)
    for field, kind in FIELDS.items():
        if field not in flat:
            raise ValueError(
                f"config: {field} is missing; set it to a value of type {kind.__name__}"
            )
        value, kinds = flat[field], (kind, int) if kind is float else (kind,)
        if type(value) not in kinds:
            raise ValueError(
                f"config: {field} must be of type {kind.__name__}; got {value!r}"
            )
    for field in POSITIVE:
        if flat[field] < 1:
            raise ValueError(f"config: {field} must be at least 1; got {flat[field]}")
    if flat["checkpoint.best_mode"] not in ("max", "min"):
        raise ValueError(
            "config: checkpoint.best_mode must be max or min; "
            f"got {flat['checkpoint.best_mode']!r}"
        )


def flatten(config: ConfigDict) -> dict[str, Any]:
    """Give the config's fields as {"section.field": value}, sections left out."""

    def walk(section, prefix):
        for name in section:
            value = section[name]
            if isinstance(value, ConfigDict):
                yield from walk(value, f"{prefix}{name}.")
            else:
                yield prefix + name, value

    return dict(walk(config, ""))


def check_workdir(config: ConfigDict, workdir: str | os.PathLike) -> list[str]:
    """Compare `config` with the one that `workdir` holds, if any; write nothing.

    Returns: one "field: old -> new" for each field that changed and may change.
    Raises: ValueError: the folder is a file, or holds a run of another config (the
      first differing field is named with both values).
    """
    workdir = pathlib.Path(workdir)
    if workdir.exists() and not workdir.is_dir():
        raise ValueError(f"workdir: {workdir} is a file; name a folder")
    path = workdir / "config.json"
    if not path.exists():
        return []
    stored = _flatten_json(_read_json(path))
    wanted = _flatten_json(_to_json(config))
    changes = []
    for field in sorted(stored.keys() | wanted.keys()):
        old, new = stored.get(field, _ABSENT), wanted.get(field, _ABSENT)
        if old == new:
            continue
        if not _is_in(field, MAY_CHANGE):
            raise ValueError(
                f"workdir: {workdir} holds a run whose {field} is {old!r} while this "
                f"config has {new!r}; take another --workdir (of a study: "
                "--output), or the run's own config "
                f"(only {', '.join(MAY_CHANGE)} may change between restarts)"
            )
        changes.append(f"{field}: {old!r} -> {new!r}")
    return changes


def network_changes(stored: Mapping[str, Any], config: ConfigDict) -> list[str]:
    """Compare the network of a run's config, as JSON gives it, with that of another.

    Returns: "field is OLD in the run and NEW here" for each field of NETWORK that
      differs.
    """
    stored, wanted = _flatten_json(stored), _flatten_json(_to_json(config))
    changes = []
    for field in sorted(stored.keys() | wanted.keys()):
        old, new = stored.get(field, _ABSENT), wanted.get(field, _ABSENT)
        if old == new or not _is_in(field, NETWORK):
            continue
        same = SAME_NETWORK.get(field, ())
        if same is None or (old in same and new in same):
            continue
        changes.append(f"{field} is {old!r} in the run and {new!r} here")
    return changes


def save_config(config: ConfigDict, workdir: str | os.PathLike) -> None:
    """Write config.json and versions.json into `workdir`, each in one move."""
    workdir = pathlib.Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    _write_json(workdir / "config.json", _to_json(config))
    _write_json(workdir / "versions.json", versions())


def versions() -> dict[str, str]:
    """Name the versions that a result depends on, and the kind of device."""
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint")
    found = {name: importlib.metadata.version(name) for name in packages}
    found["python"] = platform.python_version()
    found["kprpe_jax"] = kprpe_jax.__version__
    found["device_kind"] = jax.devices()[0].device_kind
    return found


def _run_config_file(path: str, arg: str) -> ConfigDict:
    if not os.path.isfile(path):
        raise ValueError(f"config: no file {path}; name a config file, path.py[:arg]")
    module_spec = importlib.util.spec_from_file_location("kprpe_jax_config", path)
    if module_spec is None:
        raise ValueError(f"config: {path} is not a Python file; name a path.py[:arg]")
    module = importlib.util.module_from_spec(module_spec)
    try:
        module_spec.loader.exec_module(module)
    except SyntaxError as error:
        raise ValueError(
            f"config: {path} line {error.lineno} is not Python: {error.msg}"
        ) from error
    if not hasattr(module, "get_config"):
        raise ValueError(f"config: {path} has no get_config(); define one")
    if arg and not inspect.signature(module.get_config).parameters:
        raise ValueError(f"config: get_config() of {path} takes no argument; got {arg}")
    config = module.get_config(arg) if arg else module.get_config()
    if not isinstance(config, ConfigDict):
        raise ValueError(
            f"config: get_config() of {path} must return a ConfigDict; "
            f"got {type(config).__name__}"
        )
    return config


def _override(config: ConfigDict, field: str, text: str) -> None:
    *sections, name = field.split(".")
    section = config
    for part in sections:
        section = section.get(part) if isinstance(section, ConfigDict) else None
    if not isinstance(section, ConfigDict) or name not in section:
        raise ValueError(
            f"config: there is no field {field}; {_nearest(field, config)}"
        )
    if isinstance(section[name], ConfigDict):
        raise ValueError(
            f"config: {field} is a section; override one of its fields: "
            + ", ".join(f"{field}.{n}" for n in section[name])
        )
    kind = section.get_type(name)
    try:
        value = _parse(text, kind)
    except (ValueError, SyntaxError):
        raise ValueError(
            f"config: {field} must be of type {kind.__name__}; got {text!r}"
        ) from None
    section[name] = value


def _parse(text: str, kind: type) -> Any:
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError(text)
        return text.lower() == "true"
    if kind in (int, float, str):
        return kind(text)
    value = ast.literal_eval(text)
    if kind in (tuple, list):
        if not isinstance(value, tuple | list):
            raise ValueError(text)
        return kind(value)
    return value


def _nearest(field: str, config: ConfigDict) -> str:
    known = list(flatten(config))
    near = difflib.get_close_matches(field, known, n=1, cutoff=0.0)
    return f"the nearest is {near[0]}"


def _is_in(field: str, sections: Sequence[str]) -> bool:
    return any(field == s or field.startswith(s + ".") for s in sections)


def _to_json(config: ConfigDict) -> dict[str, Any]:
    return json.loads(json.dumps(config.to_dict()))  # tuples become lists, as on disk


def _flatten_json(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat |= _flatten_json(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _read_json(path: pathlib.Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(
            f"workdir: {path} is not JSON ({error.msg}, line {error.lineno}); "
            "take another --workdir"
        ) from None


def _write_json(path: pathlib.Path, tree: dict[str, Any]) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(tree, indent=2, sort_keys=True) + "\n")
    partial.replace(path)
