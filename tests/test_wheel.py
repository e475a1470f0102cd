"""The wheel holds the package alone, with the configs, and works outside the clone."""

import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile

import pytest

pytestmark = pytest.mark.slow
ROOT = pathlib.Path(__file__).resolve().parents[1]
IGNORED = shutil.ignore_patterns("__pycache__")


def run(*command, cwd):
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment["JAX_PLATFORMS"] = "cpu"
    done = subprocess.run(
        [*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy: setuptools leaves folders beside the sources."""
    copy = tmp_path_factory.mktemp("source")
    for name in ("kprpe_jax", "configs"):
        shutil.copytree(ROOT / name, copy / name, ignore=IGNORED)
    for name in ("pyproject.toml", "requirements.txt", "README.md"):
        shutil.copy(ROOT / name, copy / name)
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    run(*pip, "--wheel-dir", "dist", ".", cwd=copy)
    (path,) = (copy / "dist").glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The folder of the commands of an environment that has the wheel.

    It sees the packages that these tests run with, but not what is installed editable.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder)
    python = folder / "bin" / "python"
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = pathlib.Path(run(python, "-c", code, cwd=folder).strip())
    (packages / "tests.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--python", python, "install"]
    run(*pip, "--no-deps", "--no-index", "--force-reinstall", wheel, cwd=folder)
    return folder / "bin"


def test_it_holds_the_package_alone(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"kprpe_jax"}
    sources = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "kprpe_jax").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    sources |= {f"kprpe_jax/configs/{path.name}" for path in ROOT.glob("configs/*.py")}
    sources -= {"kprpe_jax/configs/__init__.py"}  # says where a clone has them
    assert sources == {name for name in names if name.startswith("kprpe_jax/")}


def test_it_works_from_another_folder(installed, tmp_path):
    place = run(
        installed / "python", "-c", "import kprpe_jax; print(kprpe_jax.__file__)",
        cwd=tmp_path,
    )  # fmt: skip
    assert place.startswith(str(installed.parent))
    command = installed / "kprpe-jax"
    assert "vit_kprpe_base_multihead" in run(command, "models", cwd=tmp_path)
    assert "kprpe-jax import KIND" in run(command, "import", "--help", cwd=tmp_path)
    run(
        command, "train", "--config", "digits", "--workdir", "run", "--config.steps=2",
        "--config.data.dir=data", "--config.data.batch_size=8",
        "--config.optimizer.warmup=0", cwd=tmp_path,
    )  # fmt: skip
    assert (tmp_path / "run" / "config.json").exists()
    run(command, "eval", "--model", "run@last", cwd=tmp_path)
