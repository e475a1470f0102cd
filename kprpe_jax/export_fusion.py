"""A trained fusion model, or an official one, as one file for `kprpe_jax.fuse_photos`.

python -m kprpe_jax.export_fusion --config configs/set_fusion.py \\
        --workdir runs/set_fusion --output fusion.safetensors
python -m kprpe_jax.export_fusion --official caface_g4_conf512 \\
        --source caface.pt --output fusion.safetensors
"""

import pathlib
import sys

import jax
from absl import app, flags
from ml_collections import ConfigDict

from kprpe_jax import registry, tasks
from kprpe_jax.core import mesh as mesh_lib
from kprpe_jax.data.face_features import read_origin
from kprpe_jax.fusion.files import FusionFile, save_model
from kprpe_jax.tasks import set_fusion
from kprpe_jax.training.checkpoint import restore_for_eval
from kprpe_jax.training.command import (
    command,
    parse_flags,
    read_config,
    read_workdir,
)
from kprpe_jax.training.state import abstract_state
from kprpe_jax.weights import import_weights

_OUTPUT = flags.DEFINE_string("output", "fusion.safetensors", "File to write.")
_OFFICIAL = flags.DEFINE_enum(
    "official", None, ["caface_g4_conf512", "caface_g2_conf1"], "Network."
)
_SOURCE = flags.DEFINE_string("source", None, "File of its weights.")


def export_run(
    config: ConfigDict, workdir: str, output: str | pathlib.Path
) -> FusionFile:
    """Write the fusion model of a run's last checkpoint.

    Args:
      config: of the run.
      workdir: of the run.
      output: .safetensors file.
    Raises: ValueError: a run of another task, or with a trained backbone; no
      checkpoint.
    """
    if config.task != "set_fusion" or config.backbone.trained:
        raise ValueError(
            "export_fusion: the config must be of the task set_fusion with a frozen "
            f"backbone; got task {config.task!r}; name another run"
        )
    mesh = mesh_lib.make_mesh(config.mesh)
    task = tasks.build(config, mesh)
    state = restore_for_eval(workdir, "last", abstract_state(task, mesh), config)
    variables = jax.device_get(set_fusion.fusion_variables(state))
    origin = read_origin(config.data.dir, config.data.features)
    model = set_fusion.make_model(config.fusion, embed_dim=origin["embed_dim"])
    return save_model(output, model, variables, backbone=origin["fingerprint"])


def _export(overrides: list[str]) -> None:
    if _OFFICIAL.value is not None:
        if _SOURCE.value is None:
            raise ValueError("export_fusion: --official needs --source; got none")
        file = save_model(
            _OUTPUT.value,
            registry.network(_OFFICIAL.value, "fusion").make(),
            import_weights(_OFFICIAL.value, _SOURCE.value),
            backbone="",
        )
    else:
        file = export_run(read_config(overrides), read_workdir(), _OUTPUT.value)
    sys.stdout.write(f"model {file.fingerprint} written to {_OUTPUT.value}\n")


main = command(_export)

if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
