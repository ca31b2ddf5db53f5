"""The human study: blind ranking from planning to figures."""
