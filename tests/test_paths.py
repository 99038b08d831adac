import pytest

from mmjax import paths

LEAVES = [
    "image/encoder/block_0/attn/query/kernel",
    "image/encoder/block_10/attn/value/kernel",
    "image/proj/kernel",
    "text/proj/kernel",
    "log_scale",
]


@pytest.mark.parametrize(
    ("pattern", "count"),
    [
        ("**", 5),
        ("*", 1),
        ("image/**", 3),
        ("*/proj/kernel", 2),
        ("**/attn/{query,value}/kernel", 2),
        ("**/block_{0..9}/**", 1),
        ("log_scale", 1),
    ],
)
def test_counts_of_a_pattern(pattern, count):
    report = paths.match(LEAVES, [pattern])
    assert report.counts == {pattern: count}
    assert report.total == 5


def test_star_stays_within_one_name():
    assert not paths.matches("image/proj/kernel", "image/*")
    assert paths.matches("image/proj/kernel", "image/*/kernel")


def test_matched_is_the_union():
    report = paths.match(LEAVES, ["image/**", "*/proj/**"])
    assert report.matched == frozenset(LEAVES[:4])
    assert "4 of 5 paths matched" in str(report)


def test_a_pattern_without_match_names_the_nearest_paths():
    with pytest.raises(paths.NoMatchError, match=r"1 of 2 patterns.*'text/prj/kernel'.*'text/proj/kernel'"):
        paths.match(LEAVES, ["image/**", "text/prj/kernel"])


def test_unmatched_patterns_may_be_allowed():
    assert paths.match(LEAVES, ["nothing"], allow_unmatched=True).counts == {"nothing": 0}


def test_flatten_and_unflatten_are_inverse_and_keep_order():
    tree = {"b": {"y": 1, "x": {"z": 2}}, "a": 3}
    flat = paths.flatten(tree)
    assert list(flat) == ["b/y", "b/x/z", "a"]
    assert paths.unflatten(flat) == tree


def test_suggestion_lists_everything_when_nothing_is_near():
    assert paths.suggestion("qqqq", ["image", "text"]) == "there are: image, text"
    assert paths.suggestion("imag", ["image", "text"]) == "did you mean 'image'?"
    assert paths.suggestion("x", []) == "there are none"
