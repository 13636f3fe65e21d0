"""Every argument of `compare` with wrong values: one line in the house's form."""

import dataclasses
import inspect

import numpy as np
import pytest
from marks import slow_but

from jaxinit import lab
from jaxinit.lab._tried.settings import OPTIONS, Given

NAN, INF = float("nan"), float("inf")
HUGE = 10**30
COUNT = ["3", 1.5, None, [3], True, NAN, INF, -1, -HUGE, HUGE, "", 1j, np.ones(2)]
NUMBER = ["1", None, [0.1], True, NAN, INF, -INF, -1e-3, 10**400, "", 1j, np.ones(2)]
WORD = [5, None, "", "nonsense", b"adam", ["adam"], 1.5, NAN, {}, np.ones(2), "a\nb"]
CALL = [*WORD, "adam(", "adam(1)", "adam(rate=1)", "__import__('os')", "(" * 999]
PATH = [5, 1.5, True, b"x", ["x"], {}, NAN, "", np.ones(2)]
WRONG = {
    "initializers": [None, 5, "he_normal()", [], {}, [5], [None], [""], ["he_norml()"]],
    "data": [*PATH, "nowhere.npz", "nowhere.txt", "a\0b", "x" * 5000, "/"],
    "activation": WORD,
    "depth": [value for value in COUNT if value is not None] + [0, 1],
    "width": [*COUNT, 0],
    "norm": WORD,
    "seeds": [*COUNT, 0],
    "steps": [*COUNT, 0, 2**31],
    "learning_rates": [
        *([value] for value in NUMBER),
        *(0.1, "0.1", None, {0.1: 1}, [], [0.0], [0.1, 0.1], [[0.1], [0.1, 0.2]]),
        *([1e-60], [1e60], iter([0.1]), np.ones((2, 2)), np.float32(0.1)),
    ],
    "optimizer": [
        *CALL,
        *("adam(b1='a')", "adam(b1=1e999)", "adamw(weight_decay=[1])", "lion(b1=())"),
    ],
    "batch_size": [*COUNT, 0, 31],
    "target_loss": [value for value in NUMBER if value is not None],
    "task": [*(value for value in WORD if value is not None), "digit"],
    "model": [*WORD, ":", "a:", "json:nothing", "json:__name__", "no_such:Model"],
    "devices": [*COUNT, 0, 9],
    "schedule": WORD,
    "clip": NUMBER,
    "loss": [
        *(value for value in CALL if value is not None),
        *("squared", "focal(gamma=-1)", "focal(gamma=1e999)", "focal(alpha=1)"),
    ],
    "dropout": [*NUMBER, 1, 1.5],
    "early_stopping": COUNT,
    "device": [*(value for value in WORD if value is not None), "tpu"],
    "dtype": [*WORD, "int32", "float64", "complex64", np.float32],
    "chunk": [value for value in COUNT if value is not None] + [0],
    "progress": [5, "no", [], NAN],
    "out": PATH,
    "resume": [1, 0, "yes", None, NAN, True],  # True: without a directory
    "overwrite": [1, 0, "yes", None, NAN, True],
    "save_every": [value for value in COUNT if value is not None] + [0, 1],
    "log": [5, "tensorboard", ("tensorboard",), ("pictures", "x"), ("tensorboard", 5)],
}


LONG = {"resume", "overwrite", "save_every", "log", "out"}


@pytest.mark.parametrize("name", slow_but([x for x in WRONG if x not in LONG], WRONG))
def test_wrong_values_are_answered_in_one_line(task, name):
    for value in WRONG[name]:
        given = {"initializers": ["zeros()"], "batch_size": 8, "learning_rates": [0.1]}
        given |= {"data": None if name == "task" else task} | {name: value}
        try:
            lab.compare(given.pop("initializers"), **given)
        except (ValueError, TypeError) as error:
            said = str(error)
        else:
            raise AssertionError(f"{name}={value!r} was taken")
        assert "\n" not in said and len(said) < 600, value
        assert said.startswith((f"compare({name}", "parse(")), (value, said)
        assert said.endswith((".", "?")) or ":" in said, said


def test_every_argument_is_tried():
    assert set(WRONG) == set(inspect.signature(lab.compare).parameters)


def test_every_setting_is_known_by_its_name_and_no_other():
    fields = [field.name for field in dataclasses.fields(lab.Settings)]
    assert list(OPTIONS) == fields == ["initializers", *Given.__annotations__]
    signature = inspect.signature(lab.compare).parameters
    for field in dataclasses.fields(lab.Settings):
        assert f"  {field.name}: {OPTIONS[field.name].help[:9]}" in lab.Settings.__doc__
        if field.name != "initializers":
            fitted = OPTIONS[field.name].fitted
            assert signature[field.name].default == (None if fitted else field.default)
    said = r"^compare\(sedes=3\): there is no such setting. Did you mean 'seeds'"
    with pytest.raises(TypeError, match=said):
        lab.compare(["zeros()"], sedes=3)


@pytest.mark.parametrize(
    ("given", "rule"),
    [
        (
            {"width": 2**20},
            r"compare\(width=1048576\): the weights of 3 cells take .* Gi",
        ),
        ({"seeds": 2**20, "width": 512}, r"compare\(seeds=1048576\): the weights of 3"),
        ({"steps": 2**27}, "steps times batch_size must be 268435456 rows or below"),
    ],
)
def test_what_no_machine_holds_is_refused(task, given, rule):
    options = {"data": task, "batch_size": 8, "seeds": 1} | given
    with pytest.raises(ValueError, match=rule):
        lab.compare(["zeros()"], **options)
