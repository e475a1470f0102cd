"""A run on disk: its folder, its config and version, a checkpoint of it."""

import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

import kprpe_jax
from kprpe_jax.core.paths import AnyPath, as_path, bucket_errors, is_bucket, write_text

VERSION = 2  # of what a run's folder holds; docs/versions.md
# Between two starts of one run these may change: they say where and how fast the run
# goes, not what it computes. (But for PartialFC, loss.sample_rate below 1: another size
# of mesh.class samples other class centers.)
MAY_CHANGE = (
    "checkpoint",
    "data.dir",
    "data.num_threads",
    "data.num_workers",
    "log",
    "mesh",
    "profile",
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
    "input",
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
    "model.weights": None,
    "model.freeze": None,
}
# Fields that a config may leave out, and what is then meant.
DEFAULTS = {
    "model.weights": "",
    "model.freeze": (),
    "optimizer.learning_rate_factors": (),
    "log.watchdog_minutes": 0.0,
    "profile.start": 10,
    "profile.steps": 0,
}
_ABSENT = "absent"
_ORIGIN = "origin.json"


class RunSpec(NamedTuple):
    """A run's folder and one of its checkpoints, written FOLDER or FOLDER@CHECKPOINT.

    Attributes:
      workdir: the folder, of `paths.as_path`.
      checkpoint: "best", "last" or a step.
    """

    workdir: AnyPath
    checkpoint: str

    def __str__(self) -> str:
        """FOLDER@CHECKPOINT."""
        return f"{self.workdir}@{self.checkpoint}"


def parse_run(spec: str) -> RunSpec | None:
    """Read FOLDER[@CHECKPOINT]; None where FOLDER is not the folder of a run."""
    for text, checkpoint in ((spec, "best"), spec.rpartition("@")[::2]):
        if text and (as_path(text) / "config.json").is_file():
            return RunSpec(as_path(text), checkpoint or "best")
    return None


def save_origin(workdir: str | os.PathLike, origin: Mapping[str, Any]) -> None:
    """Write the facts about a run's data (`Task.origin`) beside its config."""
    if origin:
        write_json(as_path(workdir) / _ORIGIN, dict(origin))


def read_origin(workdir: str | os.PathLike) -> dict[str, Any]:
    """Read the facts about a run's data; {} where it keeps none.

    Raises: ValueError: a damaged file.
    """
    return read_facts(
        as_path(workdir) / _ORIGIN, "data", "delete it and continue the run once"
    )


def read_facts(path: AnyPath, about: str, advice: str) -> dict[str, Any]:
    """Read facts that a run keeps beside its config; {} where there are none.

    Args:
      path: of the JSON file.
      about, advice: for the error: what the facts are about, and what to do.
    Raises: ValueError: a damaged file.
    """
    if not path.is_file():
        return {}
    try:
        with bucket_errors(path):
            return dict(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, TypeError) as e:
        if is_bucket(path) and isinstance(e, OSError):
            raise
        raise ValueError(
            f"{path} must hold what train.py wrote about the {about}; got a damaged "
            f"file; {advice}"
        ) from e


def check_origin(workdir: str | os.PathLike, origin: Mapping[str, Any]) -> None:
    """Raise ValueError where a run began on data with other facts."""
    stored, wanted = read_origin(workdir), json.loads(json.dumps(dict(origin)))
    changed = [name for name in stored if stored[name] != wanted.get(name)]
    if changed:
        raise ValueError(
            f"workdir: the run in {workdir} began on other data: their "
            f"{', '.join(changed)} differ; give the data of the run, or take another "
            "--workdir"
        )


def read_config(workdir: str | os.PathLike) -> ConfigDict:
    """Read the config that a run was started with, overrides included.

    Raises: ValueError: no run's folder, a damaged config, or one of another version.
    """
    path = as_path(workdir) / "config.json"
    if not path.is_file():
        raise ValueError(
            f"{workdir} must be the folder of a run, with its config.json; got another "
            "folder; name what train.py --workdir wrote."
        )
    stored = _read_run_json(path)
    check_version(stored, workdir)
    return ConfigDict(_tuples({k: v for k, v in stored.items() if k != "version"}))


def check_version(stored: Mapping[str, Any], workdir: str | os.PathLike) -> None:
    """Raise ValueError where a run's config.json is not of VERSION."""
    version = stored.get("version", 1)
    if version == VERSION:
        return
    advice = (
        f"convert it once: kprpe-jax convert {workdir}"
        if isinstance(version, int) and version < VERSION
        else "use the kprpe_jax that made it, or a newer one"
    )
    raise ValueError(
        f"{workdir} is a run of version {version}; this kprpe_jax reads version "
        f"{VERSION}; {advice}"
    )


def check_workdir(
    config: ConfigDict, workdir: str | os.PathLike, *, extend: bool = False
) -> list[str]:
    """Compare `config` with the one that `workdir` holds, if any; write nothing.

    Args:
      config: of the run that starts.
      workdir: its folder.
      extend: it may have more steps than the stored one.

    Returns: one "field: old -> new" for each field that changed and may change.
    Raises: ValueError: the folder is a file, or holds a run of another config (the
      first differing field is named with both values).
    """
    workdir = as_path(workdir)
    # A bucket has no folders, and a file's name may be the beginning of others'.
    if not is_bucket(workdir) and workdir.exists() and not workdir.is_dir():
        raise ValueError(f"workdir: {workdir} is a file; name a folder")
    path = workdir / "config.json"
    if not path.exists():
        if extend:
            raise ValueError(
                f"--extend: --workdir must hold the run that goes on; {workdir} holds "
                "none; name its folder, or leave --extend out"
            )
        return []
    tree = _read_run_json(path)
    check_version(tree, workdir)
    stored = flatten_dict({k: v for k, v in tree.items() if k != "version"}, sep=".")
    wanted = flatten_dict(_to_json(config), sep=".")
    changes = []
    for field in sorted(stored.keys() | wanted.keys()):
        old, new = (_value(fields, field) for fields in (stored, wanted))
        if old == new:
            continue
        if field == "steps" and not extend and new > old:
            raise ValueError(
                f"workdir: {workdir} holds a run whose steps is {old!r} while this "
                f"config has {new!r}; add --extend to train it on under the schedule "
                f"of {new!r} steps, or take another --workdir"
            )
        longer = field == "steps" and extend and new > old
        if not (longer or _is_in(field, MAY_CHANGE)):
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
    stored = flatten_dict(stored, sep=".")
    wanted = flatten_dict(_to_json(config), sep=".")
    changes = []
    for field in sorted(stored.keys() | wanted.keys()):
        old, new = (_value(fields, field) for fields in (stored, wanted))
        if old == new or not _is_in(field, NETWORK):
            continue
        same = SAME_NETWORK.get(field, ())
        if same is None or (old in same and new in same):
            continue
        changes.append(f"{field} is {old!r} in the run and {new!r} here")
    return changes


def save_config(config: ConfigDict, workdir: str | os.PathLike) -> None:
    """Write config.json and versions.json into `workdir`, each in one move."""
    workdir = as_path(workdir)
    if not is_bucket(workdir):
        workdir.mkdir(parents=True, exist_ok=True)
    write_json(workdir / "config.json", {**_to_json(config), "version": VERSION})
    write_json(workdir / "versions.json", versions())


def versions() -> dict[str, str]:
    """Name the versions that a result depends on, and the kind of device."""
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint")
    found = {name: importlib.metadata.version(name) for name in packages}
    found["python"] = platform.python_version()
    found["kprpe_jax"] = kprpe_jax.__version__
    found["device_kind"] = jax.devices()[0].device_kind
    return found


def _value(fields: Mapping[str, Any], field: str) -> Any:
    """A field of a flat config as JSON gives it; what it means where it is left out."""
    default = DEFAULTS.get(field, _ABSENT)
    value = fields.get(field, default)
    return list(value) if isinstance(value, tuple) else value


def _is_in(field: str, sections: Sequence[str]) -> bool:
    return any(field == s or field.startswith(s + ".") for s in sections)


def _to_json(config: ConfigDict) -> dict[str, Any]:
    return json.loads(json.dumps(config.to_dict()))  # tuples become lists, as on disk


def renamed_fusion(pooling: str) -> str:
    """What the field `fusion` of a protocol says for the older field `pooling`."""
    return "average" if pooling == "equal" else pooling


def _read_run_json(path: AnyPath) -> dict[str, Any]:
    """A run's config.json; evaluators have `fusion` where older ones had `pooling`."""
    stored = _read_json(path)
    for entry in stored.get("evals", {}).values():
        if isinstance(entry, dict) and "pooling" in entry:
            entry["fusion"] = renamed_fusion(entry.pop("pooling"))
    return stored


def _read_json(path: AnyPath) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(
            f"workdir: {path} is not JSON ({error.msg}, line {error.lineno}); "
            "take another --workdir"
        ) from None


def write_json(path: AnyPath, tree: dict[str, Any]) -> None:
    """Write a JSON file in one move."""
    write_text(path, json.dumps(tree, indent=2, sort_keys=True) + "\n")


def _tuples(value: Any) -> Any:
    """JSON's lists as tuples, which configs have."""
    if isinstance(value, dict):
        return {name: _tuples(item) for name, item in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
