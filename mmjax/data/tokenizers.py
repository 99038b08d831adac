"""Text to token ids: one class over Hugging Face `tokenizers`, a trained byte-level BPE, and CLIP's BPE."""

import gzip
import json
import pathlib
from collections.abc import Iterable, Sequence
from os import PathLike

import numpy as np
import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers

from mmjax.paths import suggestion

BOS, EOS, PAD = "<|startoftext|>", "<|endoftext|>", "<|padding|>"

_PAD_NAMES = (PAD, "<|pad|>", "<pad>", "[PAD]")
# A word takes the one space before it along, so that joining the tokens gives the text back; unlike GPT-2's
# pattern, marks (vowel signs, accents written apart) stay with their letters.
_WORDS = r" ?[\p{L}\p{M}]+| ?\p{N}| ?[^\s\p{L}\p{M}\p{N}]+|\s+(?!\S)|\s+"
_CLIP_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_CLIP_MERGES = 49152 - 256 - 2


class Tokenizer:
    """Token ids of texts, framed by the begin and end tokens and padded to a length.

    Attributes:
      backend: the `tokenizers.Tokenizer` that splits the text.
      vocab_size: number of rows that an embedding table needs.
      bos_id: token before each text, or None for a tokenizer that has none.
      eos_id: token after each text.
      pad_id: fills up short rows.

    >>> tokenizer = train_bpe(["a red circle", "a red square"], vocab_size=300)
    >>> ids, mask = tokenizer.encode(["a red circle", ""], length=6)
    >>> mask.sum(axis=1)
    array([6, 2])
    >>> tokenizer.decode(tokenizer.encode(["a red disc"], length=16)[0][0])
    'a red disc'
    """

    def __init__(self, backend: tokenizers.Tokenizer, *, bos_id: int | None, eos_id: int, pad_id: int):
        self.backend = backend
        self.vocab_size = max(backend.get_vocab(with_added_tokens=True).values()) + 1
        self.bos_id = bos_id
        self.eos_id = eos_id
        self.pad_id = pad_id

    def encode(self, texts: Sequence[str], *, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Ids of each text between begin and end token; a long text loses its tail, not its end token.

        Args:
          texts: `B` texts.
          length: `T`, tokens in a row, begin and end included.

        Returns:
          Ids `[B, T]` int32 and mask `[B, T]` bool, True where there is no padding.

        Raises:
          TypeError: `texts` is one string.
          ValueError: `length` cannot hold a single token of text.
        """
        if isinstance(texts, str):
            raise TypeError("Tokenizer.encode: texts is one string, expected a sequence of strings")
        start = [] if self.bos_id is None else [self.bos_id]
        room = length - len(start) - 1
        if room < 1:
            raise ValueError(f"Tokenizer.encode: length is {length}, expected at least {len(start) + 2}")
        ids = np.full((len(texts), length), self.pad_id, np.int32)
        lengths = np.zeros(len(texts), np.int32)
        for row, encoding in enumerate(self.backend.encode_batch_fast(list(texts), add_special_tokens=False)):
            tokens = [*start, *encoding.ids[:room], self.eos_id]
            ids[row, : len(tokens)] = tokens
            lengths[row] = len(tokens)
        return ids, np.arange(length) < lengths[:, None]

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text of one row of ids, up to its end token, special tokens left out."""
        tokens = [int(token) for token in ids]
        if self.eos_id in tokens:
            tokens = tokens[: tokens.index(self.eos_id)]
        text = self.backend.decode(tokens, skip_special_tokens=True)
        suffix = getattr(self.backend.model, "end_of_word_suffix", None)
        return text.replace(suffix, " ").strip() if suffix else text

    def save(self, path: str | PathLike[str]) -> None:
        """Writes one `tokenizer.json` in Hugging Face's format; begin, end and padding are stored in it."""
        content = json.loads(self.backend.to_str())
        # transformers makes the named token special, which a common one (CLIP pads with "!") must not become.
        name = self.backend.id_to_token(self.pad_id)
        special = {token["content"] for token in content["added_tokens"] if token["special"]}
        content["padding"] = {
            "strategy": "BatchLongest",
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": self.pad_id,
            "pad_type_id": 0,
            "pad_token": name if name in special else self.backend.id_to_token(self.eos_id),
        }
        pathlib.Path(path).write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")

    @classmethod
    def load(
        cls,
        path: str | PathLike[str],
        *,
        bos: str | None = None,
        eos: str | None = None,
        pad: str | None = None,
    ) -> "Tokenizer":
        """Any `tokenizer.json`.

        Args:
          path: the file.
          bos: begin token; by default the one that the file's post-processor puts before a text, if any.
          eos: end token; by default the one that the post-processor puts after a text.
          pad: padding token; by default that of the file's padding section, else one of a usual name, else
            `eos`.

        Raises:
          FileNotFoundError: there is no such file.
          ValueError: the file is no tokenizer, has no end token, or lacks a token that was named.
        """
        path = pathlib.Path(path)
        text = path.read_text(encoding="utf-8")
        try:
            backend = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # `tokenizers` raises bare Exception
            raise ValueError(f"Tokenizer.load: {path} is no tokenizer.json ({error})") from error
        padding = backend.padding
        backend.no_padding()
        backend.no_truncation()
        before, after = _frame(backend)
        if len(before) > 1 or len(after) > 1:
            found = f"{len(before)} tokens before a text and {len(after)} after it"
            raise ValueError(f"Tokenizer.load: {path} puts {found}, expected at most one each")
        bos_id = _token_id(backend, path, "bos", bos) if bos else next(iter(before), None)
        eos_id = _token_id(backend, path, "eos", eos) if eos else next(iter(after), None)
        if eos_id is None:
            special = sorted(token.content for token in backend.get_added_tokens_decoder().values() if token.special)
            raise ValueError(f"Tokenizer.load: {path} names no end token; pass eos=, its special tokens are {special}")
        if bos or eos:
            backend.post_processor = _framing(backend, bos_id, eos_id)
        if pad:
            pad_id = _token_id(backend, path, "pad", pad)
        elif padding:
            pad_id = padding["pad_id"]
        else:
            usual = (backend.token_to_id(name) for name in _PAD_NAMES)
            pad_id = next((index for index in usual if index is not None), eos_id)
        return cls(backend, bos_id=bos_id, eos_id=eos_id, pad_id=pad_id)


def train_bpe(corpus: Iterable[str], *, vocab_size: int, lowercase: bool = False) -> Tokenizer:
    """A byte-level BPE learned from texts: every text has tokens, and decoding gives it back exactly.

    The 256 bytes come first, then the merges, then padding, begin and end token, so that the end token has
    the largest id.

    Args:
      corpus: texts; their order does not matter.
      vocab_size: at most this many ids, special tokens included; fewer where no pair is left that occurs
        twice.
      lowercase: whether texts are lower-cased first.

    Raises:
      ValueError: `vocab_size` cannot hold the bytes and the special tokens.

    >>> tokenizer = train_bpe(["one fish", "two fish"], vocab_size=262)
    >>> tokenizer.eos_id == tokenizer.vocab_size - 1
    True
    """
    specials = (PAD, BOS, EOS)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    least = len(alphabet) + len(specials)
    if vocab_size < least:
        raise ValueError(
            f"train_bpe: vocab_size is {vocab_size}, expected at least {least} (256 bytes, 3 special tokens)"
        )
    learner = tokenizers.Tokenizer(models.BPE())
    splitting = _splitting(_WORDS, "isolated")
    learner.pre_tokenizer = splitting
    lower = normalizers.Lowercase() if lowercase else None
    if lower:
        learner.normalizer = lower
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(specials),
        min_frequency=2,
        initial_alphabet=alphabet,
        show_progress=False,
    )
    learner.train_from_iterator(corpus, trainer)
    model = json.loads(learner.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    backend = _bpe([*tokens, *specials], [tuple(merge) for merge in model["merges"]], specials)
    if lower:
        backend.normalizer = lower
    backend.pre_tokenizer = splitting
    pad_id, bos_id, eos_id = range(len(tokens), len(tokens) + len(specials))
    backend.post_processor = _framing(backend, bos_id, eos_id)
    return Tokenizer(backend, bos_id=bos_id, eos_id=eos_id, pad_id=pad_id)


def clip_bpe(vocabulary_file: str | PathLike[str]) -> Tokenizer:
    """CLIP's tokenizer: lower-cased words, merges within a word, `</w>` after its last piece, padding 0.

    With OpenAI's file the begin token is 49406 and the end token 49407. As in `transformers`, white space is
    joined and the text is composed (NFC); ftfy's repairs and HTML entities, which OpenAI's cleaning also
    undoes, are left to the caller.

    Args:
      vocabulary_file: `bpe_simple_vocab_16e6.txt.gz` (merges, one a line after a header line), a `merges.txt`
        of the same form, or a `vocab.json` with its `merges.txt` beside it.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: a line is no merge.

    Reference: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021;
      the authors' `simple_tokenizer.py`.
    """
    path = pathlib.Path(vocabulary_file)
    merges_file = path.with_name("merges.txt") if path.suffix == ".json" else path
    merges = _read_merges(merges_file)
    if path.suffix == ".json":
        vocab = json.loads(path.read_text(encoding="utf-8"))
        tokens = sorted(vocab, key=vocab.__getitem__)
    else:
        letters = _byte_letters()
        tokens = [*letters, *(f"{letter}</w>" for letter in letters), *map("".join, merges), BOS, EOS]
    backend = _bpe(tokens, merges, (BOS, EOS), suffix="</w>")
    backend.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    backend.pre_tokenizer = _splitting(_CLIP_WORDS, "removed", invert=True)
    bos_id, eos_id = tokens.index(BOS), tokens.index(EOS)
    backend.post_processor = processors.RobertaProcessing((EOS, eos_id), (BOS, bos_id), False, False)
    return Tokenizer(backend, bos_id=bos_id, eos_id=eos_id, pad_id=0)


def _bpe(
    tokens: Sequence[str], merges: Sequence[tuple[str, str]], specials: Sequence[str], *, suffix: str = ""
) -> tokenizers.Tokenizer:
    vocab = {token: index for index, token in enumerate(tokens)}
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=list(merges), end_of_word_suffix=suffix))
    backend.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in specials])
    backend.decoder = decoders.ByteLevel()
    return backend


def _splitting(pattern: str, behavior: str, *, invert: bool = False) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior=behavior, invert=invert),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _framing(backend: tokenizers.Tokenizer, bos_id: int | None, eos_id: int) -> processors.PostProcessor:
    eos = backend.id_to_token(eos_id)
    if bos_id is None:
        return processors.TemplateProcessing(single=["$A", eos], special_tokens=[(eos, eos_id)])
    bos = backend.id_to_token(bos_id)
    return processors.TemplateProcessing(single=[bos, "$A", eos], special_tokens=[(bos, bos_id), (eos, eos_id)])


def _frame(backend: tokenizers.Tokenizer) -> tuple[list[int], list[int]]:
    """The ids that the post-processor puts before and after a text, whatever kind of post-processor it is."""
    plain = backend.encode("a", add_special_tokens=False).ids
    framed = backend.encode("a").ids
    start = next(i for i in range(len(framed)) if framed[i : i + len(plain)] == plain)
    return framed[:start], framed[start + len(plain) :]


def _token_id(backend: tokenizers.Tokenizer, path: pathlib.Path, argument: str, token: str) -> int:
    index = backend.token_to_id(token)
    if index is None:
        near = suggestion(token, backend.get_vocab(with_added_tokens=True))
        raise ValueError(f"Tokenizer.load: {argument} is {token!r}, which {path} does not have; {near}")
    return index


def _read_merges(path: pathlib.Path) -> list[tuple[str, str]]:
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8")
    # OpenAI's file goes on after the merges that CLIP uses.
    lines = text.split("\n")[1 : _CLIP_MERGES + 1]
    merges = []
    for number, line in enumerate(lines, start=2):
        pieces = line.split()
        if len(pieces) == 2:
            merges.append((pieces[0], pieces[1]))
        elif pieces:
            raise ValueError(f"clip_bpe: line {number} of {path} is {line!r}, expected two pieces of a merge")
    return merges


def _byte_letters() -> list[str]:
    """One printable letter for each byte, in the order of CLIP's vocabulary: the printing ones first."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    return [*map(chr, printable), *(chr(256 + n) for n in range(256 - len(printable)))]
