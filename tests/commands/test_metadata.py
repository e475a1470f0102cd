"""Metadata of people: from a table into galleries and answers."""

import json

import pytest

from kprpe_jax.commands.main import main
from tests.commands.run_verb import enroll, fails, on_gallery

pytestmark = pytest.mark.usefixtures("networks")


def test_metadata_comes_back_with_the_answer(folder, capsys):
    table = folder / "people.csv"
    table.write_text("role,person,room\nguard,ann,\ncook,bob,12\nguest,zoe,1\n")
    enroll(folder, f"--metadata={table}")
    assert "--metadata: 'zoe' is not enrolled" in capsys.readouterr().err
    main(["gallery", "show", "bob", "--gallery", str(folder / "people.gallery")])
    shown = capsys.readouterr().out.splitlines()
    assert all(line.endswith("role=cook\troom=12") for line in shown)
    answers = folder / "answers.json"
    main(on_gallery("identify", folder, f"--photos={folder / 'queries'}",
                    f"--output={answers}"))  # fmt: skip
    found = {x["person"]: x.get("metadata") for x in json.loads(answers.read_text())}
    assert found == {
        "ann": {"role": "guard"},
        "bob": {"role": "cook", "room": "12"},
        "cleo": None,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,role\nann,guard\n", "a header with the column person"),
        ("person,role,role\nann,a,b\n", "each column once"),
        ("person,role\nann\n", "row 2 must have 2 cells"),
        ("person,role\nann,a,b\n", "row 2 must have 2 cells"),
        ("person,role\nann,a\nann,b\n", "row 3 must name a person, each once"),
        ("person,role\n,a\n", "row 2 must name a person"),
        ("person,role\nann,\xe9\n", "must be a CSV file in UTF-8"),
    ],
)
def test_a_bad_table_makes_no_gallery(folder, capsys, text, message):
    table = folder / "people.csv"
    table.write_bytes(text.encode("latin-1"))
    given = f"--photos={folder / 'photos'}", f"--metadata={table}"
    assert message in fails(capsys, *on_gallery("enroll", folder, *given))
    assert not (folder / "people.gallery").exists()
