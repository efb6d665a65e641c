"""Few-shot evaluations by the benchmark suite: one YAML file an experiment."""
