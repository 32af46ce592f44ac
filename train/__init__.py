"""From a dataset to a network: definition, training, export to ONNX."""
