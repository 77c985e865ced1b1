"""The benchmarks, one a module; each has a `BENCHMARK`."""
