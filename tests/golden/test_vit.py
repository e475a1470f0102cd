"""The vision transformers against stored outputs of the official code, in float32.

Bounds are relative to the largest value of each array. Both sides add the same float32
numbers in other orders; that costs 1e-6 for values and 3e-6 for gradients in the shared
cases, and the bounds leave room for other sizes, depths and seeds. A gradient that is
zero by construction (a bias just before a batch norm) is nothing but such noise, so
gradients are measured against at least a hundredth of the largest one of the case.
"""

from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.position.lookup import lookup_rows, sum_rows
from kprpe_jax.weights import export_weights, import_weights
from kprpe_jax.weights.official_vit import vit_from_official
from tests.golden.golden import assert_close, case_params, load_case
from tests.quick import quick_jit

pytestmark = pytest.mark.golden

VALUE_BOUND = 1e-5
GRADIENT_BOUND = 1e-4
GRADIENT_FLOOR = 1e-2

VARIANTS = {
    "scan-factorized": dict(scan=True),
    "unrolled-direct": dict(scan=False),
}


class Pass:
    """One forward, and where gradients are stored backward, pass of a case."""

    def __init__(self, name: str, variant: str) -> None:
        self.case = load_case(name)
        meta, arrays = self.case.meta, self.case.arrays
        model = vit_from_official(self.case.options, **VARIANTS[variant])
        if model.uses_keypoints:
            options = model.position_options | dict(factorized=model.scan)
            model = model.clone(position_options=options)
        self.model, self.train = model, meta["mode"] == "train"
        self.variables = import_weights(model, arrays["param"])
        self.images = jnp.asarray(arrays["in"]["x"].transpose(0, 2, 3, 1))
        keypoints = arrays["in"].get("keypoints")
        self.keypoints = None if keypoints is None else jnp.asarray(keypoints)

    @cached_property
    def result(self):
        """(block outputs, embedding, variables after), gradients."""

        def forward(params, images):
            variables = {**self.variables, "params": params}

            def both(model, images, keypoints):
                tokens = model.tokens(images, keypoints, train=self.train)
                return tokens[:-1], model.head(tokens[-1], train=self.train)

            (blocks, embedding), after = self.model.apply(
                variables, images, self.keypoints, method=both, mutable=["batch_stats"]
            )
            cotangent = self.case.arrays["in"].get("cotangent", 0.0)
            loss = jnp.sum(embedding * cotangent)
            return loss, (blocks, embedding, {**variables, **after})

        arguments = self.variables["params"], self.images
        if "grad" not in self.case.arrays:
            return quick_jit(forward)(*arguments)[1], None
        graded = jax.value_and_grad(forward, (0, 1), has_aux=True)
        (_, outputs), gradients = quick_jit(graded)(*arguments)
        return outputs, gradients

    @cached_property
    def bias(self) -> list[jax.Array]:
        """B_ij of every block."""
        return self.bias_of(self.model)

    def bias_of(self, model) -> list[jax.Array]:
        """B_ij of every block of a model that reads the same variables."""
        run = quick_jit(lambda *args: model.apply(*args, method="bias"))
        return run(self.variables, self.keypoints)

    @cached_property
    def context(self) -> list[dict[str, jax.Array]]:
        """What the tables of an unrolled iRPE add per block: rpe_q, rpe_k, rpe_v."""

        def compute(variables, images):
            _, state = self.model.apply(
                variables,
                images,
                capture_intermediates=lambda module, _: module.name == "qkv",
            )
            buckets = self.model.bind(variables).bias_tables.buckets
            tables = variables["params"]["bias_tables"]
            return [
                context_terms(
                    state["intermediates"][f"blocks_{layer}"]["attention"]["qkv"][
                        "__call__"
                    ][0],
                    {name: table[layer] for name, table in tables.items()},
                    buckets,
                    self.model.num_heads,
                )
                for layer in range(self.model.depth)
            ]

        return quick_jit(compute)(self.variables, self.images)

    def output(self, key: str) -> np.ndarray | None:
        """Ours for a stored `out::` key; None where only the other variant has it."""
        (blocks, embedding, after), _ = self.result
        name, _, layer = key.rpartition("_block")
        if key == "embedding":
            return embedding
        if name == "x":
            return blocks[int(layer)]
        if key.startswith("after::"):
            return export_weights(self.model, after)[key.removeprefix("after::")]
        if key == "bias_paper_absolute":
            return self.bias_of(self.model.clone(position="kprpe_absolute"))[0]
        if name == "bias" or self.model.position == "rpe":
            bias = self.bias[int(layer)]
            if self.model.position == "kprpe_scalar":  # stored once for all pairs
                assert float(jnp.ptp(bias, axis=(2, 3)).max()) == 0.0
                bias = bias[:, :, :1, :1]
            return bias
        if self.model.scan:  # what a scanned layer computes inside cannot be captured
            return None
        return self.context[int(layer)][name]


def context_terms(qkv, tables, buckets, heads):
    """Contextual terms of Eq. 4, from the output of the q, k, v projection."""
    q, k, v = jnp.split(qkv.reshape(*qkv.shape[:2], 3 * heads, -1), 3, axis=2)
    scale = v.shape[-1] ** -0.5
    tables = {
        name: jnp.broadcast_to(table, (heads, *table.shape[1:]))
        for name, table in tables.items()
    }
    logits, terms = jnp.einsum("bihd,bjhd->bhij", q * scale, k), {}
    for letter, tokens in (("k", q), ("q", k)):
        if f"table_{letter}" in tables:
            table = tables[f"table_{letter}"]
            products = jnp.einsum("bihd,hdk->bhik", tokens * scale, table)
            terms[f"rpe_{letter}"] = lookup_rows(products, buckets)
    logits += terms.get("rpe_k", 0.0)
    if "rpe_q" in terms:
        logits += terms["rpe_q"].swapaxes(-1, -2)
    if "table_v" in tables:
        by_bucket = sum_rows(jax.nn.softmax(logits), buckets)
        terms["rpe_v"] = jnp.einsum("bhik,hkd->bhid", by_bucket, tables["table_v"])
    return terms


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("case", case_params("vit_"))
def test_outputs_and_gradients(case, variant):
    ours = Pass(case, variant)
    for key, want in ours.case.arrays["out"].items():
        got = ours.output(key)
        if got is not None:
            assert_close(got, want, VALUE_BOUND, f"{variant} out::{key}")

    if "grad" not in ours.case.arrays:
        return
    params, images = ours.result[1]
    got = export_weights(ours.model, {"params": params})
    got["in::x"] = np.asarray(images).transpose(0, 3, 1, 2)
    stored = ours.case.arrays["grad"]
    assert set(got) == set(stored)
    floor = GRADIENT_FLOOR * max(float(np.abs(g).max()) for g in stored.values())
    for key, want in stored.items():
        what = f"{variant} grad::{key}"
        assert_close(got[key], want, GRADIENT_BOUND, what, floor=floor)
