"""The features that VBench's dimensions read: their names, versions and files.

What computes them is imported with torch when a network is loaded, and not before: a run that finds all scores in its
journal needs none, and would take half a gigabyte for nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module

from evalkit.backbones import published
from evalkit.backbones.base import Extractor, FeatureSpec, Loader, Runtime
from evalkit.backbones.bert_vocab import BERT_VOCAB
from evalkit.weights import WeightStore

AMT_MIN_SIDE = 113  # below it, padded, a correlation map is less than two cells wide and the official prediction is NaN
STYLE_TOKENS = 77
TAG2TEXT_SIDE = 384


@dataclass(frozen=True, slots=True)
class _Later:
    """A loader that is looked up when it is called; it travels between processes."""

    module: str
    function: str = "load"

    def __call__(self, store: WeightStore, runtime: Runtime) -> Extractor:
        loader: Loader = getattr(import_module(f"evalkit.backbones.{self.module}"), self.function)
        return loader(store, runtime)


DINO = FeatureSpec("dino", 1, _Later("dino"), (published.DINO,))
CLIP_B32 = FeatureSpec("clip_b32", 1, _Later("clip", "load_b32"), (published.CLIP_B32,))
CLIP_STYLE = FeatureSpec("clip_style", 1, _Later("clip_style"), (published.CLIP_B32,))
LAION = FeatureSpec("laion_aesthetic", 1, _Later("laion"), (published.CLIP_L14, published.LAION))
MUSIQ = FeatureSpec("musiq", 1, _Later("musiq"), (published.MUSIQ,))
AMT = FeatureSpec("amt", 1, _Later("amt"), (published.AMT,), pixels="opencv")
MOVING = FeatureSpec("raft_moving", 1, _Later("raft", "load_moving"), (published.RAFT,), pixels="opencv")
STATIC = FeatureSpec("raft_static", 1, _Later("raft", "load_static"), (published.RAFT,), pixels="opencv")
VICLIP = FeatureSpec("viclip", 1, _Later("viclip"), (published.VICLIP,))
UMT = FeatureSpec("umt", 1, _Later("umt"), (published.UMT,))
TAG2TEXT = FeatureSpec(
    "tag2text", 1, _Later("tag2text"), (published.TAG2TEXT, BERT_VOCAB), size=(TAG2TEXT_SIDE, TAG2TEXT_SIDE)
)
GRIT_OBJECTS = FeatureSpec("grit_objects", 1, _Later("grit", "load_objects"), (published.GRIT, BERT_VOCAB))
GRIT_CAPTIONS = FeatureSpec("grit_captions", 1, _Later("grit", "load_captions"), (published.GRIT, BERT_VOCAB))
