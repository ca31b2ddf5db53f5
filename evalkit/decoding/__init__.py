"""Decoding in a process of its own, ahead of the networks: no video can hang, crash or exhaust a run.

A file is read by a child process that has a limit on its memory and cannot write files or use the network where the
system allows it. Control messages are lines of JSON, pixels come through shared memory. What the child says is checked;
nothing of it is ever executed. A video whose decoding hangs, crashes or needs too much memory is a `DecoderLost` (a
`VideoError`), and a new child goes on with the next one.
"""

from evalkit.decoding.decoder import Decoder
from evalkit.decoding.job import Job, Limits
from evalkit.decoding.lost import DecoderLost

__all__ = ["Decoder", "DecoderLost", "Job", "Limits"]
