"""What the parameters of the models of `unusual` do."""

import functools

import haiku as hk
import unusual as u
from architecture import Architecture, data, ids, make

X = (data(2, 8),)
TOKENS = (data(2, 5, 12),)
NORMS = {"*Norm_*/scale": "gain", "*Norm_*/bias": "offset", "*/bias": "bias"}
FEED = {
    "*/up/kernel": ("hidden", (12, 48)),
    "*/down/kernel": ("residual", (48, 12)),
}
SIZES = {f"up{i}": (8, 16) for i in "01"} | {f"down{i}": (16, 8) for i in "01"}
BLOCKS = make(first=(8, 8), last=(8, 3), scale0=(8,), scale1=(8,), **SIZES)
ENDS = {"first": ("input", (8, 8)), "last": ("readout", (8, 3))}

UNUSUAL = {
    "a stream of raw inputs": Architecture(
        u.RawStream(),
        TOKENS,
        {"*/feed_0/up/kernel": ("input", (12, 48)), **FEED, "*/bias": "bias"},
        branches=2,
    ),
    "a learned query": Architecture(
        u.Probe(),
        TOKENS,
        {
            "*/first/kernel": ("input", (12, 12)),
            "probe": "table",
            "*/query/kernel": ("query", (12, 12)),
            "*/key/kernel": ("key", (12, 12)),
            "*/value/kernel": ("value", (12, 12)),
            "*/out/kernel": ("hidden", (12, 12)),
            **FEED,
            "*/head/kernel": ("readout", (12, 3)),
            **NORMS,
        },
        branches=1,
    ),
    "learned latents": Architecture(
        u.Perceiver(),
        (data(2, 5, 8),),
        {
            "latents": "table",
            "*/query/kernel": ("query", (12, 12)),
            "*/key/kernel": ("key", (8, 12)),
            "*/value/kernel": ("value", (8, 12)),
            "*/out/kernel": ("residual", (12, 12)),
            **FEED,
            "*/head/kernel": ("readout", (12, 3)),
            **NORMS,
        },
        branches=4,
    ),
    "attention by cosines": Architecture(
        u.Swin(),
        (data(2, 5, 8),),
        {
            "*/first/kernel": ("input", (8, 12)),
            "*/qkv/kernel": ("query+key+value", (12, 12)),
            "heat": "gain",
            "*/o/kernel": ("residual", (12, 12)),
            "*/head/kernel": ("readout", (12, 3)),
            **NORMS,
        },
        branches=1,
    ),
    "ConvNeXt": Architecture(
        u.ConvNext(),
        (data(2, 32, 32, 3),),
        {
            "*/stem/kernel": ("input", (48, 192)),
            "*/deep_?/kernel": ("hidden", (49, 49)),
            **FEED,
            "gamma_?": "gain",
            "*/narrow/kernel": ("hidden", (48, 96)),
            "*/head/kernel": ("readout", (24, 5)),
            **NORMS,
        },
        branches=2,
    ),
    "EfficientNet": Architecture(
        u.Inverted(),
        (data(2, 8, 8, 3),),
        {
            "*/stem/kernel": ("input", (27, 72)),
            "*/expand_?/kernel": ("hidden", (8, 32)),
            "*/deep_?/kernel": ("hidden", (9, 9)),
            "*/squeeze_?/kernel": ("hidden", (32, 4)),
            "*/excite_?/kernel": ("hidden", (4, 32)),
            "*/project_?/kernel": ("residual", (32, 8)),
            "*/head/kernel": ("readout", (8, 5)),
            **NORMS,
        },
        branches=2,
    ),
    # The book is compared with codes too, which is no product.
    "vector quantization": Architecture(
        (
            make(
                encode=(8, 16),
                code=(16, 4),
                book=(9, 4),
                decode=(4, 16),
                pixels=(16, 8),
            ),
            u.call_quantized,
        ),
        X,
        {
            "encode": ("input", (8, 16)),
            "code": ("hidden", (16, 4)),
            "book": ("embedding", (1, 4)),
            "decode": ("hidden", (4, 16)),
            "pixels": ("readout", (16, 8)),
        },
    ),
    # The vector is what the network is applied to; its last kernel makes 128 weights.
    "weights made by a network": Architecture(
        (make(z=(4,), w=(4, 6), b=(6,), make=(6, 128), head=(16, 3)), u.call_hyper),
        X,
        {
            "z": "table",
            "w": ("hidden", (4, 6)),
            "b": "bias",
            "make": ("hidden", (6, 128)),
            "head": ("readout", (16, 3)),
        },
    ),
    "a vector as the last layer": Architecture(
        (make(w=(8, 16), b=(16,), v=(16,)), u.call_vector),
        X,
        {"w": ("input", (8, 16)), "b": "bias", "v": ("readout", (16, 1))},
    ),
    "one example, a bias with an axis of one": Architecture(
        (make(w=(8, 16), b=(1, 16), v=(16,)), u.call_vector),
        (data(1, 8),),
        {"w": ("input", (8, 16)), "b": "bias", "v": ("readout", (16, 1))},
    ),
    "ReZero": Architecture(
        (BLOCKS, functools.partial(u.call_scaled, kind="branch")),
        X,
        ENDS
        | {
            "up?": ("hidden", (8, 16)),
            "down?": ("residual", (16, 8)),
            "scale?": "gain",
        },
        branches=2,
    ),
    # By choice: what is scaled by parameters bypasses nothing, as the skips of state
    # spaces do. No branch is seen.
    "ResScale": Architecture(
        (BLOCKS, functools.partial(u.call_scaled, kind="stream")),
        X,
        ENDS
        | {"up?": ("hidden", (8, 16)), "down?": ("hidden", (16, 8)), "scale?": "gain"},
    ),
    # By choice: a stream behind a gate made of data is no bypass either.
    "highway": Architecture(
        (
            make(
                first=(8, 8),
                last=(8, 3),
                **{f"{name}{i}": (8, 8) for name in ("gate", "main") for i in "01"},
                bias0=(8,),
                bias1=(8,),
            ),
            u.call_highway,
        ),
        X,
        ENDS | {"gate?": ("hidden", (8, 8)), "main?": ("hidden", (8, 8)), "b*": "bias"},
    ),
    # The bonus of the present token is added right behind the product of keys.
    "RWKV": Architecture(
        (
            make(
                stem=(6, 8),
                mr=(8,),
                mk=(8,),
                mv=(8,),
                r=(8, 8),
                k=(8, 8),
                v=(8, 8),
                o=(8, 8),
                decay=(8,),
                bonus=(8,),
                up=(8, 32),
                gate=(8, 8),
                down=(32, 8),
                head=(8, 4),
            ),
            u.call_rwkv,
        ),
        (data(2, 7, 6),),
        {
            "stem": ("input", (6, 8)),
            "m[rkv]": "gain",
            "[rkv]": ("hidden", (8, 8)),
            "o": ("residual", (8, 8)),
            "decay": "state",
            "bonus": "bias",
            "up": ("hidden", (8, 32)),
            "gate": ("hidden", (8, 8)),
            "down": ("residual", (32, 8)),
            "head": ("readout", (8, 4)),
        },
        branches=2,
    ),
    # Axes are lost in a Fourier transform: it is said, and nothing is guessed.
    "a filter in the frequency domain": Architecture(
        (make(stem=(6, 8), filter=(8, 7), o=(8, 8), head=(8, 4)), u.call_long_filter),
        (data(2, 7, 6),),
        {
            "stem": ("input", (6, 8)),
            "filter": "other",
            "o": ("residual", (8, 8)),
            "head": ("readout", (8, 4)),
        },
        branches=1,
    ),
    "a decoder that reads its words": Architecture(
        (make(first=(6, 8), u=(8, 8), table=(10, 8), out=(8, 10)), u.call_decoder),
        (data(2, 6),),
        {
            "first": ("input", (6, 8)),
            "u": ("recurrent", (8, 8)),
            "table": ("embedding", (1, 8)),
            "out": ("readout", (8, 10)),
        },
    ),
    "layers by nnx.scan": Architecture(
        u.StackedNnx,
        X,
        {
            "layers/kernel": ("residual", (8, 8)),
            "out/kernel": ("readout", (8, 3)),
            "*/bias": "bias",
        },
        branches=4,
    ),
    "layers by layer_stack, Haiku": Architecture(
        hk.without_apply_rng(hk.transform(u.call_stacked_haiku)),
        (data(2, 6),),
        {
            "*no_per_layer/linear/w": ("hidden", (8, 16)),
            "*no_per_layer/linear_1/w": ("residual", (16, 8)),
            "linear/w": ("input", (6, 8)),
            "linear_1/w": ("readout", (8, 3)),
            "*/b": "bias",
        },
        branches=3,
    ),
    "features scaled and shifted by a condition": Architecture(
        (
            make(one=(6, 8), two=(8, 8), scale=(4, 8), shift=(4, 8), head=(8, 3)),
            u.call_film,
        ),
        (data(2, 6), data(2, 4)),
        {
            "one": ("input", (6, 8)),
            "two": ("hidden", (8, 8)),
            "scale": ("input", (4, 8)),
            "shift": ("input", (4, 8)),
            "head": ("readout", (8, 3)),
        },
    ),
    "two towers": Architecture(
        (make(a0=(6, 8), a1=(8, 4), b0=(7, 8), b1=(8, 4), heat=()), u.call_towers),
        (data(2, 6), data(2, 7)),
        {
            "a0": ("input", (6, 8)),
            "b0": ("input", (7, 8)),
            "[ab]1": ("readout", (8, 4)),
            "heat": "gain",
        },
    ),
    "transformer, Equinox, with a convolution": Architecture(
        u.EquinoxTransformer,
        (ids(2, 5),),
        {
            "table/weight": ("embedding", (1, 12)),
            "places": "table",
            "*/query_proj/weight": ("query", (12, 12)),
            "*/key_proj/weight": ("key", (12, 12)),
            "*/value_proj/weight": ("value", (12, 12)),
            "*/output_proj/weight": ("residual", (12, 12)),
            "near/weight": ("residual", (36, 36)),
            "feed/layers/0/weight": ("hidden", (12, 48)),
            "feed/layers/1/weight": ("residual", (48, 12)),
            "head/weight": ("readout", (12, 20)),
            "norms/?/weight": "gain",
            "norms/?/bias": "offset",
            "*/bias": "bias",
        },
        branches=3,
    ),
}
