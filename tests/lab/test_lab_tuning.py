"""How the lab trains: optimizers by spec, schedules, clipping."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from marks import slow_but

from jaxinit import lab
from jaxinit.cli import main
from jaxinit.lab._tried.optimizers import OPTIMIZERS, SCHEDULES, build_optimizer

pytestmark = pytest.mark.usefixtures("quick_compiler")

PARAMS = {"w": jnp.ones((4, 3)), "b": jnp.zeros(3)}


def steps(build, count=12, rate=0.1, scale=1.0):
    """Takes steps on fixed gradients; returns parameters after each."""
    optimizer, params = build(rate), PARAMS
    state, found, update = optimizer.init(params), [], jax.jit(optimizer.update)
    for i in range(count):
        gradient = jax.tree.map(lambda p, i=i: scale * (p + np.float32(i)), params)
        with jax.numpy_dtype_promotion("standard"):  # optax's own mix dtypes
            change, state = update(gradient, state, params, value=1.0)
        params = optax.apply_updates(params, change)
        found.append(np.asarray(params["w"]))
    return found


def plain(optimizer):
    return lambda rate: optax.with_extra_args_support(optimizer(rate))


def test_specs_are_calls_of_optax():
    spec = "adamw(weight_decay=0.5, b1=0.8)"
    expected = steps(plain(lambda rate: optax.adamw(rate, weight_decay=0.5, b1=0.8)))
    np.testing.assert_allclose(steps(build_optimizer(spec)), expected, rtol=1e-6)
    expected = steps(plain(lambda rate: optax.sgd(rate, momentum=0.5, nesterov=True)))
    found = steps(build_optimizer("sgd(momentum=0.5, nesterov=True)"))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("schedule", "curve"),
    [
        ("cosine", lambda i: 0.5 * (1 + np.cos(np.pi * i / 20))),
        ("steps", lambda i: 1.0 if i < 10 else 0.1 if i < 15 else 0.01),
        (
            "warmup_cosine",
            lambda i: i / 2 if i < 2 else 0.5 * (1 + np.cos(np.pi * (i - 2) / 18)),
        ),
    ],
)
def test_schedules(schedule, curve):
    found = steps(build_optimizer("sgd", schedule, steps=20), count=20)
    params = np.ones((4, 3))
    for i, after in enumerate(found):
        params = params - 0.1 * curve(i) * (params + i)
        np.testing.assert_allclose(after, params, rtol=1e-4)


def test_a_plateau_halves_the_rate():
    found = steps(build_optimizer("sgd", "plateau"), count=60, scale=0.0)
    assert len(found) == 60
    build = build_optimizer("sgd", "plateau")(0.1)
    state, ones = build.init(PARAMS), jax.tree.map(jnp.ones_like, PARAMS)
    sizes, update = [], jax.jit(build.update)
    for _ in range(60):  # the loss never falls
        change, state = update(ones, state, PARAMS, value=1.0)
        sizes.append(float(change["b"][0]))
    assert sizes[0] == pytest.approx(-0.1) and sizes[-1] == pytest.approx(-0.1 / 4)
    assert len(set(np.round(sizes, 7))) > 1


def test_clipping():
    found = steps(build_optimizer("sgd", clip=1.0), count=1)[0]
    gradient = jax.tree.map(np.asarray, PARAMS)
    norm = np.sqrt(sum((g**2).sum() for g in gradient.values()))
    np.testing.assert_allclose(found, 1 - 0.1 / norm, rtol=1e-6)


def test_adam_then_sgd_switches():
    both = steps(build_optimizer("adam_then_sgd(switch=5, factor=2.0)"))
    adam = steps(plain(optax.adam))
    np.testing.assert_allclose(both[:5], adam[:5], rtol=1e-6)
    assert np.abs(both[5] - adam[5]).max() > 1e-3
    at_once = steps(build_optimizer("adam_then_sgd(switch=0, factor=2.0)"))
    sgd = steps(plain(lambda rate: optax.sgd(2 * rate, momentum=0.9)))
    np.testing.assert_allclose(at_once, sgd, rtol=1e-5)


ALL = slow_but(["plateau"], SCHEDULES)


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ALL)
def test_every_schedule_trains_in_the_grid(schedule, capsys):
    words = "compare --task memory --model transformer --depth 1 --width 8 --seeds 1"
    words += f" --steps 4 --lr 1e-3 --init he_normal() --schedule {schedule} --clip 1"
    assert main([*words.split(), "--optimizer", "adam_then_sgd(switch=2)"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "adam_then_sgd(switch=2)" in out and "clipped at 1" in out
    assert schedule == "constant" or f"{schedule} schedule" in out


@pytest.mark.usefixtures("short_runs")
@pytest.mark.slow
def test_a_schedule_changes_the_training(task):
    given = {"depth": 2, "width": 4, "seeds": 2, "steps": 20, "batch_size": 8}
    given |= {"data": task, "learning_rates": [1e-2, 1e-1]}
    one, two = (
        lab.compare(["he_normal()"], schedule=schedule, **given)
        for schedule in ("constant", "cosine")
    )
    assert (one.scores.loss != two.scores.loss).all()
    assert set(OPTIMIZERS) >= {"adam", "adam_then_sgd"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--optimizer", "adan"], "Did you mean 'adam'"),
        (["--optimizer", "adam(b3=1)"], "adam takes b1, b2"),
        (["--optimizer", "adam(weight_deca=1)"], "adam takes"),
        (["--optimizer", "momentum(beta=1)"], "momentum takes no arguments"),
        (["--optimizer", "adam(0.1)"], "must be a name, or a call with literals"),
        (["--optimizer", "adam(b1=open)"], "must be a name, or a call with literals"),
        (["--optimizer", "a b"], "must be a name, or a call with literals"),
        (["--schedule", "cosin"], "Did you mean 'cosine'"),
        (["--clip", "-1"], "clip must be 0 or above"),
    ],
)
def test_messages(words, message, capsys):
    assert main(["compare", *words]) == 2
    err = capsys.readouterr().err
    assert err.startswith("jaxinit: compare(") and message in err
