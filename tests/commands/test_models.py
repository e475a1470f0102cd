"""Model cards, and what a command says when it loads a recognizer."""

import re

import pytest

from kprpe_jax.commands.main import main
from kprpe_jax.model_cards import CARDS, UNKNOWN, ModelCard, card
from kprpe_jax.recognizers import load_recognizer
from kprpe_jax.registry import NETWORKS, network
from kprpe_jax.weights.recognizer_file import save_recognizer
from tests.siblings import sibling


def told(capsys, name):
    capsys.readouterr()
    main(["models", name])
    lines = capsys.readouterr().out.splitlines()
    return dict(re.split(r"  +", line, maxsplit=1) for line in lines)


def test_every_network_has_a_card():
    assert set(CARDS) == set(NETWORKS)
    for found in CARDS.values():
        assert all(found[:5])
        for digest in found.sha256.values():
            assert re.fullmatch("[0-9a-f]{64}", digest)
    assert card("another") == ModelCard()


def test_a_card(capsys):
    rows = told(capsys, "insightface_glintr100")
    assert rows["files"] == "glintr100.onnx in antelopev2.zip"
    assert rows["license"] == "research only: trained on Glint360K"
    assert rows["training data"] == "Glint360K"
    assert rows["embedding"] == "512 numbers"
    assert rows["input"].startswith("112 x 112, RGB, (x - 127.5) / 127.5, aligned")
    for row in ("SHA-256", "published accuracy", "measured here"):
        assert rows[row] == UNKNOWN
    assert told(capsys, "mobilefacenet")["measured here"].startswith("LFW's 6,000")
    assert "--fusion caface_ir101" in told(capsys, "caface_ir101")["fusion"]
    assert "embedding" not in told(capsys, "caface_g4_conf512")


def test_a_name_of_one_file_that_holds_backbone_and_fusion_model():
    assert network("caface_ir101", "recognizer").input_spec.color == "bgr"
    assert network("caface_ir101", "fusion") is NETWORKS["caface_g4_conf512"]
    with pytest.raises(ValueError, match="caface_ir101 is a recognizer network; a det"):
        network("caface_ir101", "detector")


@pytest.mark.parametrize("terms", ["research only", ""])
def test_a_command_says_what_the_network_reads(terms, tmp_path, capsys, caplog):
    path, output = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    recognizer = sibling("mobilefacenet").replace(license=terms)
    save_recognizer(path, recognizer)
    main(["export", f"--model={path}", f"--output={output}"])
    lines = capsys.readouterr()
    assert lines.err == (
        "small mobilefacenet: 112 x 96, RGB, (x - 127.5) / 128, aligned to the "
        f"template, no keypoints{'; license research only' * bool(terms)}\n"
    )
    assert f"; license {terms or 'unknown'}; in " in lines.out
    assert load_recognizer(str(output)).license == terms
