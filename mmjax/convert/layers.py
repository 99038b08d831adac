"""The rules of layers, which the tables of formats are made of."""

from collections.abc import Mapping

from mmjax.convert.rules import Rule
from mmjax.convert.transforms import DENSE


def dense(path: str, name: str) -> tuple[Rule, Rule]:
    """The rules of a dense layer with bias; `attn/{query,key,value}` are three that share one fused layer."""
    return Rule(f"{path}/kernel", f"{name}.weight", DENSE), Rule(f"{path}/bias", f"{name}.bias")


def layer_norm(path: str, name: str) -> tuple[Rule, Rule]:
    """The rules of a layer norm with scale and bias."""
    return Rule(f"{path}/scale", f"{name}.weight"), Rule(f"{path}/bias", f"{name}.bias")


def multihead_attention(path: str, name: str) -> tuple[Rule, ...]:
    """The rules of an `Attention` that is an `nn.MultiheadAttention` there."""
    qkv = f"{path}/{{query,key,value}}"
    return (
        Rule(f"{qkv}/kernel", f"{name}.in_proj_weight", DENSE),
        Rule(f"{qkv}/bias", f"{name}.in_proj_bias"),
        *dense(f"{path}/out", f"{name}.out_proj"),
    )


def layers(path: str, name: str, table: Mapping[str, str]) -> tuple[Rule, ...]:
    """The rules of many layers below one path: our names -> theirs; names that begin with `ln` are layer norms.

    >>> table = {"ln_1": "norm1", "attn/{query,key,value}": "attn.qkv"}
    >>> for rule in layers("encoder/block_{i}", "blocks.{i}", table):
    ...     print(rule.pattern, rule.name)
    encoder/block_{i}/ln_1/scale blocks.{i}.norm1.weight
    encoder/block_{i}/ln_1/bias blocks.{i}.norm1.bias
    encoder/block_{i}/attn/{query,key,value}/kernel blocks.{i}.attn.qkv.weight
    encoder/block_{i}/attn/{query,key,value}/bias blocks.{i}.attn.qkv.bias
    """
    rules: tuple[Rule, ...] = ()
    for ours, theirs in table.items():
        kind = layer_norm if ours.rsplit("/", 1)[-1].startswith("ln") else dense
        rules += kind(f"{path}/{ours}", f"{name}.{theirs}")
    return rules
