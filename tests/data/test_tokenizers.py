import gzip
import json
import pickle

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models, pre_tokenizers, processors

from mmjax.data.tokenizers import BOS, EOS, PAD, Tokenizer, clip_bpe, train_bpe
from tests.data.foreign_tokenizers import gemma, unigram

# CLIP's ids by hand: 256 bytes from "!" on, the same with "</w>", then the merges in order, then begin and end.
MERGES = ["l o", "lo w</w>", "e r</w>", "à ¤"]
LETTER = {letter: ord(letter) - ord("!") for letter in "abcdefghijklmnopqrstuvwxyz!',.0123456789"}
LO, LOW_END, ER_END = 512, 513, 514
CLIP_BOS, CLIP_EOS = 516, 517
END = 256

TEXTS = [
    "a small red circle left of a large blue square",
    "  two  spaces, and more   ",
    "مرحبا بالعالم",
    "שלום עולם",
    "हिन्दी में एक वाक्य",
    "日本語のテキスト、漢字。",
    "e\u0301clair naïve Ünïcödé ﬁ",
    "👩‍👩‍👧 family 🎉🏳️‍🌈",
    "tab\tnew\nline\r\n\x00\x7f",
    "don't we'll I'M 3.14 %",
    "",
]


def clip_file(folder, merges=MERGES):
    path = folder / "bpe_simple_vocab.txt.gz"
    path.write_bytes(gzip.compress("\n".join(["#version: made", *merges, ""]).encode()))
    return path


def trained(**settings):
    return train_bpe(["a small red circle", "a large blue circle", "Ünïcödé"] * 2, **{"vocab_size": 320, **settings})


TRAINED = trained()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("!", [LETTER["!"] + END]),
        ("Low  lower", [LOW_END, LO, LETTER["w"], ER_END]),
        ("a\tB\n", [LETTER["a"] + END, LETTER["b"] + END]),
        ("42", [LETTER["4"] + END, LETTER["2"] + END]),
        ("it's!!", [LETTER["i"], LETTER["t"] + END, LETTER["'"], LETTER["s"] + END, LETTER["!"], LETTER["!"] + END]),
        # e and a combining acute are composed to the bytes C3 A9, which print as Ã and ©; 67 others are passed over,
        # and one more (AD) between the two.
        ("e\u0301", [0xC3 - 67 - 1, 0xA9 - 67 + END]),
    ],
)
def test_clip_ids_by_hand(tmp_path, text, expected):
    ids, mask = clip_bpe(clip_file(tmp_path)).encode([text], length=16)
    row = [CLIP_BOS, *expected, CLIP_EOS]
    np.testing.assert_array_equal(ids[0], row + [0] * (16 - len(row)))
    np.testing.assert_array_equal(mask[0], [True] * len(row) + [False] * (16 - len(row)))


def test_clip_vocabulary_and_specials(tmp_path):
    tokenizer = clip_bpe(clip_file(tmp_path))
    assert (tokenizer.vocab_size, tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (518, CLIP_BOS, CLIP_EOS, 0)
    assert tokenizer.backend.id_to_token(0) == "!"
    assert tokenizer.backend.id_to_token(188) == chr(256)  # the first byte that does not print
    assert tokenizer.backend.id_to_token(LOW_END) == "low</w>"


def test_clip_takes_only_the_merges_that_clip_takes(tmp_path):
    # As OpenAI's file, which is longer than the vocabulary.
    letters = [chr(code) for code in range(ord("!"), 380) if not 127 <= code < 161 and code != 173 and code < 324]
    merges = [f"{first} {second}" for first in letters for second in letters]
    assert len(merges) > 49152 - 258
    tokenizer = clip_bpe(clip_file(tmp_path, merges))
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.vocab_size) == (49406, 49407, 49408)


def test_clip_names_the_line_that_is_no_merge(tmp_path):
    with pytest.raises(ValueError, match=r"line 3 of .*vocab\.txt\.gz is 'lonely', expected two pieces"):
        clip_bpe(clip_file(tmp_path, ["a b", "lonely"]))


def test_clip_from_vocab_and_merges(tmp_path):
    from_merges = clip_bpe(clip_file(tmp_path))
    (tmp_path / "vocab.json").write_text(json.dumps(from_merges.backend.get_vocab()))
    (tmp_path / "merges.txt").write_text("\n".join(["#version: 0.2", *MERGES, ""]), encoding="utf-8")
    for path in (tmp_path / "vocab.json", tmp_path / "merges.txt"):
        tokenizer = clip_bpe(path)
        for found, expected in zip(
            tokenizer.encode(TEXTS, length=40), from_merges.encode(TEXTS, length=40), strict=True
        ):
            np.testing.assert_array_equal(found, expected)


def test_clip_decodes(tmp_path):
    tokenizer = clip_bpe(clip_file(tmp_path))
    assert tokenizer.decode(tokenizer.encode(["A  lower LOW!"], length=20)[0][0]) == "a lower low !"


@pytest.mark.parametrize("text", TEXTS)
def test_trained_gives_any_text_back(text):
    tokenizer = trained()
    ids, mask = tokenizer.encode([text], length=200)
    assert tokenizer.decode(ids[0]) == text
    assert mask[0].sum() == len(tokenizer.backend.encode(text).ids)


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_trained_gives_random_text_back(text):
    assert TRAINED.decode(TRAINED.encode([text], length=400)[0][0]) == text


def test_trained_merges_by_hand():
    # "ab" occurs most, then "abab"; bytes are in the order of their letters.
    tokenizer = train_bpe(["abab", "abab", "abc"], vocab_size=261)
    ids, _ = tokenizer.encode(["ababc"], length=6)
    np.testing.assert_array_equal(ids[0], [259, 257, LETTER["c"], 260, 258, 258])
    assert (tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id) == (258, 259, 260)


@pytest.mark.parametrize("vocab_size", [259, 270, 5000])
def test_end_token_has_the_largest_id(vocab_size):
    tokenizer = trained(vocab_size=vocab_size)
    assert tokenizer.eos_id == tokenizer.vocab_size - 1
    assert tokenizer.vocab_size <= vocab_size
    assert tokenizer.vocab_size == vocab_size or vocab_size == 5000
    ids, _ = tokenizer.encode(["a small red circle", "", "x" * 100], length=12)
    assert (np.take_along_axis(ids, ids.argmax(axis=1)[:, None], 1) == tokenizer.eos_id).all()


def test_training_does_not_depend_on_order():
    corpus = [
        f"{size} {colour} {shape}"
        for size in ("big", "small")
        for colour in ("red", "blue")
        for shape in ("disc", "cube")
    ]
    one = train_bpe(corpus, vocab_size=290)
    other = train_bpe(iter(corpus[::-1]), vocab_size=290)
    assert one.backend.to_str() == other.backend.to_str()


def test_lowercase_is_optional():
    assert trained().decode(trained().encode(["Red"], length=9)[0][0]) == "Red"
    lower = trained(lowercase=True)
    assert lower.decode(lower.encode(["Red"], length=9)[0][0]) == "red"


def test_vocabulary_must_hold_the_bytes():
    with pytest.raises(ValueError, match="vocab_size is 100, expected at least 259"):
        train_bpe(["a"], vocab_size=100)


@pytest.mark.parametrize("make", [lambda folder: trained(), lambda folder: clip_bpe(clip_file(folder))])
@pytest.mark.parametrize("length", [3, 4, 7])
def test_long_text_keeps_the_end_token(tmp_path, make, length):
    tokenizer = make(tmp_path)
    ids, mask = tokenizer.encode(["low lower " * 20], length=length)
    whole, _ = tokenizer.encode(["low lower " * 20], length=200)
    assert ids.dtype == np.int32
    assert mask.dtype == bool
    assert ids.shape == mask.shape == (1, length)
    assert mask.all()
    np.testing.assert_array_equal(ids[0, :-1], whole[0, : length - 1])
    assert ids[0, -1] == tokenizer.eos_id


def test_empty_caption_is_begin_and_end():
    tokenizer = trained()
    ids, mask = tokenizer.encode([""], length=4)
    np.testing.assert_array_equal(ids[0], [tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id, tokenizer.pad_id])
    np.testing.assert_array_equal(mask[0], [True, True, False, False])


def test_no_texts():
    ids, mask = trained().encode([], length=4)
    assert ids.shape == mask.shape == (0, 4)


def test_encode_refuses_one_string_and_no_room():
    with pytest.raises(TypeError, match="one string"):
        trained().encode("a cat", length=8)
    with pytest.raises(ValueError, match="length is 2, expected at least 3"):
        trained().encode(["a cat"], length=2)


@pytest.mark.parametrize("make", [lambda folder: trained(), lambda folder: clip_bpe(clip_file(folder))])
def test_saved_file_is_self_contained(tmp_path, make):
    tokenizer = make(tmp_path)
    tokenizer.save(tmp_path / "tokenizer.json")
    loaded = Tokenizer.load(tmp_path / "tokenizer.json")
    for name in ("vocab_size", "bos_id", "eos_id", "pad_id"):
        assert getattr(loaded, name) == getattr(tokenizer, name)
    for found, expected in zip(loaded.encode(TEXTS, length=30), tokenizer.encode(TEXTS, length=30), strict=True):
        np.testing.assert_array_equal(found, expected)
    # The padding's name must not make a common token special.
    assert not loaded.backend.get_added_tokens_decoder().get(0)


def test_pickles():
    tokenizer = trained()
    copied = pickle.loads(pickle.dumps(tokenizer))
    np.testing.assert_array_equal(copied.encode(TEXTS, length=20)[0], tokenizer.encode(TEXTS, length=20)[0])
    assert copied.eos_id == tokenizer.eos_id


def word_level(path, *, specials=("[PAD]", "[CLS]", "[SEP]"), framed=("[CLS]", "[SEP]"), padding=None, extra=()):
    words = {word: index for index, word in enumerate([*specials, *extra, "a", "cat"])}
    backend = tokenizers.Tokenizer(models.WordLevel(words, unk_token="a"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.add_special_tokens(list(specials))
    if framed:
        backend.post_processor = processors.TemplateProcessing(
            single=[framed[0], "$A", framed[1]] if framed[0] else ["$A", framed[1]],
            special_tokens=[(token, words[token]) for token in framed if token],
        )
    backend.enable_truncation(3)
    if padding:
        backend.enable_padding(pad_id=words[padding], pad_token=padding)
    backend.save(str(path))
    return path


def test_load_finds_the_frame_of_a_foreign_file(tmp_path):
    tokenizer = Tokenizer.load(word_level(tmp_path / "t.json"))
    ids, _ = tokenizer.encode(["a cat a cat a cat", "cat"], length=8)
    np.testing.assert_array_equal(ids, [[1, 3, 4, 3, 4, 3, 4, 2], [1, 4, 2, 0, 0, 0, 0, 0]])
    assert tokenizer.decode(ids[1]) == "cat"


def test_load_without_begin_token(tmp_path):
    tokenizer = Tokenizer.load(word_level(tmp_path / "t.json", framed=(None, "[SEP]")))
    assert tokenizer.bos_id is None
    np.testing.assert_array_equal(tokenizer.encode(["a cat"], length=4)[0], [[3, 4, 2, 0]])
    tokenizer.save(tmp_path / "again.json")
    assert Tokenizer.load(tmp_path / "again.json").bos_id is None


def test_load_padding_of_the_file_goes_first(tmp_path):
    assert Tokenizer.load(word_level(tmp_path / "t.json", padding="cat")).pad_id == 4
    assert Tokenizer.load(word_level(tmp_path / "t.json", padding="cat"), pad="a").pad_id == 3
    no_usual_name = word_level(tmp_path / "t.json", specials=("[CLS]", "[SEP]"))
    assert Tokenizer.load(no_usual_name).pad_id == 1


def test_load_with_named_tokens(tmp_path):
    path = word_level(tmp_path / "t.json", framed=None)
    with pytest.raises(ValueError, match=r"names no end token; pass eos=.*\[SEP\]"):
        Tokenizer.load(path)
    tokenizer = Tokenizer.load(path, bos="[CLS]", eos="[SEP]")
    np.testing.assert_array_equal(tokenizer.encode(["cat"], length=4)[0], [[1, 4, 2, 0]])
    tokenizer.save(tmp_path / "again.json")
    assert Tokenizer.load(tmp_path / "again.json").eos_id == 2
    with pytest.raises(ValueError, match=r"eos is '\[SEP', which .* does not have; did you mean '\[SEP\]'"):
        Tokenizer.load(path, eos="[SEP")


FOREIGN = {"unigram": unigram, "gemma": gemma}


def foreign(folder, kind, **tokens):
    FOREIGN[kind]().save(str(folder / "foreign.json"))
    return Tokenizer.load(folder / "foreign.json", **tokens)


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("unigram", "A  red, circles!", [3, 4, 5, 6, 1]),
        ("unigram", "a d\u6771", [3, 7, 8 + "abcdefghijklmnopqrtuvwxyz".index("d"), 2, 1]),  # a letter, an unknown one
        ("unigram", "", [1]),
        ("gemma", "Red c", [289, 290, 1]),  # red, and c after its space
        ("gemma", "\u00e9", [5 + 0xC3, 5 + 0xA9, 1]),
        ("gemma", "", [1]),
    ],
)
def test_foreign_ids_by_hand(tmp_path, kind, text, expected):
    tokenizer = foreign(tmp_path, kind)
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (None, 1, 0)
    ids, mask = tokenizer.encode([text], length=8)
    np.testing.assert_array_equal(ids[0], expected + [0] * (8 - len(expected)))
    assert mask.sum() == len(expected)


@pytest.mark.parametrize("kind", FOREIGN)
def test_foreign_files_encode_as_their_library_does_and_survive_saving(tmp_path, kind):
    pad = {"unigram": "</s>", "gemma": None}[kind]
    tokenizer = foreign(tmp_path, kind, pad=pad)
    assert tokenizer.pad_id == (1 if pad else 0)
    ids, mask = tokenizer.encode(TEXTS, length=200)
    for text, row, valid in zip(TEXTS, ids, mask, strict=True):
        assert row[valid].tolist() == FOREIGN[kind]().encode(text).ids
        assert set(row[~valid].tolist()) == {tokenizer.pad_id}
    tokenizer.save(tmp_path / "tokenizer.json")
    copies = (Tokenizer.load(tmp_path / "tokenizer.json"), pickle.loads(pickle.dumps(tokenizer)))
    for copied in copies:
        np.testing.assert_array_equal(copied.encode(TEXTS, length=9)[0], tokenizer.encode(TEXTS, length=9)[0])
        assert copied.vocab_size == tokenizer.vocab_size


@pytest.mark.parametrize(("kind", "expected"), [("unigram", "a red circle"), ("gemma", "a red  circle, \u6771")])
def test_foreign_ids_are_decoded(tmp_path, kind, expected):
    tokenizer = foreign(tmp_path, kind)
    ids, _ = tokenizer.encode(["A red  Circle," + (" \u6771" if kind == "gemma" else "")], length=30)
    assert tokenizer.decode(ids[0]) == expected


def test_load_refuses_what_is_no_tokenizer(tmp_path):
    (tmp_path / "t.json").write_text("{}")
    with pytest.raises(ValueError, match=r"t\.json is no tokenizer\.json"):
        Tokenizer.load(tmp_path / "t.json")
    with pytest.raises(FileNotFoundError, match="none"):
        Tokenizer.load(tmp_path / "none.json")
    with pytest.raises(FileNotFoundError, match="none"):
        clip_bpe(tmp_path / "none.txt.gz")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_transformers_reads_the_saved_files(tmp_path):
    transformers = pytest.importorskip("transformers")
    for make, kind, pad in (
        (trained, "PreTrainedTokenizerFast", PAD),
        (lambda: clip_bpe(clip_file(tmp_path)), "CLIPTokenizer", EOS),
    ):
        tokenizer = make()
        tokenizer.save(tmp_path / "tokenizer.json")
        names = {"tokenizer_class": kind, "bos_token": BOS, "eos_token": EOS, "pad_token": pad}
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(names))
        theirs = getattr(transformers, kind).from_pretrained(tmp_path)(
            TEXTS, padding="max_length", max_length=40, truncation=True
        )
        ids, mask = tokenizer.encode(TEXTS, length=40)
        np.testing.assert_array_equal(theirs["attention_mask"], mask)
        np.testing.assert_array_equal(np.where(mask, theirs["input_ids"], 0), np.where(mask, ids, 0))
