import socket

import jax
import pytest
from ml_collections import ConfigDict

from kprpe_jax.training import loop
from kprpe_jax.training.profiling import Profile, serve_profiles
from tests.training import toy

PLAIN = toy.make_task(batch_norm=False)


def train(workdir, *, last):
    fields = {"mesh.data": 8, "steps": last, "evals.every_steps": 0}
    config = toy.make_config(**fields)
    with config.unlocked():
        config.profile = ConfigDict({"start": 3, "steps": 2})
    return loop.train(config, workdir, task=PLAIN, extend=last > 6)


def traces_of(workdir):
    return list(workdir.glob("plugins/profile/*/*.xplane.pb"))


def steps_in(path):
    """The training steps that a trace holds."""
    planes = jax.profiler.ProfileData.from_file(str(path)).planes
    lines = (line for plane in planes for line in plane.lines)
    events = (event for line in lines for event in line.events)
    stats = [dict(event.stats) for event in events if event.name == "train"]
    return sorted(found["step_num"] for found in stats)


def test_the_asked_steps_are_traced_once(tmp_path, capsys):
    train(tmp_path, last=6)
    (path,) = traces_of(tmp_path)
    assert steps_in(path) == [3, 4]
    assert "config.profile: steps 3 to 4 are in " in capsys.readouterr().out
    train(tmp_path, last=8)  # goes on
    assert traces_of(tmp_path) == [path]
    told = "no step is traced: profile.start is 3, and this start has the steps 7 to 8"
    assert told in capsys.readouterr().out


def test_a_run_that_ends_in_between_writes_what_it_has(tmp_path):
    config = ConfigDict({"start": 5, "steps": 100})
    profile = Profile(config, tmp_path, done=2, last=9)
    for step in (3, 4, 5, 6):
        profile.before(step)
        with jax.profiler.StepTraceAnnotation("train", step_num=step):
            result = jax.numpy.ones(3) + step
        assert profile.after(step, result) == ""
    profile.close()
    profile.close()
    (path,) = traces_of(tmp_path)
    assert steps_in(path) == [5, 6]


@pytest.mark.parametrize("port", [0, 70_000])
def test_a_port_that_cannot_be_opened(port):
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = port or taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"--profile-server {port}: must be a fr"):
            serve_profiles(port)
