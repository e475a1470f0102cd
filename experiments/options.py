"""Options that several experiments share, beside `kprpe_jax.commands.options`."""

import argparse
import pathlib

from ml_collections import ConfigDict

from kprpe_jax.commands import options as shared


def add_config(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    """--config PATH[:ARGUMENT]; `--config.field=value` overrides its fields."""
    parser.add_argument(
        "--config",
        metavar="PATH",
        required=default is None,
        default=default,
        help="config of the runs, path.py[:argument]; --config.field=value overrides "
        "its fields" + (f" ({default})" if default else ""),
    )


def read_config(options: argparse.Namespace) -> ConfigDict:
    """Load --config with the overrides."""
    from kprpe_jax.training.config import load_config

    return load_config(options.config, options.overrides)


def add_seeds(parser: argparse.ArgumentParser) -> None:
    """--seeds N,N."""
    parser.add_argument(
        "--seeds",
        type=whole_numbers,
        default=[0],
        metavar="N,N",
        help="each is a run of its own (0)",
    )


def add_workdir(parser: argparse.ArgumentParser) -> None:
    """--workdir DIR."""
    parser.add_argument(
        "--workdir", metavar="DIR", required=True, help="folder of the run"
    )


def add_report(parser: argparse.ArgumentParser, default: str) -> None:
    """--output DIR of the report."""
    parser.add_argument(
        "--output",
        metavar="DIR",
        type=pathlib.Path,
        default=pathlib.Path(default),
        help=f"folder of the report ({default})",
    )


def add_picture(parser: argparse.ArgumentParser, default: str) -> None:
    """--output FILE of a picture."""
    shared.add_output(parser, f"picture to write ({default})")
    parser.set_defaults(output=default)


def add_photo_set(parser: argparse.ArgumentParser) -> None:
    """--archive and --points, or --dataset, --data-dir and --identities."""
    parser.add_argument(
        "--archive", metavar="FILE", help="LFW's aligned photos, .tar.gz"
    )
    parser.add_argument("--points", metavar="FILE", help="their landmarks, .npz")
    parser.add_argument(
        "--dataset", metavar="NAME[:SPLIT]", help="an imported data set instead"
    )
    shared.add_data_dir(parser)
    parser.add_argument(
        "--identities",
        type=shared.identity_range,
        metavar="FIRST:END",
        help="of the data set (all)",
    )


def add_synthetic(parser: argparse.ArgumentParser, identities: int) -> None:
    """--seed and --identities of synthetic people."""
    parser.add_argument("--seed", type=int, default=0, help="of the people (0)")
    parser.add_argument(
        "--identities",
        type=shared.positive,
        default=identities,
        metavar="N",
        help=f"how many people ({identities})",
    )


def whole_numbers(text: str) -> list[int]:
    """Comma-separated whole numbers."""
    if not all(part.isdecimal() for part in text.split(",")):
        raise argparse.ArgumentTypeError(
            f"must be whole numbers, such as 0,1,2; got {text}"
        )
    return [int(part) for part in text.split(",")]


def numbers(text: str) -> list[float]:
    """Comma-separated numbers."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"must be numbers, such as 0.5,1,2; got {text}"
        ) from error


def place(text: str) -> tuple[int, int]:
    """ROW,COLUMN."""
    found = whole_numbers(text)
    if len(found) != 2:
        raise argparse.ArgumentTypeError(f"must be ROW,COLUMN; got {text}")
    return found[0], found[1]
