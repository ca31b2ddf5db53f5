"""What a video model costs: counted on the meta device, beside what the papers print."""

from evalkit.flops.counter import Count, ForwardCounter, build_on_meta, count_forward, count_module

__all__ = ["Count", "ForwardCounter", "build_on_meta", "count_forward", "count_module"]
