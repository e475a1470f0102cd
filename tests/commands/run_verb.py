"""Run a verb as the command line does."""

import pytest

from kprpe_jax.commands.main import main


def fails(capsys, *arguments, status=2):
    """The one sentence of a command that fails."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main([*map(str, arguments)])
    assert stopped.value.code == status
    error = capsys.readouterr().err
    assert error.splitlines()[-1].startswith("error: ")
    return error


def on_gallery(verb, folder, *arguments, model="w"):
    """Arguments of a verb on `people.gallery` in the folder."""
    given = [verb, *map(str, arguments), f"--gallery={folder / 'people.gallery'}"]
    return [*given, f"--model={model}"] if model else given


def enroll(folder, *arguments, **options):
    """Enroll the folder's photos."""
    photos = f"--photos={folder / 'photos'}"
    main(on_gallery("enroll", folder, photos, *arguments, **options))
