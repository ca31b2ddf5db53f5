"""Exact judgements in the world of shapes: what the prompt's scene says against what the pixels show.

No part of VBench and of no total: extra rows for suites whose prompts carry scenes.
"""
