"""What the user sees of a run: a progress line, metrics.jsonl, TensorBoard events."""

import os
import sys
from collections.abc import Mapping
from typing import Any, TextIO

import jax
from jax.sharding import Mesh

from kprpe_jax.training.events import EventFile
from kprpe_jax.training.mirror import Mirror
from kprpe_jax.training.rows import drop_rows_after, open_rows, write_row
from kprpe_jax.training.sharding import bytes_per_device
from kprpe_jax.training.timing import STEP_SECONDS, UTILIZATION, clock, last_times

_MIB = 2**20


class RunLog:
    """The log of one run; every process but the first has one that only warns.

    Attributes:
      times_before: the last metrics of the time of the starts before; {} = none.
    """

    def __init__(
        self,
        workdir: str | os.PathLike,
        *,
        steps: int,
        start_step: int,
        is_main: bool = True,
        stream: TextIO | None = None,
    ):
        """Open the files; rows of steps after `start_step`, if any, are dropped.

        A run that was killed wrote rows which it will now write again.
        """
        self._steps = steps
        self._stream = stream or sys.stdout
        self._is_main = is_main
        self._line_open = False
        self.times_before: dict[str, float] = {}
        if is_main:
            self._mirror = Mirror(workdir, "metrics.jsonl")
            path = self._mirror.folder / "metrics.jsonl"
            self.times_before = last_times(drop_rows_after(path, start_step))
            self._rows = open_rows(path)
            self._events = EventFile(self._mirror.folder, start_step + 1)

    def say(self, text: str) -> None:
        """Print a line of its own."""
        if self._is_main:
            self._end_line()
            self._stream.write(text + "\n")
            self._stream.flush()

    def warn(self, text: str) -> None:
        """Print a line of its own; of another process to stderr, with its number."""
        self.say(text)
        if not self._is_main:
            sys.stderr.write(f"process {jax.process_index()}: {text}\n")

    def progress(
        self, step: int, metrics: Mapping[str, float], speed: Mapping[str, float]
    ) -> None:
        """Write training metrics, and the speed (`Timer.interval`)."""
        self.write(step, {**metrics, **speed})
        if not self._is_main:
            return
        left = clock(speed[STEP_SECONDS] * (self._steps - step))
        line = (
            f"step {step}/{self._steps}  loss {metrics['loss']:.4f}  "
            f"{speed['images_per_second']:.0f} images/s  ETA {left}"
        )
        if UTILIZATION in speed:
            line += f"  FLOP utilization {speed[UTILIZATION]:.1%}"
        if self._stream.isatty():
            self._stream.write(f"\r\033[K{line}")  # back to the margin, clear the line
            self._line_open = True
        else:
            self._stream.write(line + "\n")
        self._stream.flush()

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write metrics as one JSON line and as TensorBoard scalars."""
        if not self._is_main:
            return
        write_row(self._rows, step, metrics)
        self._events.write(step, metrics)
        if self._mirror.is_due:
            self.flush()

    def flush(self) -> None:
        """Have a run's bucket hold what was written: before a checkpoint, at least."""
        if self._is_main:
            self._events.flush()
            self._mirror.copy()

    def evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write an evaluation, on a line of its own where there is something in it."""
        if metrics:
            told = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
            self.say(f"step {step}  {told}")
            self.write(step, metrics)

    def close(self) -> None:
        """Finish the progress line and close the files."""
        if self._is_main:
            self._end_line()
            try:
                self._rows.close()
            finally:
                try:
                    self._events.close()
                finally:
                    self._mirror.close()

    def _end_line(self) -> None:
        if self._line_open:
            self._stream.write("\n")
            self._line_open = False


def describe_run(
    abstract_state: Any, compiled: jax.stages.Compiled, mesh: Mesh
) -> list[str]:
    """Say the mesh, the parameters in all and per device, and the expected memory.

    Args:
      abstract_state: the TrainState as ShapeDtypeStructs with shardings.
      compiled: the compiled step, for XLA's own account.
      mesh: the mesh.
    """
    params = jax.tree.leaves(abstract_state.params)
    total = sum(leaf.size for leaf in params)
    axes = " x ".join(f"{name}={size}" for name, size in mesh.shape.items())
    kind = mesh.devices.flat[0].device_kind
    lines = [
        f"mesh: {axes} on {mesh.size} {kind} devices, {jax.process_count()} processes",
        f"parameters: {total:,} in all, "
        f"{bytes_per_device(abstract_state.params) / _MIB:.1f} MiB per device "
        f"(with optimizer state {bytes_per_device(_trained(abstract_state)) / _MIB:.1f}"
        " MiB)",
    ]
    memory = compiled.memory_analysis()
    if memory is not None:
        expected = (
            memory.argument_size_in_bytes
            + memory.output_size_in_bytes
            - memory.alias_size_in_bytes
            + memory.temp_size_in_bytes
        )
        lines.append(
            f"memory: {expected / _MIB:.1f} MiB per device expected for a step "
            f"({memory.temp_size_in_bytes / _MIB:.1f} MiB of it temporary)"
        )
    return lines


def _trained(state: Any) -> tuple:
    return state.params, state.opt_state
