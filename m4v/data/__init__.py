"""Training data: the procedural world, folders and shards of real videos, and latents cached on disk."""

from __future__ import annotations

from m4v.data.base import Batch, Source
from m4v.data.cache import CachedLatents
from m4v.data.shapes import ShapesWorld
from m4v.data.sources import make_source

__all__ = ["Batch", "CachedLatents", "ShapesWorld", "Source", "make_source"]
