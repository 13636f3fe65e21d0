"""Weights without randomness: zeros, ones, any constant."""

from jax.typing import ArrayLike, DTypeLike

from jaxinit import _check as check
from jaxinit._draws import filled
from jaxinit._initializer import Drawn, initializer


@initializer(random=False)
def zeros(dtype: DTypeLike | None = None) -> Drawn:
    """Builds an initializer of zeros.

    Law: w = 0; Var[w] = 0.

    For biases. A layer whose kernel is zero passes no signal and its units stay equal:
    training cannot break this symmetry. Both ``zeros(key, shape)`` and
    ``zeros()(key, shape)`` work; the key is ignored. Any number type will do.

    Args:
      dtype: default dtype of the weights.

    Returns:
      An `Initializer`, or the array when called with key and shape.

    Example:
      >>> bool((zeros(jax.random.key(0), (2, 3)) == zeros()(None, (2, 3))).all())
      True

    References:
      Goodfellow, Bengio, Courville. Deep Learning, section 8.4. 2016.
      https://www.deeplearningbook.org
    """
    return filled(0)


@initializer(random=False)
def ones(dtype: DTypeLike | None = None) -> Drawn:
    """Builds an initializer of ones.

    Law: w = 1; Var[w] = 0.

    For the scales of normalization layers. Called like `zeros`.

    Args:
      dtype: default dtype of the weights.

    Returns:
      An `Initializer`, or the array when called with key and shape.

    Example:
      >>> float(ones(jax.random.key(0), (2, 3)).sum())
      6.0

    References:
      Ioffe, Szegedy. Batch Normalization. 2015. https://arxiv.org/abs/1502.03167
    """
    return filled(1)


@initializer(random=False)
def constant(value: ArrayLike, dtype: DTypeLike | None = None) -> Drawn:
    """Builds an initializer of one value, or of an array that broadcasts to the shape.

    Law: w = value; Var[w] = 0.

    Args:
      value: a number, or an array whose shape broadcasts to that of the weight.
      dtype: default dtype of the weights, any number type; an integer type must hold
        the value exactly.

    Returns:
      An `Initializer`; it ignores the key.

    Raises:
      TypeError: if value is not numeric.
      ValueError: at the call, if value does not broadcast to the shape, or the dtype
        cannot hold it.

    Example:
      >>> constant([1.0, 2.0])(None, (3, 2)).tolist()
      [[1.0, 2.0], [1.0, 2.0], [1.0, 2.0]]

    References:
      Goodfellow, Bengio, Courville. Deep Learning, section 8.4. 2016.
      https://www.deeplearningbook.org
    """
    return filled(value)


@initializer(random=False)
def from_array(array: ArrayLike, dtype: DTypeLike | None = None) -> Drawn:
    """Builds an initializer that returns an array, such as a weight that was loaded.

    Law: w = array; Var[w] = 0.

    Unlike `constant` it broadcasts nothing: the shape must be the array's own.

    Args:
      array: the weight, of any number type. Weights drawn in a dtype of their own are
        converted; an integer type must hold the values exactly.
      dtype: default dtype of the weights; by default that of floats, not the array's.

    Returns:
      An `Initializer`; it ignores the key.

    Raises:
      TypeError: if the array is not numeric.
      ValueError: at the call, if the shape is not the array's, or the dtype cannot hold
        its values.

    Example:
      >>> from_array(np.arange(6).reshape(2, 3))(None, (2, 3)).tolist()
      [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]

    References:
      Yosinski, Clune, Bengio, Lipson. How transferable are features in deep neural
      networks? 2014. https://arxiv.org/abs/1411.1792
    """
    return filled(array, "array", exact=True)


@initializer(random=False)
def layer_scale(
    value: float | None = None,
    dtype: DTypeLike | None = None,
    *,
    layers: int | None = None,
) -> Drawn:
    """Builds an initializer of the small factors on the residual branches of a network.

    Law: w = value; Var[w] = 0.

    A branch that starts near zero leaves a deep network close to the identity. The
    value may follow the number of layers, as the paper found best: 0.1 for up to 18,
    1e-5 for up to 24, 1e-6 for more.

    Args:
      value: the factor; by default that of the paper for ``layers``, or 1e-5.
      dtype: default dtype of the weights.
      layers: the depth of the network, 1 or above, in place of a value.

    Returns:
      An `Initializer`; it ignores the key.

    Raises:
      ValueError: if both value and layers are given, or layers is below 1.

    Example:
      >>> bool(layer_scale(layers=36)(None, ()) < 2e-6)
      True

    References:
      Touvron, Cord, Sablayrolles, Synnaeve, Jégou. Going deeper with Image
      Transformers. 2021. https://arxiv.org/abs/2103.17239
    """
    if layers is None:
        return filled(1e-5 if value is None else check.real(value=value))
    if value is not None:
        raise check.Unfit("give value or layers, not both.", layers=layers)
    depth = check.at_least(1, layers=layers)
    return filled(0.1 if depth <= 18 else 1e-5 if depth <= 24 else 1e-6)
