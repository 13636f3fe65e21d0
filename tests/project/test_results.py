"""All results have one manner: a short repr, a table, HTML, a dictionary, JSON."""

import json

import jax
import jax.numpy as jnp
import optax
import pytest
from reports import chain, report

import jaxinit
from jaxinit._result import plain
from jaxinit.signal.theory import profile

KEY, X = jax.random.key(0), jnp.ones((2, 2))
PARAMS = {f"layer_{i}": {"kernel": jnp.ones((2, 3))} for i in range(40)}
RULES = [("**/kernel", jaxinit.he_normal()), ("**/bias", 0.0)]


def call_all(params, x):
    return [x @ each["kernel"] for each in params.values()]


MODEL = (lambda key: PARAMS["layer_0"]), lambda params, x: x @ params["kernel"]
RESULTS = {
    "Assignments": lambda: jaxinit.preview(PARAMS, RULES, strict=False),
    "CalibrationReport": lambda: jaxinit.calibrate(MODEL, jnp.eye(2), key=KEY)[1],
    "CoordinateReport": lambda: jaxinit.scaling.coordinate_check(
        lambda width: MODEL, (1, 2), jnp.eye(2), key=KEY, optimizer=optax.sgd(0.1)
    ),
    "Description": lambda: jaxinit.describe(PARAMS),
    "Plan": lambda: jaxinit.jit_init(lambda key: PARAMS).plan(KEY),
    "Profile": lambda: profile("relu", 2.0, depth=40, input_correlation=0.5),
    "Recommendation": lambda: jaxinit.recommend("relu"),
    "Scale": lambda: jaxinit.scaling.mup(*2 * [(lambda key: PARAMS, call_all)], X),
    "SignalReport": lambda: report(*chain(40)),
    "TuningReport": lambda: jaxinit.tune(lambda w, x: jnp.sum(w * x), X, X, steps=1)[1],
    "Structure": lambda: jaxinit.structure((lambda key: PARAMS, call_all), X),
}


@pytest.mark.parametrize("name", RESULTS)
def test_results_have_one_manner(name):
    result = RESULTS[name]()
    assert repr(result).startswith(f"{name}(") and repr(result).endswith(")")
    assert "\n" not in repr(result) and len(repr(result)) < 80
    assert str(result) != repr(result)
    assert result._repr_html_().startswith('<div class="jaxinit-report">')
    whole = result.to_html()
    assert whole.startswith("<!doctype html>") and result._repr_html_() in whole
    assert json.loads(result.to_json(indent=1)) == plain(result.to_dict())
    assert (result == result) is True and (result == "another") is False


def test_a_plan_has_a_row_for_each_program():
    """Its numbers are those of the table, whose cells a notebook shows."""

    def init(key):
        return {"a": jaxinit.normal()(key, (3, 4)), "b": {"c": jnp.zeros(5)}}

    plan = jaxinit.jit_init(init).plan(KEY)
    assert [row["parameters"] for row in plan.to_dict()] == [["a"], ["b/c"]]
    law, constant = plan.to_dict()
    assert (law["shapes"], law["bytes"]) == ([[3, 4]], 48)
    assert constant["compile_seconds"] is law["fill_seconds"] is None
    lines = str(plan).splitlines()
    assert lines[0].split()[:2] == ["parameters", "kind"] and len(lines) == 6
    assert lines[-1] == "2 arrays, 68 B, 2 programs"
    for cell in (*lines[2].split(), lines[-1]):
        assert cell in plan._repr_html_()


def test_a_profile_has_a_row_for_each_layer():
    found = profile("relu", 2.0, depth=3)
    assert repr(found) == "Profile(3 layers)"
    assert found.to_dict()["correlation"] is None
    heads, _, *rows = str(found).splitlines()
    assert heads.split() == ["layer", "variance", "second", "moment", "gradient"]
    assert [row.split() for row in rows] == [[str(i), "2", "1", "1"] for i in (1, 2, 3)]
