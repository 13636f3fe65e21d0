"""Optimizers whose learning rate, ε and weight decay depend on the parameter.

Each is optax's function of the same name, with factors from the rows of a scale: where
all are 1, as in the base model, it gives the same bits and the same state.
"""

from typing import TYPE_CHECKING, Any, Literal, get_args

from jaxinit import _check as check
from jaxinit.scaling._muon import find_sizes, is_matrix, muon_dimensions, scale_update
from jaxinit.scaling._row import ScaledParameter
from jaxinit.scaling._vary import Rows, import_optax, map_rows, times, vary

if TYPE_CHECKING:
    import optax

Kind = Literal["sgd", "adam", "muon"]
Rate = Any  # a number, traced or not, or a function of the step


def lr(rows: Rows, optimizer: Kind = "adam") -> "optax.GradientTransformation":
    """Multiplies each update by the factor of its parameter on the learning rate.

    To be chained behind what makes the updates (`optax.scale_by_adam`) and before the
    learning rate of all. Weight decay that is added before it is multiplied as well,
    and one that is added behind it is the same for all parameters.

    Args:
      rows: the scale, if it is not called as its method.
      optimizer: whose factors: "sgd"; "adam", for AdamW, Lion, and others whose updates
        do not grow with the gradient; "muon", for updates that are orthonormal and not
        yet scaled by their sizes: what it leaves to Adam has Adam's factors.

    Raises:
      ValueError: if there is no such optimizer.
    """
    call = "Scale.lr"
    try:
        check.choice(get_args(Kind), optimizer=optimizer)
    except check.Unfit as error:
        raise error.at(call) from None
    scale = import_optax(call).scale
    return vary(call, rows, lambda row: _read_rate(row, optimizer), scale)


def sgd(
    rows: Rows,
    learning_rate: Rate,
    momentum: Any = None,
    nesterov: bool = False,
    accumulator_dtype: Any = None,
    *,
    weight_decay: Any = 0.0,
    mask: Any = None,
    independent: bool = False,
) -> "optax.GradientTransformation":
    """As `optax.sgd`, with factors by parameter, and with weight decay.

    A step takes η·lr·g from a weight, with the learning rate η, the row's factor lr for
    SGD, and the gradient g or its momentum. Weight decay λ takes η·s·λ·w, where s is
    what AdamW applies under the same scale: its own factors lr and decay, multiplied.
    It is added to the gradient, so momentum averages it, as in torch.

    Args:
      rows: the scale, if it is not called as its method.
      learning_rate: a number or a schedule.
      momentum: the decay of the momentum; None for none.
      nesterov: whether it is Nesterov's.
      accumulator_dtype: the type of the momentum.
      weight_decay: λ, a number or a schedule.
      mask: which parameters decay, as `optax.add_decayed_weights` takes it.
      independent: whether s is 1 for all parameters.
    """
    call = "Scale.sgd"
    optax = import_optax(call)
    parts = [
        optax.trace(momentum, nesterov, accumulator_dtype)
        if momentum is not None
        else optax.identity(),
        _scale(call, rows, "sgd", learning_rate),
    ]
    if not (isinstance(weight_decay, (int, float)) and weight_decay == 0):
        parts.insert(0, _decay(call, rows, "sgd", weight_decay, mask, independent))
    return optax.chain(*parts)


def adamw(
    rows: Rows,
    learning_rate: Rate,
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-8,
    eps_root: Any = 0.0,
    mu_dtype: Any = None,
    weight_decay: Any = 1e-4,
    mask: Any = None,
    *,
    nesterov: bool = False,
    independent: bool = False,
) -> "optax.GradientTransformation":
    """As `optax.adamw`, with factors by parameter on learning rate, ε and decay.

    With the row's factors lr, eps and decay, a step changes a weight w by
    -η·lr·(m̂ / (v̂^½ + eps·ε) + decay·λ·w). So decay is multiplied by the learning rate
    and by its factor: it takes η·lr·decay·λ·w, which is η·λ·w where decay is 1 / lr.

    Args:
      rows: the scale, if it is not called as its method.
      learning_rate: η, a number or a schedule.
      b1: the decay of the mean of gradients.
      b2: the decay of the mean of their squares.
      eps: ε.
      eps_root: what is added within the root; it has no factor.
      mu_dtype: the type of the mean of gradients.
      weight_decay: λ, a number or a schedule.
      mask: which parameters decay, as `optax.adamw` takes it.
      nesterov: whether the momentum is Nesterov's.
      independent: whether decay takes η·λ·w from every weight, whatever its factors.
        Decay that does not depend on η either is ``weight_decay=`` λ / η.
    """
    call = "Scale.adamw"
    optax = import_optax(call)

    def build(factor: float) -> Any:
        more = {"eps_root": eps_root, "mu_dtype": mu_dtype, "nesterov": nesterov}
        return optax.scale_by_adam(b1, b2, times(factor, eps), **more)

    return optax.chain(
        vary(call, rows, lambda row: float(row.eps), build, held=("mu", "nu")),
        _decay(call, rows, "adam", weight_decay, mask, independent),
        _scale(call, rows, "adam", learning_rate),
    )


def lion(
    rows: Rows,
    learning_rate: Rate,
    b1: Any = 0.9,
    b2: Any = 0.99,
    mu_dtype: Any = None,
    weight_decay: Any = 1e-3,
    mask: Any = None,
    *,
    independent: bool = False,
) -> "optax.GradientTransformation":
    """As `optax.lion`, with Adam's factors on learning rate and decay.

    With the row's factors lr and decay, a step changes a weight w by
    -η·lr·(sign + decay·λ·w), where sign is that of Lion's momentum.

    Args:
      rows: the scale, if it is not called as its method.
      learning_rate: η, a number or a schedule.
      b1: how much of the momentum is in the sign.
      b2: the decay of the momentum.
      mu_dtype: the type of the momentum.
      weight_decay: λ, a number or a schedule.
      mask: which parameters decay, as `optax.lion` takes it.
      independent: whether decay takes η·λ·w from every weight, whatever its factors.
    """
    call = "Scale.lion"
    optax = import_optax(call)
    return optax.chain(
        optax.scale_by_lion(b1, b2, mu_dtype),
        _decay(call, rows, "adam", weight_decay, mask, independent),
        _scale(call, rows, "adam", learning_rate),
    )


def muon(
    rows: Rows,
    learning_rate: Rate,
    ns_coeffs: Any = (3.4445, -4.7750, 2.0315),
    ns_steps: Any = 5,
    beta: Any = 0.95,
    eps: Any = 1e-8,
    weight_decay: Any = 0.0,
    weight_decay_mask: Any = None,
    mu_dtype: Any = None,
    *,
    nesterov: bool = True,
    adaptive: bool = False,
    preconditioning: str = "frobenius",
    adam_b1: Any = 0.9,
    adam_b2: Any = 0.999,
    adam_eps_root: Any = 0.0,
    adam_weight_decay: Any = 0.0,
    adam_learning_rate: Rate = None,
    consistent_rms: Any = None,
    independent: bool = False,
) -> "optax.GradientTransformation":
    """As `optax.contrib.muon`, with dimension numbers from the program, and factors.

    Muon updates the kernels that see data or other layers; AdamW updates embeddings,
    readouts, routers, vectors and kernels in groups, with the factors that it has in
    `adamw`. A kernel is a matrix from all its inputs to all its outputs, and stacked
    layers and experts are one matrix each: see `muon_dimensions`. A joint kernel of
    queries, keys and values is one matrix, unless they have an axis of their own.

    A step changes a kernel by -η·(lr·s·O + c·λ·w). O is the momentum, made orthonormal.
    The row's factor lr for Muon is the growth of the update's spectral norm from the
    base to the target: (growth of outputs / growth of inputs)^½ under muP, whatever
    optax's own factor does. Therefore s is that factor at the sizes of the *base*'s
    kernel, which is what the base was tuned with: max(1, outputs / inputs)^½, or
    consistent_rms·max(inputs, outputs)^½. At the target's own sizes the second would
    grow with the width, and the first would count the growth twice where outputs alone
    grow. c is what AdamW applies: its factors lr and decay, multiplied.

    Args:
      rows: the scale, if it is not called as its method.
      learning_rate: η, a number or a schedule.
      ns_coeffs: of the Newton-Schulz iteration: three numbers, or three for each step.
      ns_steps: how many steps it has.
      beta: the decay of the momentum.
      eps: what is added to norms, and AdamW's ε; AdamW's has the row's factor.
      weight_decay: λ of what Muon updates, a number or a schedule.
      weight_decay_mask: which of these decay, as `optax.contrib.muon` takes it.
      mu_dtype: the type of momenta.
      nesterov: whether momenta are Nesterov's.
      adaptive: whether the update grows with its own dual norm.
      preconditioning: what comes before the iteration, as `optax.contrib.muon` has it.
      adam_b1: AdamW's decay of the mean of gradients.
      adam_b2: AdamW's decay of the mean of their squares.
      adam_eps_root: what AdamW adds within the root.
      adam_weight_decay: λ of what AdamW updates.
      adam_learning_rate: AdamW's η; None for Muon's.
      consistent_rms: None, or the root mean square that all updates of the base have.
      independent: whether decay takes η·λ·w from every weight, whatever its factors.
    """
    call = "Scale.muon"
    if adaptive:
        raise ValueError(
            f"{call}(adaptive=True): its updates grow with the gradient, for which "
            "there are no factors. Leave it False."
        )
    optax = import_optax(call)

    def read(row: ScaledParameter) -> tuple[float, int, int]:
        return _read_rate(row, "muon"), *find_sizes(row)

    def build(setting: tuple[float, int, int]) -> Any:
        factor, inputs, outputs = setting
        own = scale_update(inputs, outputs, consistent_rms)
        return optax.scale(times(factor, own))

    def label(params: Any) -> Any:
        names = {True: "muon", False: "adam"}
        return map_rows(call, rows, params, lambda row: names[is_matrix(row)], "adam")

    by_muon = optax.chain(
        optax.contrib.scale_by_muon(
            *(ns_coeffs, ns_steps, beta, eps, mu_dtype),
            nesterov=nesterov,
            adaptive=adaptive,
            preconditioning=preconditioning,
            weight_dimension_numbers=muon_dimensions(rows),
        ),
        vary(call, rows, read, build, usual=(1.0, 1, 1)),
        _decay(call, rows, None, weight_decay, weight_decay_mask, independent),
        optax.scale_by_learning_rate(learning_rate),
    )
    by_adam = adamw(
        rows,
        learning_rate if adam_learning_rate is None else adam_learning_rate,
        *(adam_b1, adam_b2, eps, adam_eps_root, mu_dtype, adam_weight_decay),
        nesterov=nesterov,
        independent=independent,
    )
    return optax.partition({"muon": by_muon, "adam": by_adam}, label)


def _scale(call: str, rows: Rows, optimizer: Kind, learning_rate: Rate) -> Any:
    """Multiplies by the learning rate, and by each parameter's factor on it."""
    optax = import_optax(call)

    def build(factor: float) -> Any:
        return optax.scale_by_learning_rate(times(factor, learning_rate))

    return vary(call, rows, lambda row: _read_rate(row, optimizer), build)


def _decay(
    call: str,
    rows: Rows,
    optimizer: Kind | None,
    weight_decay: Any,
    mask: Any,
    independent: bool,
) -> Any:
    """Adds weight decay to updates that the optimizer's factors then multiply."""
    optax = import_optax(call)
    try:
        check.boolean(independent=independent)
    except check.Unfit as error:
        raise error.at(call) from None

    def read(row: ScaledParameter) -> float:
        applied = 1.0 if independent else _read_rate(row, "adam") * row.decay
        behind = 1.0 if optimizer is None else _read_rate(row, optimizer)
        return applied / behind if behind else 0.0

    def build(factor: float) -> Any:
        return optax.add_decayed_weights(times(factor, weight_decay))

    each = vary(call, rows, read, build)
    return each if mask is None else optax.masked(each, mask)


def _read_rate(row: ScaledParameter, optimizer: Kind) -> float:
    """Returns the factor on the learning rate; 1 if the row has none."""
    taken = "adam" if optimizer == "muon" and not is_matrix(row) else optimizer
    return float(row.lr.get(taken, 1.0))
