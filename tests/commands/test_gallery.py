"""The gallery command, with a network of two layers."""

import pytest

from kprpe_jax.commands.main import main
from kprpe_jax.gallery.gallery import Gallery
from tests.commands.run_verb import enroll, fails, on_gallery
from tests.gallery.tiny import photo

pytestmark = pytest.mark.usefixtures("networks")


def run(folder, *arguments):
    main(on_gallery("gallery", folder, *arguments, model=""))


def test_list_and_show(folder, capsys):
    enroll(folder)
    (folder / "photos" / "bob" / "9.png").write_bytes(photo(1, 9))
    enroll(folder)
    capsys.readouterr()
    run(folder, "list")
    out, err = capsys.readouterr()
    assert out.splitlines() == ["ann\t2 photos", "bob\t3 photos", "cleo\t2 photos"]
    assert err.startswith("3 people, 7 photos; tiny (for tests): 16 x 8, RGB, ")
    run(folder, "show", "bob", "ann")
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    names = ["bob/0.png", "bob/1.png", "bob/9.png", "ann/0.png", "ann/1.png"]
    assert [line[1] for line in lines] == names
    assert {line[2] for line in lines} == {"1 image"}


def test_remove(folder, capsys):
    enroll(folder)
    run(folder, "remove", "ann", "cleo")
    out = capsys.readouterr().out
    assert "removed: 2 people, 4 photos; 2 photos remain" in out
    for names in (("bob", "bob"), ("nobody",)):
        given = on_gallery("gallery", folder, "remove", *names, model="")
        assert "nobody was removed" in fails(capsys, *given)
    with Gallery(folder / "people.gallery") as gallery:
        assert gallery.people() == {"bob": 2}
    enroll(folder)
    with Gallery(folder / "people.gallery") as gallery:
        assert gallery.people() == {"ann": 2, "bob": 2, "cleo": 2}


def test_replace_is_one_transaction(folder, capsys):
    enroll(folder)
    new = folder / "new"
    new.mkdir()
    (new / "a.png").write_bytes(photo(1, 8))
    (new / "b.png").write_bytes(b"no photo")
    given = on_gallery("gallery", folder, "replace", "bob", f"--photos={new}")
    assert "b.png: the image must be " in fails(capsys, *given)
    with Gallery(folder / "people.gallery") as gallery:
        assert gallery.people()["bob"] == 2
    main([*given, "--on-error=skip"])
    out, err = capsys.readouterr()
    assert (
        "2 given: 1 used, 1 left out (unreadable 1); replaced: 2 photos of bob by 1; 5 "
        in out
    )
    assert "left out: b.png: the image must be" in err
    with Gallery(folder / "people.gallery") as gallery:
        assert [name for name, *_ in gallery.photos_of("bob")] == ["bob/a.png"]
    (new / "a.png").unlink()
    error = fails(capsys, *given, "--on-error=skip")
    assert "no photo of" in error
    assert "bob stays as before" in error
    given[2] = "eve"
    assert "holds nobody named 'eve'" in fails(capsys, *given)


def test_one_photo_is_replaced_without_naming_the_network(folder, capsys):
    enroll(folder)
    new = folder / "new.png"
    new.write_bytes(photo(1, 8))
    given = "replace", "bob", f"--photos={new}"
    run(folder, *given, "--photo=bob/1.png")
    told = "1 given: 1 used, 0 left out; replaced: 1 photo of bob by 1; 6 photos in all"
    assert told in capsys.readouterr().out
    with Gallery(folder / "people.gallery") as gallery:
        names = [name for name, *_ in gallery.photos_of("bob")]
    assert names == ["bob/0.png", "bob/new.png"]
    given = on_gallery("gallery", folder, *given, "--photo=ann/0.png", model="")
    assert "holds no photo 'ann/0.png' of bob" in fails(capsys, *given)


def test_options_belong_to_actions(folder, capsys):
    enroll(folder)
    for message, arguments in {
        "list takes no PERSON": ("list", "ann"),
        "show needs a PERSON": ("show",),
        "remove needs a PERSON": ("remove",),
        "replace needs one PERSON and --photos": ("replace", "ann"),
        "remove takes no --photos, --photo, --model": ("remove", "ann", "--photos=x"),
        "invalid choice: 'drop'": ("drop", "ann"),
    }.items():
        given = on_gallery("gallery", folder, *arguments, model="")
        assert message in fails(capsys, *given)
