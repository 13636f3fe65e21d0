"""`check` on models by other people."""

import jax
import numpy as np
import pytest
from other_models import NAMES, equinox_mlp, haiku_transformer, hugging_face

import jaxinit

pytestmark = pytest.mark.usefixtures("quick_compiler", "standard_promotion")
KEY = jax.random.key(0)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*NAMES, "haiku", "equinox"])
def test_every_model_gets_a_verdict(name):
    """What is stock is healthy or has a finding whose layers are the model's own."""
    own = {"haiku": haiku_transformer, "equinox": equinox_mlp}
    model, inputs = own[name]() if name in own else hugging_face()[name]
    if name == "equinox":
        inputs = (np.eye(8, dtype=np.float32),)
        model = (model, lambda mlp, x: jax.vmap(mlp)(x))
    report = jaxinit.check(model, inputs, key=KEY, seeds=2, jacobian=0)
    assert len(report.layers) >= (4 if name == "equinox" else 8)
    assert all(np.isfinite(layer.mean("rms")) for layer in report.layers)
    paths = {layer.path for layer in report.layers}
    assert all(paths.issuperset(finding.layers) for finding in report.findings)
