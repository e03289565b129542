"""Commands that measure speed and memory; results stand in docs/benchmarks/."""
