"""A decoder that was lost over a video."""

from __future__ import annotations

from evalkit.video import VideoError


class DecoderLost(VideoError):
    """Decoding hung, crashed or needed too much memory: not a verdict on the file, for the machine may be to blame."""
