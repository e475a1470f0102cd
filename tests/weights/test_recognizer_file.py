"""Every kind of recognizer comes back from its file, and nothing else is one."""

import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from kprpe_jax.alignment.aligned_backbone import AlignedBackbone
from kprpe_jax.backbones.recognizer import Recognizer
from kprpe_jax.commands import main as commands
from kprpe_jax.core.input_spec import InputSpec
from kprpe_jax.recognizers import load_recognizer
from kprpe_jax.weights.published import published_recognizer
from kprpe_jax.weights.recognizer_file import read_recognizer, save_recognizer
from tests.halves import recognizer as halves
from tests.siblings import SIBLINGS, sibling


def aligned():
    """A warp by landmarks in front of a small keypoint transformer."""
    inner = sibling("vit_kprpe_base_multihead")
    template = tuple(
        (x / 10, y / 10) for x, y in ((3, 4), (7, 4), (5, 6), (3, 8), (7, 8))
    )
    module = AlignedBackbone(inner.module, "affine2d", after="input", template=template)
    spec = InputSpec(inner.image_size, num_keypoints=5)
    variables = {name: {"backbone": x} for name, x in inner.variables.items()}
    return Recognizer(variables, module, spec, "aligned", style_maps=("block1",))


@pytest.mark.parametrize("name", [*SIBLINGS, "aligned"])
def test_there_and_back(name, tmp_path):
    given = aligned() if name == "aligned" else sibling(name)
    path = tmp_path / "a.safetensors"
    save_recognizer(path, given)
    again = read_recognizer(path)
    assert again.module == given.module.clone()
    assert again.input_spec == given.input_spec
    assert (again.name, again.license) == (given.name, given.license)
    assert again.style_maps == given.style_maps
    assert again.fingerprint == given.fingerprint
    jax.tree.map(np.testing.assert_array_equal, again.variables, dict(given.variables))
    assert jax.tree.map(np.shape, again.shapes()) == jax.tree.map(
        np.shape, given.shapes()
    )
    assert not list(tmp_path.glob("*.partial"))


def test_files_of_other_kinds_are_described(tmp_path):
    path, bad = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save_recognizer(path, sibling("mobilefacenet"))
    whole = path.read_bytes()
    for content in (b"", b"nonsense", whole[:200]):
        bad.write_bytes(content)
        with pytest.raises(ValueError, match="must be a recognizer written by"):
            read_recognizer(bad)
    with pytest.raises(ValueError, match="absent.safetensors must be a recognizer"):
        load_recognizer(str(tmp_path / "absent.safetensors"))
    with pytest.raises(ValueError, match="must end with .safetensors"):
        save_recognizer(tmp_path / "a.npz", sibling("mobilefacenet"))
    with pytest.raises(ValueError, match="networks are vit, .*; got a Halves"):
        save_recognizer(path, halves())


def changed(path, output, arrays=None, **about):
    """Write a file with other arrays or metadata."""
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        metadata = file.metadata()
    metadata |= {name: json.dumps(value) for name, value in about.items()}
    save_file(arrays or load_file(path), output, metadata)
    return output


def test_what_was_changed_is_refused(tmp_path):
    """Other weights or another contract under the old fingerprint; another class."""
    path, bad = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save_recognizer(path, sibling("mobilefacenet"))
    arrays = load_file(path)
    name = min(arrays)
    moved = {**arrays, name: arrays[name] + 1}
    with pytest.raises(ValueError, match="was changed after it was written"):
        read_recognizer(changed(path, bad, moved))
    spec = InputSpec((112, 96))._asdict()
    with pytest.raises(ValueError, match="was changed after it was written"):
        read_recognizer(changed(path, bad, input_spec=spec))
    foreign = {"class": "os:system", "fields": {}}
    with pytest.raises(ValueError, match="unknown class 'os:system'"):
        read_recognizer(changed(path, bad, module=foreign))


def test_an_exported_file_is_a_backbone_of_tasks(tmp_path):
    path = tmp_path / "a.safetensors"
    save_recognizer(path, sibling("iresnet_ir50"))
    for name in ("iresnet", "iresnet_ir50"):
        found = published_recognizer(name, path, style_maps=("stage3",))
        assert found.style_maps == ("stage3",)
    with pytest.raises(ValueError, match="must hold a vit; got a IResNet"):
        published_recognizer("vit", path)
    with pytest.raises(ValueError, match="unknown backbone 'resnet'; did you mean"):
        published_recognizer("resnet", path)


def test_the_export_command(monkeypatch, tmp_path, capsys):
    network = sibling("swin_kprpe_base")
    monkeypatch.setattr(
        "kprpe_jax.recognizers.load_recognizer",
        lambda spec, style_maps: network.replace(style_maps=style_maps),
    )
    output = tmp_path / "made" / "swin.safetensors"
    commands.main(["export", "--model=any", f"--output={output}"])
    told = capsys.readouterr().out
    assert f"fingerprint {network.fingerprint[:16]}; license " in told
    assert told.endswith(f"; in {output}\n")
    assert load_recognizer(str(output)).fingerprint == network.fingerprint

    def fails(*options):
        with pytest.raises(SystemExit) as error:
            commands.main(["export", f"--output={output}", *options])
        assert error.value.code == 2
        return capsys.readouterr().err

    assert "give --model or --fusion; got neither" in fails()
    assert "give one of --model and --fusion" in fails("--model=a", "--fusion=b:c")
    assert "--fusion average: needs --model" in fails("--fusion=average")
    average = tmp_path / "average.safetensors"
    commands.main(["export", "--model=any", "--fusion=average", f"--output={average}"])
    told = capsys.readouterr().out
    assert f"of the recognizer {network.fingerprint[:16]}" in told
