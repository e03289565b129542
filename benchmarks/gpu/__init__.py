"""The sections of `python -m benchmarks.gpu_check`: each a module with `rows(limits)`."""
