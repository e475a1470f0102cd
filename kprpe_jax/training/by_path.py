"""Parameters by patterns of their paths: frozen ones, and learning-rate factors.

A pattern is a regular expression that is found anywhere in a path such as
"backbone/blocks_0/attention/qkv/kernel", as those of the sharding rules are.
"""

import difflib
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
from ml_collections import ConfigDict

from kprpe_jax.layers.batch_norm import BatchNorm
from kprpe_jax.training.sharding import flatten_with_paths, path_of

Factors = Sequence[tuple[str, float]]


def freeze_labels(patterns: Sequence[str], params: Any) -> Any:
    """Label parameters "frozen" or "trained"; returns a tree like `params`."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: "frozen" if _is_found(patterns, path_of(path)) else "trained",
        params,
    )


def factor_of(factors: Factors, path: str) -> float:
    """The learning-rate factor of a parameter: of the first pattern found, else 1."""
    return next((x for pattern, x in factors if re.search(pattern, path)), 1.0)


def freeze_loss(loss: Callable[..., Any], patterns: Sequence[str]) -> Callable:
    """A task's loss that gives frozen parameters no gradient.

    A batch norm whose parameters are all frozen (one without parameters: whose path a
    pattern is found in) uses its running statistics in training, too, and they do not
    move.

    Args:
      loss: of `Task`.
      patterns: of `config.model.freeze`; () gives `loss` itself.
    """
    if not patterns:
        return loss

    def frozen_loss(params, collections, batch, rng, *, train):
        frozen = {
            path: _is_found(patterns, path) for path in flatten_with_paths(params)
        }
        params = jax.tree_util.tree_map_with_path(
            lambda path, x: jax.lax.stop_gradient(x) if frozen[path_of(path)] else x,
            params,
        )

        def run(method, args, kwargs, context):
            module = context.module
            if (
                isinstance(module, BatchNorm)
                and kwargs.get("train")
                and _is_norm_frozen("/".join(module.path), frozen, patterns)
            ):
                kwargs = {**kwargs, "train": False}
            return method(*args, **kwargs)

        with nn.intercept_methods(run):
            return loss(params, collections, batch, rng, train=train)

    return frozen_loss


def check_patterns(config: ConfigDict, params: Any) -> None:
    """Check the patterns of a config against the parameters there are.

    Reads model.freeze, optimizer.learning_rate_factors, where they are there.

    Raises: ValueError: one that is no regular expression or that no path has; patterns
      that freeze everything; a factor that is not a finite number above 0.
    """
    paths = list(flatten_with_paths(params))
    freeze = tuple(config.get("model", {}).get("freeze", ()))
    _check_found("config.model.freeze", freeze, paths)
    if freeze and all(_is_found(freeze, path) for path in paths):
        raise ValueError(
            f"config.model.freeze must leave something to train; {freeze} freezes all "
            f"{len(paths)} arrays; narrow a pattern, such as backbone/blocks_0/"
        )
    factors = config.optimizer.get("learning_rate_factors", ())
    field = "config.optimizer.learning_rate_factors"
    for pair in factors:
        if not (isinstance(pair, tuple | list) and len(pair) == 2):
            raise ValueError(
                f"{field} must be pairs (pattern, factor), such as (('backbone/', 0.1),"
                f"); got {pair!r}"
            )
        number = pair[1]
        if type(number) not in (int, float) or not 0 < number < math.inf:
            raise ValueError(
                f"{field} must be finite numbers above 0; got {number!r} for "
                f"{pair[0]!r}; name what shall not learn in config.model.freeze"
            )
    _check_found(field, [pattern for pattern, _ in factors], paths)


def _check_found(field: str, patterns: Sequence[str], paths: Sequence[str]) -> None:
    for pattern in patterns:
        try:
            found = any(re.search(pattern, path) for path in paths)
        except (re.error, TypeError):
            raise ValueError(
                f"{field} must be regular expressions over paths; got {pattern!r}"
            ) from None
        if not found:
            near = difflib.get_close_matches(pattern, paths, n=3, cutoff=0.0)
            raise ValueError(
                f"{field} must match some parameters; {pattern!r} matches none; near "
                f"it are {', '.join(near)}"
            )


def _is_norm_frozen(
    module: str, frozen: dict[str, bool], patterns: Sequence[str]
) -> bool:
    """Whether a batch norm, by its path within the applied network, is frozen.

    The network may lie below a name among the parameters, as a backbone does.
    """
    above = {""} | {f"{path.split('/')[0]}/" for path in frozen if "/" in path}
    first = module.split("/")[0]
    holders = {a for a in above if any(p.startswith(f"{a}{first}/") for p in frozen)}
    for name in holders or above:
        where = f"{name}{module}/"
        own = [
            is_frozen for path, is_frozen in frozen.items() if path.startswith(where)
        ]
        if all(own) if own else _is_found(patterns, f"{where}mean"):
            return True
    return False


def _is_found(patterns: Sequence[str], path: str) -> bool:
    return any(re.search(pattern, path) for pattern in patterns)
