"""``jaxinit recommend``: advice on the command line."""

import json
import shlex

import pytest
from commands import refusal, write_models

import jaxinit
from jaxinit.cli import main

ROWS = [
    ("relu", {}, "kernel_init"),
    ("identity --layer attention --norm layer", {"layer": "attention"}, "kernel_init"),
    ("tanh --layer recurrent", {"layer": "recurrent"}, "recurrent_kernel_init"),
    ("identity --layer embedding", {"layer": "embedding"}, "embedding_init"),
    ("relu --residual --depth 12", {"residual": True, "depth": 12}, "kernel_init"),
]


@pytest.mark.parametrize(("words", "given", "argument"), ROWS)
def test_advice(words, given, argument, capsys):
    advised = jaxinit.recommend(words.split()[0], **given)
    assert main(["recommend", *words.split()]) == 0
    out = capsys.readouterr().out
    spec, *paragraphs = out.splitlines()
    assert jaxinit.parse(spec) == advised.initializer
    assert paragraphs[0].split(None, 2)[-1] == f"{argument}=jaxinit.{spec}"
    words = " ".join(out.split())
    assert advised.reference in words and advised.reason[:20] in words
    assert max(map(len, paragraphs[2:])) <= 80


@pytest.mark.parametrize(
    "spec", ["relu", "relu --layer conv", "relu --layer depthwise"]
)
def test_what_is_to_be_pasted_runs(spec, capsys):
    assert main(["recommend", *spec.split()]) == 0
    (line,) = [x for x in capsys.readouterr().out.splitlines() if "jaxinit show" in x]
    assert main(shlex.split(line)[3:]) == 0
    assert "standard deviation by law" in capsys.readouterr().out


def test_json_is_that_of_the_recommendation(capsys):
    assert main(["recommend", "gelu", "--norm", "layer", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == jaxinit.recommend("gelu", norm="layer").to_dict()


def test_a_function_of_ones_own(tmp_path, monkeypatch, capsys):
    text = "import jax\n\ndef half(x):\n    return 0.5 * jax.nn.relu(x)\n"
    name = write_models(text, tmp_path, monkeypatch)
    assert main(["recommend", f"{name}:half", "--json"]) == 0
    init = jaxinit.parse(json.loads(capsys.readouterr().out)["initializer"])
    assert init.moments((64, 64)).variance * 64 == pytest.approx(8)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("gleu", "Did you mean 'gelu'?"),
        ("math:gelu", "math has no gelu"),
        ("math:sin", "the activation fails for an array of numbers (TypeError"),
        ("math:prod", "must work on each entry alone and keep the shape"),
        ("math:pi", "must be a name, a (name, parameter) pair or a function"),
        ("relu --layer lstm", "layer must be one of"),
        ("relu --norm layers", "Did you mean 'layer'?"),
        ("relu --depth 3", "it counts branches: add --residual."),
        ("relu --residual --depth 0", "depth must be 1 or above"),
    ],
)
def test_wrong_words(words, said, capsys):
    assert said in refusal(["recommend", *words.split()], capsys)
