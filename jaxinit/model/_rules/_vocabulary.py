"""The table of names: what frameworks and models call their parameters and modules."""

import re
from typing import Literal, NamedTuple

Kind = Literal[
    "kernel", "embedding", "position", "token", "gain", "bias", "slope", "unknown"
]
Context = Literal["attention", "mlp", ""]

# Parameters.
KERNEL = re.compile(
    r"kernel|w|weight|w_[ih]|weight_[ih]h(_l\d+)?|in_proj_weight|[qkv]_proj_weight"
)
BIAS = re.compile(r"bias|b|offset|beta|bias_[ih]h(_l\d+)?|bias_n|in_proj_bias")
POSITION = re.compile(r"pos.*|wpe|.*pos_?emb.*")
TOKEN = re.compile(r"cls.*|(class|dist|reg|register|mask)_(token|embedding)s?")
LAYER_SCALE = re.compile(r"ls_?\d*|.*layer_?scale_?\d*", re.IGNORECASE)
TABLE = re.compile(r"emb|^wte$|^wpe$|^shared$|^tok|^rel.*bias$", re.IGNORECASE)

# Modules by the names that say what they are.
NAMES = {
    "query": r"query|q|q_proj|query_proj|wq|to_q|q_lin",
    "key": r"key|k|k_proj|key_proj|wk|to_k|k_lin",
    "value": r"value|v|v_proj|value_proj|wv|to_v|v_lin",
    "joint": r"qkv|qkv_proj|c_attn|in_proj|to_qkv|query_key_value|Wqkv",
    "attention out": r"o_proj|output_proj|attn_out|attention_out|to_out|attn_proj",
    "mlp in": r"fc1|up|up_proj|gate|gate_proj|gate_up_proj|w1|w3|wi|wi_\d|c_fc|mlp_in|"
    r"linear1|lin1|fc_in|dense_h_to_4h",
    "mlp out": r"fc2|down|down_proj|w2|mlp_out|linear2|lin2|fc_out|dense_4h_to_h",
    "head": r"head|classifier|fc|lm_head|logits|readout|unembed|embed_out",
}
PROJECTION = r"[qkv]_proj|(query|key|value)_proj|to_[qkv]|w[qkv]|[qkv]_lin"
# Names that mean something within attention or an MLP alone: "out" beside "query" is
# not the "out" behind the last block.
WITHIN = {
    "attention": r"out|o|out_proj|c_proj|proj|wo|linear|dense|projection|out_lin",
    "mlp": r"out|o|out_proj|c_proj|proj|wo|output|projection",
}
WORDS = {
    part: re.compile(rf"(?<!\S)(?:{names})(?!\S)")
    for part, names in (*NAMES.items(), ("projection", PROJECTION))
}
ATTENTION = re.compile(r"att(n|ention)|mha", re.IGNORECASE)
MLP = re.compile(r"mlp|ffn|feed_?forward|^ff|dense_?relu|intermediate", re.IGNORECASE)
EXPERTS = re.compile(r"expert|moe", re.IGNORECASE)
BLOCK = re.compile(r"block|layer|unit|stage|^h_?\d|^\d+$", re.IGNORECASE)
MULTIHEAD = (  # query, key, value and output as torch's MultiheadAttention has them
    ("query", "key", "value", "out"),
    ("query", "key", "value", "linear"),
    ("query_proj", "key_proj", "value_proj", "output_proj"),
)


class Place(NamedTuple):
    """Where a module stands among those whose names differ only in their number."""

    order: int
    total: int


def join(module: str, name: str) -> str:
    """Returns the path of a module's child of this name."""
    return f"{module}/{name}" if module else name
