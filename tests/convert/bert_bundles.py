"""Tiny BERTs with random parameters, and their tokenizer."""

from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from mmjax.convert import Bundle
from mmjax.data import Tokenizer
from mmjax.models import DualEncoder, MlpProjector, TextTransformer
from tests.convert.random_params import with_random_params

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PIECES = ("a", "small", "red", "circle", "##s", "cat", "two", "naive", ",", ".", "it", "'", "s", "very", "long", "東")
VOCAB = {token: index for index, token in enumerate((*SPECIALS, *PIECES))}


def wordpiece() -> Tokenizer:
    """The tokenizer of an uncased BERT with few pieces."""
    backend = tokenizers.Tokenizer(models.WordPiece(VOCAB, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, VOCAB[token]) for token in ("[CLS]", "[SEP]")],
    )
    backend.decoder = decoders.WordPiece()
    backend.add_special_tokens(list(SPECIALS))
    return Tokenizer(backend, bos_id=VOCAB["[CLS]"], eos_id=VOCAB["[SEP]"], pad_id=VOCAB["[PAD]"])


def tiny_bert(*, head: MlpProjector | None = None, length: int | None = None, **text: Any) -> Bundle:
    """A text tower that `BertModel` computes, but for what is overridden.

    Args:
      head: on top of it.
      length: tokens a text may have; None = as many as there are positions.
      **text: fields of the tower.
    """
    size = {"vocab_size": len(VOCAB), "context_length": 14, "width": 8, "num_layers": 2, "num_heads": 2}
    bert = {"norm_position": "post", "causal": False, "type_vocab": 2, "ln_eps": 1e-12, "output_dim": None}
    tower = TextTransformer(**{**size, **bert, "pool": "first", **text})
    model = DualEncoder(text=tower, text_head=head)
    return with_random_params(Bundle(model, {}, wordpiece(), None, length or tower.context_length))
