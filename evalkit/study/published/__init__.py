"""Published tables of mean ranks: what they mean, where they contradict themselves, and their figures."""

from evalkit.study.published.conclude import conclude_published

__all__ = ["conclude_published"]
