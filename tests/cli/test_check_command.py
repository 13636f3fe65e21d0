"""``jaxinit check``: wrong values of its options, one line each."""

import numpy as np
import pytest
from commands import refusal, write_models

from jaxinit.cli import main

MODELS = """
import flax.linen as nn
import jax

class Net(nn.Module):
    kernel_init: object = nn.initializers.zeros
    train: bool = True

    @nn.compact
    def __call__(self, x, train=True, flat=False):
        y = nn.Dense(3, kernel_init=self.kernel_init)(x)
        return y[:, 0] if flat else y

class Pooled(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(x.mean(-1)[..., :0]) + 1 // x.shape[0] / (x.ndim - 3)

def function(key):
    return {"w": jax.random.normal(key, (3, 3))}
"""


@pytest.fixture
def models(tmp_path, monkeypatch):
    return write_models(MODELS, tmp_path, monkeypatch)


WRONG = [
    (["--set", "kernel_init=he_normal"], "is text, which the model calls."),
    (
        ["--set", "kernel_init=he_normal"],
        "For an initializer write such as kernel_init=he_normal().",
    ),
    (["--set", "kernel_init=he_norml"], "Did you mean 'he_normal' or"),
    (["--call", "train=false"], "write train=False for the value"),
    (["--call", "train=TRUE"], "write train=True for the value"),
    (["--set", "train=none"], "write train=None for the value"),
    (["--set", "train=tRuE"], "write train=True for the value"),
    *(
        (["--input", shape], "a shape is sizes of 1 or above with x between them")
        for shape in ("12X12", "12,,12", "(12, 12)", "12x", "x12", "12xx1", "3x-4")
    ),
    *(
        (["--input", shape], "a shape is sizes of 1 or above with x between them")
        for shape in ("1.5x2", "0x3", "3x0", " ", "²", "1e3", "None")
    ),
    (["--input", "9" * 5000], "an input has at most 268435456 entries"),
    (["--input", "9" * 20], "an input has at most 268435456 entries"),
    (["--input", "2x3:int32"], "say how many there are, as --vocabulary 1000"),
    (["--input", "2x3:text"], "dtype must be a number type"),
    (["--input", "2x3:int32:8"], "dtype must be a number type"),
    (["--seeds", "0"], "check(seeds=0): seeds must be 1 or above"),
    (["--limit", "1"], "limit must be above 1"),
    (["--limit", "nan"], "limit must be finite"),
    (["--limit", "x"], "argument --limit: invalid float value: 'x'"),
    (["--steps", "-1"], "check(steps=-1): steps must be 0 or above"),
    (["--lr", "0.1"], "--lr 0.1: it goes with --steps, such as 5."),
    (["--optimizer", "sgd"], "--optimizer sgd: it goes with --steps"),
    (["--steps", "2", "--optimizer", "adm"], "Did you mean 'adam' or 'adamw'?"),
    (["--steps", "2", "--lr", "nan"], "a learning rate is a finite number above 0"),
    (["--steps", "2", "--call", "flat=True"], "must return one array of logits"),
    (["--seed", "1.5"], "argument --seed: invalid int value"),
    (["--call", "nothing=3"], "unexpected keyword argument 'nothing'. It was called"),
]


@pytest.mark.parametrize(("words", "said"), WRONG, ids=lambda x: str(x)[:40])
def test_wrong_values_are_refused_in_one_line(models, capsys, words, said):
    words = ["check", f"{models}:Net", "--input", "2x3", *words]
    assert said in refusal(words, capsys)


def test_a_model_that_fails_is_told_with_what_it_was_called(models, capsys):
    line = refusal(["check", f"{models}:Pooled", "--input", "12x12x1"], capsys)
    assert "ZeroDivisionError" in line
    assert "called with float32[12, 12, 1]; the first size counts examples" in line


@pytest.mark.slow
def test_steps_are_taken_on_random_classes(models, capsys):
    words = ["check", f"{models}:Net", "--input", "8x3", "--seeds", "2", "--steps", "2"]
    words += ["--optimizer", "sgd", "--lr", "0.1", "--set", "kernel_init=he_normal()"]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "first update" in printed and "in 2 steps, guessing has 1.1;" in printed


def test_an_axis_and_small_dtypes_are_passed_on(models, capsys, monkeypatch):
    calls = []

    def fake(model, x, **given):
        calls.append((x, given))
        raise ValueError("check(seeds=0): so")

    monkeypatch.setattr("jaxinit.signal.check", fake)
    words = ["--input", "2x3:float8_e4m3fn", "--axis", "batch"]
    refusal(["check", f"{models}:Net", *words], capsys)
    refusal(["check", f"{models}:function", "--input", "2x3"], capsys)
    (((x,), given), (_, other)) = calls
    assert given["axis_name"] == ("batch",) and "axis_name" not in other
    assert x.dtype == "float8_e4m3fn" and np.isfinite(np.asarray(x, float)).all()
