"""Run the import command in this process."""

from kprpe_jax.commands import import_
from kprpe_jax.commands.main import make_parser


def run_import(tmp_path, kind, *, name="faces", **options):
    """Import into tmp_path / "data"; options as they are named, with _ for -."""
    options = {"name": name, "data_dir": tmp_path / "data", **options}
    arguments = [f"--{key.replace('_', '-')}={x}" for key, x in options.items()]
    import_.run(make_parser(import_, "import").parse_args([kind, *arguments]))
