"""Small tokenizers of the kinds that SigLIP's folders hold, written out by hand."""

import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors

_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def unigram() -> tokenizers.Tokenizer:
    """As SigLIP's: sentencepiece's unigram model over lower-cased text without punctuation, `</s>` after it.

    Ids: `<pad>` 0, `</s>` 1, `<unk>` 2, `▁a` 3, `▁red` 4, `▁circle` 5, `s` 6, `▁` 7, then the other letters.
    """
    pieces = [("▁a", -2.0), ("▁red", -3.0), ("▁circle", -3.0), ("s", -4.0), ("▁", -4.0)]
    pieces += [(letter, -6.0) for letter in _LETTERS if letter != "s"]
    specials = ["<pad>", "</s>", "<unk>"]
    backend = tokenizers.Tokenizer(models.Unigram([*((name, 0.0) for name in specials), *pieces], unk_id=2))
    punctuation = Regex(r"[!-/:-@\[-`{-~]")
    backend.normalizer = normalizers.Sequence(
        [
            normalizers.NFKC(),
            normalizers.Lowercase(),
            normalizers.Replace(punctuation, ""),
            normalizers.Replace(Regex(r"\s+"), " "),
            normalizers.Strip(),
        ]
    )
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    backend.add_special_tokens(specials)
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return backend


def gemma() -> tokenizers.Tokenizer:
    """As SigLIP 2's: byte-pair encoding that falls back to bytes, over lower-cased text, `<eos>` after it.

    Ids: `<pad>` 0, `<eos>` 1, `<bos>` 2, `<unk>` 3, `<mask>` 4, the 256 bytes, `▁` 261, the letters, then the merges.
    """
    specials = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    merges = [("r", "e"), ("re", "d"), ("▁", "c")]
    tokens = [*specials, *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *_LETTERS, *map("".join, merges)]
    vocab = {token: index for index, token in enumerate(tokens)}
    backend = tokenizers.Tokenizer(
        models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.Replace(" ", "▁")])
    backend.pre_tokenizer = pre_tokenizers.Split(" ", behavior="merged_with_previous")
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    backend.add_special_tokens(specials)
    backend.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    return backend
