"""Models written elsewhere: ONNX files and PyTorch modules."""
