"""The list of JAX's primitives, by what is known about them.

Nothing is known about a primitive whose name is in no set.
"""

# Primitives that run one program, once, on all their operands: plain calls,
CALLS = frozenset({"jit", "pjit", "closed_call", "core_call"})
# calls of functions that define their own derivatives,
CUSTOM = frozenset({"custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"})
# and calls of functions that the backward pass computes again.
REMAT = frozenset({"checkpoint", "remat", "remat2"})
WRAPPERS = CALLS | CUSTOM | REMAT
# The loop whose body is read: it runs a known number of times.
SCAN = "scan"

# These draw random numbers, or derive keys.
BITS = "random_bits"
RANDOM = frozenset(
    {BITS, "random_fold_in", "random_seed", "random_split", "threefry2x32"}
)

# The words of a legacy key become a typed one.
WRAP = "random_wrap"

DOT, CONVOLUTION = "dot_general", "conv_general_dilated"
PRODUCTS = frozenset({DOT, CONVOLUTION})
# Products of rows with the matrix of their group, as in a mixture of experts.
RAGGED = frozenset({"ragged_dot", "ragged_dot_general"})

# A name for a value, which `jax.ad_checkpoint.checkpoint_name` gives it.
NAME = "name"

# An entry of the result is a function of the same entries of the operands.
ELEMENTWISE = frozenset(
    """abs acos acosh add and asin asinh atan atan2 atanh cbrt ceil clamp
    convert_element_type copy cos cosh digamma div eq erf erf_inv erfc exp exp2 expm1
    floor ge gt integer_pow is_finite le lgamma log log1p logistic lt max min mul ne
    neg nextafter not or pow rem round rsqrt select_n sign sin sinh sqrt square
    stop_gradient sub tan tanh xor""".split()
)
_BITWISE = frozenset(
    """bitcast_convert_type shift_left shift_right_arithmetic
    shift_right_logical""".split()
)
_COMPLEX = frozenset({"complex", "conj", "imag", "real"})
# The result has entries of the first operand, and perhaps of others.
_MOVES = frozenset(
    """broadcast_in_dim concatenate dynamic_slice dynamic_update_slice gather pad
    reshape rev slice squeeze transpose""".split()
)
# The result has the entries of the operand, in the same order, perhaps rounded.
SAME = frozenset({"convert_element_type", "copy", "reshape", "squeeze", NAME})

# The result has the values of the operand; only the shape may differ.
RESHAPES = frozenset(
    {"broadcast_in_dim", "copy", "copy_p", "reshape", "squeeze", "stop_gradient"}
)

# Elementwise, and compiled to the same instructions in programs of every shape and by
# every emitter of XLA; "tan" and "exp", for two, are not.
STABLE = frozenset(
    """abs add and bitcast_convert_type clamp convert_element_type div eq erf_inv ge gt
    le log1p lt max min mul ne neg not or select_n shift_left shift_right_arithmetic
    shift_right_logical sqrt sub xor""".split()
)
# These too, if the operands are constants: XLA computes them when it compiles.
STABLE_OF_NUMBERS = STABLE | {"erf", "integer_pow", "nextafter", "pow", "square"}

# An entry of the result is the same however devices share the work: no sums.
DIVISIBLE = RANDOM | ELEMENTWISE | _BITWISE | _COMPLEX | _MOVES
DIVISIBLE |= {
    *("copy_p", "iota", "optimization_barrier", "platform_index", "random_unwrap"),
    *(WRAP, "sharding_constraint"),
}
