"""Evaluators: what `config.evals.NAME = {type: ..., fields}` measures, one file each.

A file defines `build(data, *, fields) -> Evaluator | None`: `data` is what the run says
of its data to all its evaluators (`faces.FaceData` for those of faces), the fields are
those of the entry with their default values, and None leaves the evaluator out, as one
of keypoints for a network that reads none. The types are `registry.EVALUATORS`.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from jax.sharding import Mesh
from ml_collections import ConfigDict

from kprpe_jax import registry

# (what is evaluated, mesh) -> {metric: value}; what: a Recognizer, or a training state
Evaluator = Callable[[Any, Mesh], dict[str, float]]


def entries(evals: ConfigDict) -> dict[str, ConfigDict]:
    """The named evaluators of a config's section `evals`, in order."""
    return {
        name: evals[name]
        for name in evals
        if isinstance(evals[name], Mapping | ConfigDict)
    }


def build_evaluators(
    evals: ConfigDict, subject: str, data: Any
) -> dict[str, Evaluator]:
    """Build the evaluators that a config's section `evals` names.

    Args:
      evals: {NAME: {type: ..., fields}}, beside fields of other kinds.
      subject: what is evaluated, a key of `registry.EVALUATORS`.
      data: first argument of the builders.
    Raises: ValueError: an entry without a type, an unknown type or field (with the
      nearest one), a field of another type or a missing one; as the builders.
    """
    built = {}
    for name, entry in entries(evals).items():
        where = f"config.evals.{name}"
        fields = {key: entry[key] for key in entry if key != "type"}
        if "type" not in entry:
            raise ValueError(
                f"{where} must have a type, one of "
                f"{', '.join(registry.EVALUATORS[subject])}; got none."
            )
        build = find_type(entry["type"], subject, where)
        fields = check_fields(build, fields, where, entry["type"])
        try:
            evaluator = build(data, **fields)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        if evaluator is not None:
            built[name] = evaluator
    return built


def find_type(name: str, subject: str | None, where: str) -> Callable[..., Any]:
    """The builder of an evaluator's type.

    Args:
      name: the type.
      subject: key of `registry.EVALUATORS`; None = any.
      where: field of the config, for the message.
    Raises: ValueError: unknown; the message has the nearest one.
    """
    kinds: dict[str, str] = {}
    for of, types in registry.EVALUATORS.items():
        kinds |= types if subject in (None, of) else {}
    if name not in kinds:
        raise ValueError(
            f"{where}.type: there is no type {name!r}; {registry.nearest(name, kinds)}"
        )
    return registry.resolve(kinds[name])


def check_fields(
    build: Callable[..., Any], fields: Mapping[str, Any], where: str, kind: str
) -> dict[str, Any]:
    """Check the fields of an entry against the keywords of its builder.

    Returns: the fields; lists, as JSON gives them back, have become tuples.
    Raises: ValueError: an unknown field, a missing one, or one of another type.
    """
    known = known_fields(build)
    for name in fields:
        if name not in known:
            raise ValueError(
                f"{where}.{name}: evaluators of type {kind} have no such field; "
                f"{registry.nearest(name, known)}"
            )
    missing = [n for n, d in known.items() if d is inspect.Parameter.empty]
    missing = [name for name in missing if name not in fields]
    if missing:
        raise ValueError(f"{where}.{missing[0]} is missing; {kind} needs it.")
    checked = {}
    for name, value in fields.items():
        value = tuple(value) if isinstance(value, list) else value
        default = known[name]
        wanted = str if default is inspect.Parameter.empty else type(default)
        given = float if wanted is float and type(value) is int else type(value)
        if given is not wanted:
            raise ValueError(
                f"{where}.{name} must be of type {wanted.__name__}; got {value!r}."
            )
        checked[name] = value
    return checked


def known_fields(build: Callable[..., Any]) -> dict[str, Any]:
    """Names and default values of a builder's fields; a text without one is needed."""
    parameters = list(inspect.signature(build).parameters.values())[1:]
    return {p.name: p.default for p in parameters}


def check_names(names: Iterable[str], known: Iterable[str]) -> None:
    """Check names of evaluators.

    Raises: ValueError: an unknown one; the message has those that there are.
    """
    known = list(known)
    for name in names:
        if name not in known:
            raise ValueError(
                f"there is no evaluator {name!r}; use some of "
                f"{', '.join(known) or '(none)'}."
            )
