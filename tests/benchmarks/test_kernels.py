"""The benchmark of the Pallas kernels, as far as CPUs can run it."""

import jax
import pytest

from benchmarks import kernels


def test_refuses_cpus():
    with pytest.raises(ValueError, match="on CPUs Pallas kernels are interpreted"):
        kernels.run(None)


@pytest.mark.slow
def test_all_ways_of_attention_are_timed_on_one_problem():
    summaries = kernels.run_attention(2, 1, (2, 2), 8, dtype="float32", rounds=1)
    assert list(summaries) == ["forward", "gradient"]
    for summary in summaries.values():
        assert list(summary) == ["xla", "pallas", "product"]
        assert all(row["items_per_s"] > 0 for row in summary.values())


def test_attention_that_differs_is_not_timed(monkeypatch):
    """Here in the gradient of q alone."""
    product = kernels.layers("float32")["product"]

    def broken(qkv, tables, buckets):
        moved = qkv - jax.lax.stop_gradient(qkv)  # zero, but for its gradient
        wrong = qkv.at[:, :, 0].add(moved[:, :, 0])
        return product(wrong, tables, buckets)

    ways = {"xla": product, "broken": broken}
    monkeypatch.setattr(kernels, "layers", lambda _: ways)
    monkeypatch.setattr(kernels.harness, "time_variants", lambda *_, **__: 1 / 0)
    with pytest.raises(AssertionError, match="broken"):
        kernels.run_attention(2, 1, (2, 2), 8, dtype="float32", rounds=1)


def test_both_domains_are_timed_on_one_problem():
    summary = kernels.run_sinkhorn(2, patches=4, rounds=1)
    assert list(summary) == ["kernel", "pallas"]
    assert all(row["items_per_s"] > 0 for row in summary.values())


def test_flows_that_differ_are_not_timed(monkeypatch):
    transport = kernels.transport

    def broken(*arguments):
        plan = transport(*arguments)
        return plan._replace(flow=plan.flow * (1 + (arguments[-1].domain == "pallas")))

    monkeypatch.setattr(kernels, "transport", broken)
    monkeypatch.setattr(kernels.harness, "time_variants", lambda *_, **__: 1 / 0)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        kernels.run_sinkhorn(2, patches=4, rounds=1)
