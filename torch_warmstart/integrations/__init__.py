"""Trainers: the one place that knows Lightning, transformers and Accelerate.

A module here is imported by its name (`torch_warmstart.integrations.lightning`) by whoever has the
library; nothing of the package imports it. It decides *when* a model is warm-started; what a warm
start is stays with `torch_warmstart.warm_start`.
"""
