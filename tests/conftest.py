"""Eight simulated CPU devices for every test; set before JAX starts."""

import os
from importlib.metadata import version
from importlib.util import find_spec

os.environ["JAX_PLATFORMS"] = os.environ.get("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=8",
    ]
    # The older code generator compiles nearly twice as fast as the default one; most
    # tests run each of their programs once. Newer versions do not have it, and the TPU
    # compiler, where it is installed, ends the process for it.
    + ["--xla_cpu_use_fusion_emitters=false"]
    * (version("jax").startswith("0.10.") and find_spec("libtpu") is None)
)
# Commands keep compiled programs in the user's home; tests do not.
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"

import numpy as np
import pytest
from absl import flags

from tests.golden.golden import summary_line

flags.FLAGS.mark_as_parsed()  # Grain reads absl flags
# Commands have flags of the same names, and tests import several commands.
_define = flags.FlagValues.__setitem__


def _define_again(values: flags.FlagValues, name: str, flag: flags.Flag) -> None:
    flag.allow_override = True
    _define(values, name, flag)


flags.FlagValues.__setitem__ = _define_again


@pytest.fixture
def rng() -> np.random.Generator:
    """Seeded NumPy generator, the same for every test."""
    return np.random.default_rng(0)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Note in the report which golden case a test was about."""
    report = yield
    params = getattr(item, "callspec", None) and item.callspec.params
    if params and "case" in params and item.get_closest_marker("golden"):
        report.user_properties.append(("golden_case", params["case"]))
    return report


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter):
    """End with one line that says which golden cases were checked."""
    outcomes: dict[str, set[str]] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            for key, case in getattr(report, "user_properties", ()):
                # Set-up and tear-down pass, too; only their failures count.
                if key == "golden_case" and (report.when == "call" or report.failed):
                    outcomes.setdefault(case, set()).add(report.outcome)
    terminalreporter.write_line(summary_line(outcomes))
