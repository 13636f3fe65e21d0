"""Effects that the field knows, which the lab must show.

Each is a paired comparison on equal seeds; the effect counts where the bootstrap
interval of 95 % (`jaxinit.lab._result.statistics.paired`) excludes 0. Seeds are fixed.
"""

import numpy as np
import pytest

from jaxinit import lab
from jaxinit.lab._result.statistics import paired

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_compiler")]


def losses(initializers, **settings):
    """Returns final training losses. # [initializers, seeds]"""
    result = lab.compare(initializers, **settings)
    return result.scores.loss[:, :, 0]


def better(ours, theirs):
    """Returns whether losses are lower, seed by seed, and the interval says so."""
    return paired(ours, theirs, higher_is_better=False).verdict == "better"


@pytest.mark.usefixtures("full_compiler")
def test_zero_last_layers_let_a_residual_network_without_norms_train_deeper():
    """At 12 blocks; at 2, the usual weights do better than at 12."""
    given = {"model": "resnet", "width": 8, "seeds": 6, "steps": 100}
    given |= {"batch_size": 16, "learning_rates": [3e-3]}
    he, fixup = losses(["he_normal()", "recipes.fixup(12)"], depth=12, **given)
    (shallow,) = losses(["he_normal()"], depth=2, **given)
    assert better(fixup, he)
    assert better(shallow, he)


def test_recurrent_weights_that_keep_the_state_are_better_at_long_delay():
    """At 3e-4, where training has to use what the weights give it at first.

    A rate ten times as high helps Gaussian weights past the identity; orthogonal ones
    stay ahead.
    """
    given = {"model": "rnn", "task": "memory", "width": 32, "seeds": 6, "steps": 250}
    given |= {"batch_size": 32, "learning_rates": [3e-4]}
    gaussian, identity, orthogonal = losses(
        [
            "normal(0.177)",  # 1 / sqrt(width): the spectral radius is about 1
            "**/h/kernel: identity(); normal(0.177)",
            "**/h/kernel: orthogonal(); normal(0.177)",
        ],
        **given,
    )
    assert better(identity, gaussian)
    assert better(orthogonal, gaussian)


def test_the_bias_of_the_forget_gate_helps_an_lstm_remember():
    given = {"model": "lstm", "task": "memory", "width": 32, "seeds": 5, "steps": 150}
    given |= {"batch_size": 32, "learning_rates": [3e-3]}
    without, with_bias = losses(
        ["lecun_normal()", "**/hf/bias: 1.0; lecun_normal()"], **given
    )
    assert better(with_bias, without)


def test_norms_make_the_initializer_matter_less():
    """By the spread of test accuracy over initializers, on equal seeds."""
    scales = [f"normal({scale})" for scale in (0.05, 0.1, 0.25, 0.5)]
    given = {"depth": 6, "width": 32, "seeds": 6, "steps": 100, "batch_size": 32}
    given |= {"learning_rates": [3e-2], "optimizer": "momentum"}
    spreads = [
        lab.compare(scales, norm=norm, **given).scores.test[:, :, 0].std(axis=0)
        for norm in ("layer", "none")
    ]
    assert np.isfinite(spreads).all()
    assert better(*spreads)
