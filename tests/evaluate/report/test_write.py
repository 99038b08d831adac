import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from mmjax.evaluate.report import HeldOut, write_report

SECTIONS = ["results", "curves", "matrix", "text-to-image", "image-to-text", "plane", "config"]


class Page(HTMLParser):
    """All elements of a page in order, with their attributes, and its text."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.text = [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def html(workdir, encoders, params, data):
    return write_report(workdir, encoders=encoders, params=params, data=data, step=10).read_text(encoding="utf-8")


def part(html, anchor):
    return html.split(f'<section id="{anchor}">')[1].split("</section>")[0]


def test_all_sections_are_there_in_order_and_the_links_lead_to_them(html):
    page = Page(html)
    assert [section["id"] for section in page.all("section")] == SECTIONS
    assert [link["href"] for link in page.all("a")] == [f"#{name}" for name in SECTIONS]
    assert "absent" not in re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL)


def test_head_tells_what_the_run_was(html):
    text = Page(html.split("<main>")[0]).text
    for fact in ("colour run", "Synthetic data.", "clip (loss softmax)", "nano/8", "40 examples seen", "88"):
        assert fact in text


def test_results_show_both_directions_with_counts_protocol_and_the_rule_for_ties(html):
    text = " ".join(Page(part(html, "results")).text.split())
    assert re.search(r"image to text ?50.0 ?4,321", text)
    assert re.search(r"text to image ?50.0 ?1,234", text)
    assert "retrieval on shapes (split test); ks 1, 5, 10; ties worst." in text


def test_curves_are_of_training_and_of_both_directions(html):
    titles = re.findall(r"<figcaption>(.*?)</figcaption>", part(html, "curves"))
    assert titles == [
        "Loss",
        "Scale",
        "Learning rate",
        "Gradient norm",
        "retrieval, image to text",
        "retrieval, text to image",
    ]


def test_right_and_wrong_retrievals_are_shown_with_their_shares(html):
    shown = part(html, "text-to-image")
    right, wrong = shown.split("<h3>Wrong")
    assert "6 of 8 (75.0 %)" in right
    assert "2 of 8 (25.0 %)" in wrong
    found = ["blue", "cyan", "grey", "magenta", "white", "yellow"]
    assert sorted(re.findall(r'<h4 dir="auto">(\w+)', right)) == found
    assert sorted(re.findall(r'<h4 dir="auto">(\w+)', wrong)) == ["green", "red"]
    for article in right.split("<article")[1:]:
        assert re.search(r'<ol class="found">\s*<li class="is-right">', article)
    for article in wrong.split("<article")[1:]:
        assert re.search(r'<ol class="found">\s*<li>', article)
        assert article.count("✓") == 1


def test_matrix_counts_the_rows_that_find_their_own(html):
    text = " ".join(Page(part(html, "matrix")).text.split())
    assert "the caption's own in 6 of 8 rows" in text
    assert "the picture's own in 6 of 8 columns" in text


def test_text_of_others_is_text(html):
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "&lt;/pre&gt;&lt;script&gt;alert(2)&lt;/script&gt;" in html
    assert "grey <script>alert(1)</script>" in Page(part(html, "text-to-image")).text


def test_nothing_is_loaded(html):
    page = Page(html)
    assert "://" not in html
    for _, attributes in page.elements:
        for name in ("src", "href", "xlink:href", "data", "srcset", "poster"):
            assert attributes.get(name, "#").startswith(("#", "data:"))
    assert re.findall(r"url\(([^)]{5})", html)
    assert all(start.startswith(("data:", "#")) for start in re.findall(r"url\(([^)]{5})", html))
    assert not page.all("script")


def test_colours_of_figures_follow_the_page(html):
    figures = re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL)
    assert len(figures) == 7
    declared = set(re.findall(r"(--[\w-]+):", html))
    for figure in figures:
        assert not re.search(r"(fill|stroke): ?#", figure)
        assert set(re.findall(r"var\((--[\w-]+)\)", figure)) <= declared


def test_identifiers_are_unique(html):
    identifiers = [attributes["id"] for _, attributes in Page(html).elements if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))


def test_the_same_run_gives_the_same_bytes(workdir, encoders, params, data, tmp_path):
    first = write_report(workdir, encoders=encoders, params=params, data=data, step=10)
    again = write_report(workdir, encoders=encoders, params=params, data=data, step=10, out=tmp_path / "again.html")
    assert first == workdir / "report.html"
    assert first.read_bytes() == again.read_bytes()
    assert sorted(path.name for path in workdir.iterdir()) == sorted(
        ["config.json", "metrics.jsonl", "report.html", "result.json"]
    )


def test_title_and_date_are_those_given(workdir, encoders, params, data):
    path = write_report(workdir, encoders=encoders, params=params, data=data, title="A & B", date="1 May 2031")
    html = path.read_text(encoding="utf-8")
    assert "<h1>A &amp; B</h1>" in html
    assert "1 May 2031" in html


def test_what_there_is_no_data_for_is_left_out_with_a_sentence(tmp_path, encoders, params):
    page = Page(write_report(tmp_path, encoders=encoders, params=params).read_text(encoding="utf-8"))
    assert [section["id"] for section in page.all("section")] == SECTIONS
    assert not page.all("img")
    assert not page.all("svg")
    for sentence in ("no result.json", "no metrics.jsonl", "No held-out pictures", "no config.json"):
        assert sentence in page.text


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        ({"captions": ["a dog"]}, "The records have no image."),
        ({"image": np.zeros((4, 4, 3), np.uint8), "label": 1}, "The records have no captions."),
    ],
)
def test_records_that_are_no_pairs_are_named(workdir, encoders, params, record, sentence):
    path = write_report(workdir, encoders=encoders, params=params, data=HeldOut([record], "halves"))
    assert path.read_text(encoding="utf-8").count(sentence) == 4


def test_a_method_without_text_is_named(workdir, encoders, params, data):
    half = encoders._replace(functions={"image": encoders.functions["image"]})
    html = write_report(workdir, encoders=half, params=params, data=data).read_text(encoding="utf-8")
    assert "This method has no encoder of text." in html


def test_embeddings_that_are_not_finite_are_named(workdir, encoders, params, data):
    broken = {**params, "text": {"table": np.full_like(params["text"]["table"], np.nan)}}
    html = write_report(workdir, encoders=encoders, params=broken, data=data).read_text(encoding="utf-8")
    assert "The embeddings of this model are not finite." in html


def test_one_pair_is_enough(workdir, encoders, params, source):
    html = write_report(workdir, encoders=encoders, params=params, data=HeldOut(source, "colours", None, 1)).read_text(
        encoding="utf-8"
    )
    assert "the first 1 of 8 records" in " ".join(html.split())
    assert "None is wrong." in html
    assert "nan" not in Page(part(html, "plane") + part(html, "matrix")).text


def test_a_line_cut_short_and_a_loss_that_is_not_finite_do_no_harm(workdir, encoders, params):
    with open(workdir / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps({"step": 15, "loss": "nan", "scale": 12.0}) + "\n" + '{"step": 20, "lo')
    html = write_report(workdir, encoders=encoders, params=params).read_text(encoding="utf-8")
    assert "<figcaption>Loss</figcaption>" in html
