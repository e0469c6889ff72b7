"""The numbers and the picture of `data_pipelines.describe`."""
