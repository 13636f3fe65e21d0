"""Small samples: what few seeds cannot tell, and runs that are one run shown again."""

import dataclasses
import math

import jax
import numpy as np
import pytest
from scipy import stats
from test_lab_statistics import cells, result
from test_lab_statistics import made_up as made_up_of_rates

import jaxinit
from jaxinit import lab
from jaxinit.lab._result import statistics
from jaxinit.lab._result.statistics import interval, paired
from jaxinit.lab._show.page import page
from jaxinit.lab._show.plots import select_plots
from jaxinit.lab._show.table import caption, markdown
from jaxinit.lab._tried.data import make_task

pytestmark = pytest.mark.usefixtures("quick_compiler", "short_runs")

result = result  # the fixture
NAN, INF = math.nan, math.inf
KEYS = jax.random.split(jax.random.key(0), 3)


def made_up(result, loss, test, **changes):
    """The run with these numbers at both rates. # each [initializers, seeds, 1]"""
    loss, test = (np.repeat(a, 2, axis=2) for a in (loss, test))
    few = slice(len(loss)), slice(loss.shape[1])
    probes, signals = jax.tree.map(lambda a: a[few], (result.probes, result.signals))
    given = {"probes": probes, "signals": signals, **changes}
    return made_up_of_rates(result, loss, test, **given)


def drawn(spec, keys=KEYS):
    """Weights of an initializer by seed. # [1, seeds, 4, 4]"""
    init = jaxinit.parse(spec) if isinstance(spec, str) else spec
    return np.stack([init(key, (4, 4)) for key in keys])[None]


def one_against(result, test, loss=0.1, weights="he_normal()", **changes):
    """he_normal(), with scores about 97.3 %, and another with these numbers."""
    best = [[0.963], [0.973], [0.983]]
    loss = np.broadcast_to(np.reshape(loss, (-1, 1)), (3, 1))
    losses = np.stack([np.full((3, 1), 0.01), loss])
    initial = {"w": np.concatenate([drawn("he_normal()"), drawn(weights)])}
    tests = [best, np.reshape(test, (3, 1))]
    return made_up(result, losses, tests, initial=initial, **changes)


# What cannot be told, and how many seeds could.


@pytest.fixture(scope="module")
def undecided(result):
    """A comparison that three seeds leave open, and its page."""
    found = one_against(result, [0.8, 0.0, 0.0], loss=[0.1, 0.69, 0.69])
    return found, page(found, "")


@pytest.mark.slow
def test_three_seeds_that_cannot_tell_say_how_many_could(undecided):
    found = undecided[0]
    assert cells(found, found.rows()[1])[6:8] == [
        "26.7 [0.0,\N{NO-BREAK SPACE}100.0]",
        "3 seeds cannot tell: −70.6 would need 5",
    ]
    for text in (markdown(found), undecided[1], str(found), found._repr_html_()):
        assert "3 seeds cannot tell: −70.6 would need 5" in text
        assert "no effect shown" not in text
    assert found.answer == (
        "he_normal() alone trains on every seed; zeros() trains on 1 of 3 seeds."
    )


@pytest.mark.parametrize(
    "differences, needed",
    [
        ([-0.163, -0.973, -0.983], 5),
        ([0.1, 0.5, 0.9], 5),
        ([-0.1, -0.5, -0.9], 5),
        ([0.1, -0.1, 0.1], 49),
        ([0.1, -0.1, 0.0, 0.001], INF),
        ([0.1, 0.1], 3),
        ([0.1, 0.2], 4),
        ([0.1], NAN),
        ([0.1, -0.1], INF),
        ([0.1, NAN, 0.1], NAN),
        ([0.0, 0.0, 0.0], INF),
        ([0.1, 0.2, 0.1], NAN),  # it is told
    ],
)
def test_the_seeds_that_would_be_needed(differences, needed):
    zeros = np.zeros(len(differences))
    found = paired(differences, zeros, higher_is_better=True)
    np.testing.assert_equal(found.seeds_needed, needed)
    assert (found.verdict == "cannot tell") == (differences != [0.1, 0.2, 0.1])
    if math.isfinite(needed) and needed > 3:
        t = np.mean(differences) / stats.sem(differences) / math.sqrt(len(differences))
        for n, shown in ((needed - 1, False), (needed, True)):
            level = 2 * stats.t.sf(abs(t) * math.sqrt(n), n - 1)
            assert (level < 0.05) == shown or n == len(differences)


@pytest.mark.parametrize(
    "test, said",
    [
        ([0.963, 0.973, 0.983], "3 seeds cannot tell"),
        ([NAN, 0.9, 0.9], "3 seeds cannot tell"),
        ([0.961, 0.975, 0.983], "3 seeds cannot tell"),  # no number up to 1000
        ([0.960, 0.974, 0.9799], "3 seeds cannot tell: −0.2 would need 10"),
        ([0.86, 0.87, 0.885], "worse by 10.1"),
    ],
)
def test_cells_say_what_is_known_of_an_effect(result, test, said):
    found = one_against(result, test)
    text = cells(found, found.rows()[1])[7]
    assert text == said or (said.endswith("tell") and text.startswith(said + ": "))
    assert "need" not in text or "need" in said


def test_one_seed_says_so(result):
    found = made_up(result, [[[0.01]], [[0.1]]], [[[0.9]], [[0.8]]])
    assert cells(found, found.rows()[1])[6:8] == ["80.0", "1 seed cannot tell: −10.0"]


def test_the_kind_of_interval_is_named(undecided):
    found, text_of_page = undecided
    said = "95 % bootstrap interval of the mean over seeds: percentiles, widened"
    for text in (caption(found), markdown(found), found._repr_html_()):
        assert said in text
    assert said in " ".join(text_of_page.split())
    assert found.to_dict()["statistics"]["interval"].startswith(said)


# Equal runs are one run.


@jaxinit.initializer
def keyless():
    """A user's initializer that claims randomness and has none."""
    return lambda key, shape, dtype: jax.numpy.full(shape, 0.1, dtype)


@jaxinit.initializer
def two_faced():
    """One of two weights, by the key."""

    def draw(key, shape, dtype):
        return jax.numpy.full(shape, 0.1, dtype) * (
            1 + jax.random.bernoulli(key).astype(dtype)
        )

    return draw


@pytest.mark.parametrize(
    "weights, distinct",
    [
        ("identity()", 1),
        ("zeros()", 1),
        ("constant(0.1)", 1),
        ("dirac()", 1),
        (keyless(), 1),
        (two_faced(), 2),
        ("he_normal()", 3),
        ("orthogonal()", 3),
    ],
)
@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("model", ["mlp", "test_lab_few_seeds:Model"])
def test_distinct_runs_are_counted_by_what_differs(
    result, weights, distinct, dropout, model
):
    if weights == "dirac()":
        w = np.stack([jaxinit.dirac()(None, (3, 4, 4))] * 3)[None]
    else:
        w = drawn(weights)
    settings = dataclasses.replace(
        result.settings,
        initializers=result.settings.initializers[:1],
        dropout=dropout,
    )
    object.__setattr__(settings, "model", model)
    known = {"settings": settings, "initial": {"b": np.zeros((1, 3, 4)), "w": w}}
    equal = np.ones((1, 3, 1, 5), np.float32)
    found = dataclasses.replace(result, curves=equal, **known)
    assert found.distinct.sum() == distinct
    # Where a seed may change more than the weights, equal weights are not enough.
    other = equal + np.arange(3, dtype=np.float32)[None, :, None, None]
    found = dataclasses.replace(result, curves=other, **known)
    assert found.distinct.sum() == (distinct if not dropout and model == "mlp" else 3)


def test_equal_runs_have_no_interval_and_no_deviation(result):
    found = one_against(result, [0.958] * 3, weights="identity()")
    row = found.rows()[1]
    assert row.distinct_runs == 1 and row.test_mean == pytest.approx(0.958)
    for number in (row.test_error, row.test_stddev, row.test_low, row.test_high):
        assert math.isnan(number)
    assert cells(found, row)[6] == "95.8 (1 distinct run)"
    text = page(found, "")
    assert "[95.8" not in markdown(found) and "[95.8" not in text
    assert "1 distinct run" in text
    assert found.to_dict()["table"][1]["test_low"] is None


def test_equal_scores_of_different_runs_keep_their_interval(result):
    found = one_against(result, [0.102] * 3)
    assert cells(found, found.rows()[1])[6] == "10.2 [10.2,\N{NO-BREAK SPACE}10.2]"


def test_bands_of_plots_are_not_of_copies(result):
    from jaxinit.lab._show.plots import _compute_intervals

    found = one_against(result, [0.958] * 3, weights="identity()")
    curves = np.random.default_rng(0).normal(size=(2, 3, 5))
    he, identity = _compute_intervals(found, curves)
    np.testing.assert_allclose(he[0], curves[0].mean(axis=0), rtol=1e-12)
    np.testing.assert_array_equal(identity[0], curves[1, 0])
    assert np.isfinite(he).all() and np.isnan(identity[1:]).all()
    assert "loss" in select_plots(found)


@pytest.mark.parametrize(
    "ours, theirs", [([0.9], [0.5, 0.4, 0.6]), ([0.5, 0.8], [0.1])]
)
def test_one_run_is_one_more_draw_from_the_law_of_the_others(ours, theirs):
    found = statistics.against_one(ours, theirs, higher_is_better=True)
    many = max(ours, theirs, key=len)
    n = len(many)
    half = stats.t.ppf(0.975, n - 1) * np.std(many, ddof=1) * math.sqrt(1 + 1 / n)
    middle = np.mean(ours) - np.mean(theirs)
    np.testing.assert_allclose(found[:3], [middle, middle - half, middle + half])
    shown = n >= 3 and abs(middle) > half
    assert (found.verdict != "cannot tell") == shown


def test_one_run_against_equals_shows_an_effect_one_time_in_twenty():
    generator = np.random.default_rng(0)
    verdicts = [
        statistics.against_one(few, one, higher_is_better=True).verdict
        for few, one in zip(
            generator.normal(size=(600, 3)),
            generator.normal(size=(600, 1)),
            strict=True,
        )
    ]
    share = np.mean([verdict != "cannot tell" for verdict in verdicts])
    assert abs(share - 0.05) < 4 * math.sqrt(0.05 * 0.95 / 600)


@pytest.mark.parametrize(
    "test, weights, said",
    [
        ([0.958] * 3, "identity()", "1 run cannot tell: −1.5"),
        ([0.938] * 3, "identity()", "1 run cannot tell: −3.5 would need 5 seeds"),
        ([0.5] * 3, "identity()", "worse by 47.3"),
    ],
)
def test_effects_of_one_run(result, test, weights, said):
    found = one_against(result, test, weights=weights)
    assert cells(found, found.rows()[1])[7] == said


def test_two_single_runs_cannot_be_told_apart(result):
    initial = {"w": np.concatenate([drawn("identity()"), drawn("constant(0.1)")])}
    loss = np.broadcast_to(np.reshape([0.01, 0.1], (2, 1, 1)), (2, 3, 1))
    test = np.broadcast_to(np.reshape([0.9, 0.5], (2, 1, 1)), (2, 3, 1))
    found = made_up(result, loss, test, initial=initial)
    assert found.rows()[1].effect == "cannot tell"
    assert cells(found, found.rows()[1])[7] == "1 run cannot tell: −40.0"
    assert found.answer.endswith("train; one run of each cannot tell them apart.")


def test_partly_equal_runs_are_paired_once_each(result):
    keys = KEYS[np.array([0, 0, 2])]
    he, few = drawn("he_normal()"), drawn("he_normal()", keys)
    loss = np.broadcast_to(np.reshape([0.01, 0.1], (2, 1, 1)), (2, 3, 1))
    test = np.array([[0.9, 0.8, 0.95], [0.5, 0.5, 0.7]])[..., None]
    found = made_up(result, loss, test, initial={"w": np.concatenate([he, few])})
    row, scores = found.rows()[1], np.float32([0.5, 0.7])
    assert row.distinct_runs == 2
    assert (row.test_mean, row.test_low) == (interval(scores)[0], 0)
    expected = paired(scores, np.float32([0.9, 0.95]), higher_is_better=True)
    assert row.against_best == expected.difference and row.effect == "cannot tell"
    assert "(2 distinct runs)" in cells(found, row)[6]


@pytest.mark.slow
def test_distinct_runs_of_a_real_comparison_with_dropout():
    """Seeds differ by what is dropped, but where nothing is left to drop."""
    y = np.arange(40) % 2
    x = np.random.default_rng(0).normal(size=(40, 3)) + y[:, None]
    given = {"depth": 2, "width": 4, "seeds": 2, "steps": 2, "batch_size": 8}
    found = lab.compare(
        ["zeros()", "identity()"],
        data=make_task("two", x, y),
        learning_rates=(0.01,),
        dropout=0.3,
        **given,
    )
    assert [row.distinct_runs for row in found.rows()] == [1, 2]


def test_more_than_one_run_on_both_sides_is_refused():
    with pytest.raises(
        ValueError, match=r"against_one\(.*must be of one run. For more"
    ):
        statistics.against_one([1.0, 2.0], [1.0, 2.0], higher_is_better=True)
