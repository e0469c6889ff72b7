"""The parts of `data_pipelines.synthetic_alibaba`."""
