"""Evaluate a run, or published weights; print a table and write it as JSON.

    kprpe-jax eval --model runs/lfw@best
    kprpe-jax eval --model vit_kprpe_base_multihead:model.safetensors --config lfw

A run is evaluated by its own config, which --config.section.field=value overrides, but
for its network. --config names other evaluators and data, and is needed for published
weights. An evaluator is added by its type and fields:

    --config.evals.lfw.type=official_pairs --config.evals.lfw.dataset=lfw

With --follow it evaluates each new checkpoint of a run that trains elsewhere until the
run ends, writes to its metrics.jsonl and, where the run has evals.every_steps 0, keeps
the best, RUN@best:

    kprpe-jax eval --model runs/lfw --follow
"""

import argparse
import json
import sys

from kprpe_jax.commands import options as shared
from kprpe_jax.core.paths import (
    AnyPath,
    as_path,
    folder_is_there,
    is_bucket,
    local_file,
    write_text,
)

TAKES_CONFIG = True
TAKES_BUCKETS = ("--output", "--config.data.dir")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    shared.add_model(parser)
    parser.add_argument(
        "--config", metavar="CONFIG", help="NAME[:ARG] or PATH[:ARG]; default the run's"
    )
    parser.add_argument(
        "--evaluators",
        metavar="NAME,...",
        type=shared.names,
        default=(),
        help="some of the config's (default: all)",
    )
    parser.add_argument(
        "--follow",
        action="store_true",
        help="evaluate each new checkpoint of a run, until it ends",
    )
    parser.add_argument(
        "--patience",
        metavar="MINUTES",
        type=float,
        default=60.0,
        help="with --follow: end after so long without anything new (60)",
    )
    shared.add_output(parser, "JSON file (default: eval.json in the run's folder)")
    shared.add_processes(parser)


def run(options: argparse.Namespace) -> None:
    """Run the eval command."""
    from kprpe_jax.core.processes import initialize_distributed
    from kprpe_jax.training.runs import parse_run

    run_spec = parse_run(options.model)
    if options.follow:
        return _follow(options, run_spec)
    output = options.output and as_path(options.output)
    if output and not folder_is_there(output):
        raise ValueError(f"--output {output} lies in no folder; make it first")
    if run_spec and not output:
        output = run_spec.workdir / "eval.json"
    initialize_distributed(
        options.coordinator, options.num_processes, options.process_id
    )
    results = _evaluate_run(options, run_spec) if run_spec else _evaluate_file(options)
    write_results(results, output)


def _follow(options, spec) -> None:
    """Evaluate the checkpoints of a run that trains elsewhere."""
    from kprpe_jax.commands.main import RunError
    from kprpe_jax.core.processes import initialize_distributed
    from kprpe_jax.training.follow import NothingNewError, follow

    if spec is None or options.model.endswith("@" + spec.checkpoint):
        raise ValueError(
            f"--model {options.model}: with --follow it must be the folder of a run "
            "that has begun, with its config.json; got something else"
        )
    if is_bucket(spec.workdir):
        raise ValueError(
            f"--model {options.model}: --follow needs files that grow and links; mount "
            "the bucket (gcsfuse, mount-s3) and give the mounted path"
        )
    if options.output:
        raise ValueError(
            f"--output {options.output}: --follow writes to the run's metrics.jsonl; "
            "leave it out"
        )
    if not options.patience > 0:
        raise ValueError(f"--patience must be above 0; got {options.patience}")
    initialize_distributed(
        options.coordinator, options.num_processes, options.process_id
    )
    try:
        follow(
            _read_config(options, spec),
            spec.workdir,
            evaluators=options.evaluators,
            patience=60 * options.patience,
        )
    except NothingNewError as error:
        raise RunError(str(error)) from None


def _read_config(options, spec):
    """The config of a run, with the evaluators and data that were asked for."""
    from kprpe_jax.training import config as config_lib
    from kprpe_jax.training.evaluate import with_network
    from kprpe_jax.training.runs import read_config

    config = read_config(spec.workdir)
    if options.config:
        other = config_lib.load_config(options.config)
        config = with_network(other, config)
    return config_lib.override_config(config, options.overrides)


def _evaluate_run(options, spec) -> dict[str, float]:
    """Evaluate a checkpoint of a run."""
    from kprpe_jax.training.evaluate import evaluate

    return evaluate(
        _read_config(options, spec),
        spec.workdir,
        checkpoint=spec.checkpoint,
        evaluators=options.evaluators,
    )


def _evaluate_file(options) -> dict[str, float]:
    """Evaluate published weights."""
    from kprpe_jax import registry
    from kprpe_jax.recognizers import is_name_alone, load_recognizer
    from kprpe_jax.training.config import load_config
    from kprpe_jax.training.evaluate import (
        evaluate,
        evaluate_recognizer,
        with_published,
    )
    from kprpe_jax.weights.programs import is_program_folder

    name, colon, file = options.model.partition(":")
    known = is_name_alone(name) or is_program_folder(options.model)
    if not (colon or known or as_path(options.model).is_file()):
        raise ValueError(
            f"--model {options.model}: must be the folder of a run, "
            "FOLDER[@CHECKPOINT], or NAME:FILE; got neither; correct the path"
        )
    if not options.config:
        raise ValueError(
            f"--model {options.model} is no run, whose config could be read; add "
            "--config, which names evaluators and data, such as --config lfw"
        )
    config = load_config(options.config, options.overrides)
    published = registry.NETWORKS.get(name)
    if published is None or published.kind == "recognizer":
        recognizer = load_recognizer(options.model)
        return evaluate_recognizer(config, recognizer, evaluators=options.evaluators)
    config = with_published(config, name)
    return evaluate(config, "", weights=local_file(file), evaluators=options.evaluators)


def write_results(results: dict[str, float], output: AnyPath | None) -> None:
    """Print a table and write it as JSON, by process 0 of several."""
    import jax

    if jax.process_index():
        return  # every process has the same numbers
    width = max(map(len, results))
    for name, value in results.items():
        sys.stdout.write(f"{name:<{width}}  {value:.6g}\n")
    if output:
        write_text(output, json.dumps(results, indent=2) + "\n")
        sys.stdout.write(f"written to {output}\n")
