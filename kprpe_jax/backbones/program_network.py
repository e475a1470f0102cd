"""A network that is a compiled program, and no code of this package."""

from typing import Any

from flax.traverse_util import flatten_dict

from kprpe_jax.core.program import ExportedProgram


class ProgramNetwork:
    """The module of a recognizer that `export --format stablehlo` wrote.

    Attributes:
      program: (weights by name, images, keypoints) -> {"embeddings": [B, D], …}; it
        takes the library's images and applies the input contract by itself.
      output_dim: D of the embeddings.
      grid: (rows, columns) of patches.
      num_keypoints: K that it reads; 0 = none.
      description: of `describe`, of the network that it was.
    """

    def __init__(
        self,
        program: ExportedProgram,
        output_dim: int,
        grid: tuple[int, int],
        num_keypoints: int,
        description: Any,
    ):
        """Keep them; arguments as the attributes."""
        self.program = program
        self.output_dim = output_dim
        self.grid = grid
        self.num_keypoints = num_keypoints
        self.description = description

    def call(self, variables: Any, images: Any, keypoints: Any) -> dict[str, Any]:
        """Run the program.

        Args:
          variables: the nested weights.
          images, keypoints: of `InputSpec.fit`.
        """
        weights = flatten_dict(variables, sep="/")
        if not self.num_keypoints:
            return self.program.call(weights, images)
        return self.program.call(
            weights, images, keypoints[..., : self.num_keypoints, :]
        )
