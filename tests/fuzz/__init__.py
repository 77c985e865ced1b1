"""The fuzzer of the checkpoint formats; see README.md."""
