"""Procedural pictures of shapes, with captions that are true of them and captions that are nearly so."""

from mmjax.data.shapes.descriptions import (
    KINDS,
    OPPOSITE,
    Description,
    Descriptions,
    describe,
    enumerate_descriptions,
)
from mmjax.data.shapes.grammar import caption, mirror, paraphrases
from mmjax.data.shapes.labels import LABELS, class_names, class_word, prompts
from mmjax.data.shapes.layout import Layout, Placement, scene
from mmjax.data.shapes.negatives import NEGATIVES, make_negative
from mmjax.data.shapes.renderer import Renderer
from mmjax.data.shapes.splits import HOLDOUTS, SPLITS, split_of
from mmjax.data.shapes.vocabulary import BACKGROUNDS, COLOURS, SHAPES, SIZES, Thing, Vocabulary

__all__ = [
    "BACKGROUNDS",
    "COLOURS",
    "HOLDOUTS",
    "KINDS",
    "LABELS",
    "NEGATIVES",
    "OPPOSITE",
    "SHAPES",
    "SIZES",
    "SPLITS",
    "Description",
    "Descriptions",
    "Layout",
    "Placement",
    "Renderer",
    "Thing",
    "Vocabulary",
    "caption",
    "class_names",
    "class_word",
    "describe",
    "enumerate_descriptions",
    "make_negative",
    "mirror",
    "paraphrases",
    "prompts",
    "scene",
    "split_of",
]
