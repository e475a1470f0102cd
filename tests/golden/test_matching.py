"""Earth mover's matching against stored outputs of the official code and of scipy.

The official Sinkhorn stops when the mean change over all pairs of a batch is small; the
stored number of rounds is run here, so that results are comparable. Float32 sums in
another order cost up to 1e-5 after the hundred rounds of the longest case, hence bounds
of 1e-4.
"""

import jax.numpy as jnp
import numpy as np
import pytest

from kprpe_jax.core.features import Features, take
from kprpe_jax.core.unit import unit
from kprpe_jax.evaluation.retrieval import count_relevant, retrieval
from kprpe_jax.matching.earth_movers import match_faces
from kprpe_jax.matching.flow import (
    Correspondence,
    correspondence,
    flow_picture,
    official_correspondence,
)
from kprpe_jax.matching.matchers import EarthMoversMatcher
from kprpe_jax.matching.patch_weights import pair_weights
from kprpe_jax.matching.sinkhorn import FAST, Solver, transport
from kprpe_jax.matching.two_stage import first_stage, rank_again
from tests.golden.golden import (
    assert_close,
    case_params,
    load_case,
    official_weighting,
    official_weightings,
)
from tests.quick import quick_jit

pytestmark = pytest.mark.golden

compare = quick_jit(match_faces, static_argnames=("weighting", "solver"))
solve = quick_jit(transport, static_argnums=3)

BOUND = 1e-4
SOLVERS = {
    "kernel": Solver(domain="kernel", unequal="query"),
    "log": Solver(domain="log", unequal="query"),
}


def arrays(case):
    loaded = load_case(case)
    return loaded.meta, loaded.arrays["in"], loaded.arrays["out"]


def official_features(maps, grid, embeddings, keypoints=None):
    """Features as the official code makes them of maps [..., C, h, w]."""
    rows, columns = (
        have // want for have, want in zip(maps.shape[-2:], grid, strict=True)
    )
    raw = maps.reshape(*maps.shape[:-2], grid[0], rows, grid[1], columns)
    raw = raw.mean((-3, -1)).reshape(*maps.shape[:-2], -1).swapaxes(-1, -2)
    return Features(embeddings, raw, keypoints=keypoints)


def with_centers(patches, centers):
    """Features for the rule `cc`, which then weighs as APC with these centers does."""
    return Features(centers, patches)


def sides_of(meta, given):
    grid = tuple(meta["grid"])
    points = [given.get(f"lmk_{side}") for side in ("query", "gallery")]
    if points[0] is not None:
        points = [x / np.float32(meta["lmk_size"]) for x in points]
        # Theirs takes points up to one cell left of or above the image for inside ones.
        points = [np.where((x < 0) & (x > -1 / grid[0]), 0, x) for x in points]
    query, gallery = (
        official_features(given[f"{side}_map"], grid, given[f"{side}_fea"], keypoints)
        for side, keypoints in zip(("query", "gallery"), points, strict=True)
    )
    return query, gallery


@pytest.mark.parametrize("domain", SOLVERS)
@pytest.mark.parametrize("case", case_params("emd_g"))
def test_every_weighting(case, domain):
    meta, given, want = arrays(case)
    base = SOLVERS[domain]._replace(epsilon=meta["epsilon"])
    query, gallery = sides_of(meta, given)
    grid = tuple(meta["grid"])
    kinds = [kind for kind in official_weightings() if f"sim_{kind}" in want]
    if domain == "log":  # weights do not depend on it
        kinds = ["apc", "uew"]

    @quick_jit
    def compute(query, gallery):
        sides = unit(query.patches), unit(gallery.patches)
        similarity = jnp.einsum("nc,gmc->gnm", *sides)
        result = {}
        for kind in kinds:
            solver = base._replace(iterations=int(want[f"iters_{kind}"]))
            options = dict(weighting=official_weighting(kind), grid=grid)
            weights = pair_weights(
                options["weighting"], query, gallery, similarity, grid=grid
            )
            match = match_faces(query, gallery, solver=solver, **options)
            result[kind] = weights, match
        return result

    for kind, ((v, u), match) in compute(query, gallery).items():
        v = np.broadcast_to(v, want[f"v_{kind}"].shape)
        assert_close(u, want[f"u_{kind}"], BOUND, f"{kind}: gallery weights")
        assert_close(v, want[f"v_{kind}"], BOUND, f"{kind}: query weights")
        assert_close(match.score, want[f"sim_{kind}"], BOUND, f"{kind}: score")
        flow = np.swapaxes(match.flow, 1, 2)  # theirs: gallery, query
        assert_close(flow, want[f"flow_{kind}"], BOUND, f"{kind}: flow")
        cosine = unit(query.embeddings) @ unit(gallery.embeddings).T
        mixed = meta["alpha"] * match.score + (1 - meta["alpha"]) * cosine
        assert_close(mixed, want[f"combined_{kind}"], BOUND, f"{kind}: mixed")


@pytest.mark.parametrize("case", case_params("emd_g"))
def test_each_pair_alone(case):
    meta, given, want = arrays(case)
    query, gallery = sides_of(meta, given)

    @quick_jit
    def compute(query, gallery):
        scores = []
        for row, rounds in enumerate(want["iters_apc_single"].tolist()):
            solver = SOLVERS["kernel"]._replace(iterations=rounds)
            options = dict(weighting=official_weighting("apc"), solver=solver)
            scores.append(match_faces(query, take(gallery, row), **options).score)
        return jnp.stack(scores)

    assert_close(compute(query, gallery), want["sim_apc_single"], BOUND, "score")


@pytest.mark.parametrize("domain", SOLVERS)
@pytest.mark.parametrize("case", case_params("emd_sinkhorn"))
def test_flow_of_a_kernel(case, domain):
    _, given, want = arrays(case)
    solver = SOLVERS[domain]._replace(iterations=int(want["iters"]))
    cost = -solver.epsilon * np.log(given["K"]).swapaxes(1, 2)
    # Their rounds start with the rows, ours with the columns.
    plan = solve(cost, given["v"], given["u"], solver)
    assert_close(np.swapaxes(plan.flow, 1, 2), want["T"], BOUND, "flow")


@pytest.mark.parametrize("case", case_params("emd_exact"))
def test_small_epsilon_gives_the_linear_program(case):
    """As near as the entropy of 81 flows and what is not moved yet allow."""
    _, given, want = arrays(case)
    cost = given["cost"]
    solver = Solver(epsilon=0.005, iterations=500, start_epsilon=0.2)
    for weights, name in (("b", "distance"), ("b_light", "distance_partial")):
        plan = solve(cost, given["a"], given[weights], solver)
        distance = (plan.flow * cost).sum((1, 2))
        allowed = plan.error * cost.max() + solver.epsilon
        assert (np.abs(distance - want[name]) <= allowed).all()
        assert float(plan.error.max()) < 1e-2


@pytest.mark.parametrize("case", case_params("emd_zero"))
def test_clipped_weights(case):
    """Theirs: score 0 and a flow of NaN, stored as 0, where a side has no weight."""
    meta, given, want = arrays(case)
    query = with_centers(given["patch_query"].T, given["center_query"])
    gallery = with_centers(
        given["patch_gallery"].swapaxes(1, 2), given["center_gallery"]
    )
    parts = {"batch": slice(None), "clean_subset": slice(2)}
    parts |= {f"single{i}": slice(i, i + 1) for i in range(len(gallery.patches))}
    for name, rows in parts.items():
        solver = SOLVERS["kernel"]._replace(iterations=int(want[f"iters_{name}"]))
        rule = official_weighting(meta.get("method", "apc"), with_centers=True)
        match = compare(query, take(gallery, rows), weighting=rule, solver=solver)
        assert_close(match.score, want[f"sim_{name}"], BOUND, f"{name}: score")
        flow = np.swapaxes(match.flow, 1, 2)
        nothing = want[f"flow_isnan_{name}"].astype(bool)
        assert not flow[nothing].any()
        assert_close(
            flow, want[f"flow_nan0_{name}"], BOUND, f"{name}: flow", floor=1e-3
        )


@pytest.mark.slow
@pytest.mark.parametrize("case", case_params("emd_twostage"))
def test_two_stages(case):
    meta, given, want = arrays(case)
    (gallery, gallery_centers), ids = bank(given, "gallery"), given["gallery_label"]
    own_set = meta["query_is_gallery"]
    queries, centers = bank(given, "gallery" if own_set else "query")
    method = official_weighting(meta["method"], with_centers=True)
    query_ids = ids if own_set else given["query_label"]
    own = np.arange(len(ids)) if own_set else None

    first = first_stage(queries, gallery, ranks=len(ids), exclude_rows=own)
    order = np.where(want["stage1_scores"] == -100, -np.inf, want["stage1_scores"])
    assert_scores(first, order, "stage 1")

    patches = np.zeros((len(query_ids), meta["k"]), np.float32)
    for rounds in np.unique(want["iters"]):
        chosen = np.flatnonzero(want["iters"] == rounds)
        matcher = EarthMoversMatcher(
            method, solver=FAST._replace(iterations=int(rounds))
        )
        rows = first.rows[chosen, : meta["k"]]
        patches[chosen] = matcher.score(take(centers, chosen), gallery_centers, rows)
    same = first.rows[:, : meta["k"]] == want["stage1_order"][:, : meta["k"]]
    wrong = np.abs(patches - want["stage2_emd"])[same]
    assert same.mean() > 0.99
    assert wrong.max() <= BOUND

    final = rank_again(first, patches, None if meta["alpha"] < 0 else meta["alpha"])
    combined = np.sort(want["stage2_combined"], 1)[:, ::-1]
    assert_close(final.scores[:, : meta["k"]], combined, BOUND, "mixed scores")

    relevant = count_relevant(query_ids, ids)
    for row, ranking in enumerate((first, final)):
        found = np.where(ranking.rows < 0, -1, ids[ranking.rows])
        got = retrieval(found, query_ids, relevant)
        stored = want[f"per_query_stage{row + 1}"]
        assert_close(np.stack(got, 1), stored, 1e-5, f"stage {row + 1}")
        means = 100 * np.stack(got, 1).mean(0)
        assert_close(means, want["metrics_percent"][row], 1e-5, "metrics")


def bank(given, side):
    patches = given[f"{side}_patches"].swapaxes(1, 2)
    features = Features(given[f"{side}_fea"], patches)
    return features, with_centers(patches, given[f"{side}_center"])


def assert_scores(ranking, scores, what):
    """Scores by rank, and rows where neighbors are more than round-off apart."""
    order = np.argsort(-scores, axis=1, kind="stable")
    ranked = np.take_along_axis(scores, order, 1)
    finite = np.isfinite(ranked)
    assert (np.isfinite(ranking.scores) == finite).all()
    assert_close(ranking.scores[finite], ranked[finite], BOUND, what)
    gaps = np.diff(np.where(finite, ranked, -1e9), axis=1, prepend=1e9, append=-1e10)
    clear = (gaps[:, 1:] < -1e-5) & (gaps[:, :-1] < -1e-5) & finite
    assert (ranking.rows == order)[clear].all()


def official_rounds(cost, u, v):
    """Rounds until the official code stops for one pair: cost [gallery, query]."""
    kernel = np.exp(-cost / 0.05)
    r, c = np.ones_like(u), np.ones_like(v)
    for rounds in range(1, 100):
        before, r = r, u / (kernel @ c)
        c = v / (kernel.T @ r)
        if np.abs(r - before).mean() < 0.1:
            return rounds
    return 100


@pytest.mark.parametrize("case", case_params("flow_"))
def test_flow_pictures(case):
    meta, given, want = arrays(case)
    grid = (meta["level"],) * 2
    one = np.zeros(1, np.float32)
    query, gallery = (
        official_features(given[f"{side}_map"], grid, one)
        for side in ("query", "gallery")
    )
    cost = 1 - np.asarray(unit(gallery.patches) @ unit(query.patches).T)
    rounds = official_rounds(cost, want["u"], want["v"])
    solver = SOLVERS["kernel"]._replace(iterations=rounds)
    match = compare(
        query, gallery, weighting=official_weighting(meta["method"]), solver=solver
    )
    assert_close(match.flow.T, want["flow"], BOUND, "flow")
    assert_close(match.score[None], want["sim"], BOUND, "score")

    shown = correspondence(match.flow)
    check(shown, want["thesis_index_map"], want["thesis_intensity"], "thesis")
    image = given["gallery_image"].astype(np.float32) / 255
    for rule, name in (("min_max", "visualize"), ("max", "demo")):
        shown = official_correspondence(match.flow, intensity=rule)
        check(shown, want["index_map"], want[f"intensity_{name}"], name)
        if f"grid_{name}" in want:
            picture = flow_picture(image, shown, grid=grid, source=grid)
            got = np.moveaxis(np.asarray(picture), -1, 0)
            # Min-max normalization enlarges the round-off of the flow.
            assert_close(got, want[f"grid_{name}"], 1e-3, name)


def check(shown: Correspondence, index, intensity, what):
    np.testing.assert_array_equal(shown.index, index.reshape(-1), what)
    assert_close(shown.intensity, intensity.reshape(-1), 1e-3, what)
