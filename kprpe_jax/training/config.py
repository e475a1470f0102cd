"""Read a config by name or path, override its fields, and check them."""

import ast
import importlib.util
import inspect
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

import kprpe_jax.configs
from kprpe_jax import registry
from kprpe_jax.core.input_spec import InputSpec
from kprpe_jax.evaluation import evaluators
from kprpe_jax.training.runs import DEFAULTS

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
# The section `input`, which a config may leave out, as then meant.
INPUT = {n: InputSpec._field_defaults[n] for n in ("color", "mean", "scale", "framing")}
POSITIVE = (
    "steps",
    "data.batch_size",
    "optimizer.accumulate_steps",
    "checkpoint.every_steps",
    "checkpoint.keep_last",
    "log.every_steps",
    "evals.batch_size",
    "profile.start",
)
NOT_NEGATIVE = ("evals.every_steps", "profile.steps")


def load_config(spec: str, overrides: Sequence[str] = ()) -> ConfigDict:
    """Read a config, override fields, lock it and check the training's fields.

    Args:
      spec: a path or the name of one of `kprpe_jax.configs`, "digits"; in both cases
        with ":ARG", which is handed to `get_config`, or without.
      overrides: of `override_config`.
    Returns: the locked config.
    Raises: ValueError: no such config, no `get_config`; as `override_config`.
    """
    path, _, arg = spec.partition(":")
    return override_config(_run_config_file(find_config(path), arg), overrides)


def find_config(name: str) -> str:
    """The file of a config: a path, or a name such as "digits".

    Raises: ValueError: neither; the nearest name is told.
    """
    if os.path.isfile(name):
        return name
    (folder,) = kprpe_jax.configs.__path__
    named = {file.stem: file for file in pathlib.Path(folder).glob("[!_]*.py")}
    if name in named:
        return str(named[name])
    near = registry.nearest(pathlib.PurePath(name).stem, named)
    raise ValueError(
        f"--config {name}: there is no such file, and no config of that name; give a "
        f"path.py[:arg], or a name, of which {near}"
    )


def override_config(config: ConfigDict, overrides: Sequence[str]) -> ConfigDict:
    """Override fields of a config, lock it and check the training's fields.

    Args:
      config: changed in place.
      overrides: "section.field=value", read as the field's own type; the later wins.
        An evaluator may be given fields of its type that the config leaves out, and a
        new evaluator begins with its type: "evals.NAME.type=official_pairs".
    Returns: the locked config.
    Raises: ValueError: an unknown field (the nearest known one is named), a value of
      another type, or a field out of its range.
    """
    fill_defaults(config)
    for override in overrides:
        field, equals, text = override.partition("=")
        if not equals:
            raise ValueError(f"config: {field} has no value; write --config.{field}=")
        _override(config, field, text)
    config.lock()
    check_config(config)
    return config


def fill_defaults(config: ConfigDict) -> None:
    """Add the fields of `runs.DEFAULTS` that a config leaves out."""
    with config.unlocked():
        for field, value in DEFAULTS.items():
            section, name = field.split(".")
            if section not in config:
                config[section] = ConfigDict()
            if name not in config[section]:
                config[section][name] = value


def check_config(config: ConfigDict) -> None:
    """Check that every field the training reads is there, with its type and range.

    Raises: ValueError: the first field that is missing, or wrong.
    """
    flat = flatten_dict(config.to_dict(), sep=".")
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
    for field, default in DEFAULTS.items():
        if type(value := flat.get(field, default)) is not type(default):
            kind = type(default).__name__
            raise ValueError(f"config: {field} must be of type {kind}; got {value!r}")
    for field in POSITIVE:
        if flat.get(field, 1) < 1:
            raise ValueError(f"config: {field} must be at least 1; got {flat[field]}")
    for field in NOT_NEGATIVE:
        if flat.get(field, 0) < 0:
            raise ValueError(f"config: {field} must be at least 0; got {flat[field]}")
    if flat["checkpoint.best_mode"] not in ("max", "min"):
        raise ValueError(
            "config: checkpoint.best_mode must be max or min; "
            f"got {flat['checkpoint.best_mode']!r}"
        )


def _run_config_file(path: str, arg: str) -> ConfigDict:
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
    if sections[:1] == ["evals"] and len(sections) == 2:
        _open_evaluator(config.evals, sections[1], name, text)
    if sections == ["input"] and "input" not in config:
        with config.unlocked():
            config.input = ConfigDict(INPUT)
    section = config
    for part in sections:
        section = section.get(part) if isinstance(section, ConfigDict) else None
    if not isinstance(section, ConfigDict) or name not in section:
        known = flatten_dict(config.to_dict(), sep=".")
        raise ValueError(
            f"config: there is no field {field}; {registry.nearest(field, known)}"
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


def _open_evaluator(evals: ConfigDict, name: str, field: str, text: str) -> None:
    """Make room for a field of an evaluator that the config leaves out."""
    where = f"config.evals.{name}"
    with evals.unlocked():
        if name not in evals and field == "type":
            evaluators.find_type(text, None, where)
            evals[name] = ConfigDict({"type": text})
        entry = evals.get(name)
        if not isinstance(entry, ConfigDict) or "type" not in entry or field in entry:
            return
        known = evaluators.known_fields(evaluators.find_type(entry.type, None, where))
        if field in known:
            default = known[field]
            entry[field] = "" if default is inspect.Parameter.empty else default


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
